"""The command line: one thin module a verb, and one place where errors become a sentence and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["build", "main"]

_PANELS = {
    "The main job": ["demo", "forget", "refuse", "guard", "protect", "attack", "audit", "report", "sweep", "requests"],
    "Models and data": ["train", "sequence", "continual", "lab", "data", "objectives", "logic", "probe", "cache"],
    "Papers and evidence": ["papers", "studies"],
}


def build():  # type: ignore[no-untyped-def]
    """The typer application with every verb."""
    import typer

    app = typer.Typer(
        name="demur",
        help="What a model must not learn, must refuse, must forget, and the evidence that it does.",
        epilog="Start with: demur demo. Errors show their traceback with --debug.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            from demur import __version__

            typer.echo(__version__)
            raise typer.Exit

    @app.callback()
    def root(
        debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
        version: bool = typer.Option(
            False, "--version", help="Print the version and stop.", is_eager=True, callback=show_version
        ),
    ) -> None:
        return

    for panel, verbs in _PANELS.items():
        for verb in verbs:
            module = importlib.import_module(f"demur.cli.{verb}")
            if hasattr(module, "app"):
                app.add_typer(module.app, name=verb, rich_help_panel=panel)
            else:
                app.command(verb, rich_help_panel=panel)(getattr(module, verb))
    return app


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 not usable as asked."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore", FutureWarning)  # libraries tell each other's authors, not users
    sys.exit(_run(words, debug))


def _run(words: list[str], debug: bool) -> int:
    try:
        import typer

        command = typer.main.get_command(build())
        try:
            # Not `command.main`, which in some versions of typer turns Ctrl-C into an exit without a word.
            with command.make_context("demur", words) as context:
                command.invoke(context)
        except typer.Exit as end:
            return end.exit_code
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        return _say("interrupted; what was finished is kept, and the same command goes on from there", 1)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own, whichever click typer brings along
            return _say(error.format_message(), getattr(error, "exit_code", 2))
        if debug:
            traceback.print_exc()
        return _explain(error)


def _explain(error: Exception) -> int:
    from demur.errors import DemurError
    from demur.files import disk_full

    if isinstance(error, DemurError):
        return _say(str(error), error.exit_code)
    if disk_full(error):
        return _say("the disk is full: free some space and run the same command again", 1)
    if isinstance(error, OSError):
        what = f": {error.filename}" if error.filename else ""
        return _say(f"{error.strerror or error}{what}", 1)
    return _say(f"{type(error).__name__}: {error} (run again with --debug for the traceback)", 1)


def _say(message: str, code: int) -> int:
    if message:  # a verb without arguments has shown its help
        print(f"demur: {message}", file=sys.stderr)
    return code
