"""The command line: one thin module a verb, and one place where errors become a sentence and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["build", "main"]

_PANELS = {
    "The main job": ["demo", "forget", "audit", "report"],
    "Models and data": ["train", "lab", "data", "objectives"],
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

    @app.callback()
    def root(
        debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
        version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
    ) -> None:
        if version:
            from demur import __version__

            print(__version__)
            raise typer.Exit

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
    sys.exit(_run(words, debug))


def _run(words: list[str], debug: bool) -> int:
    import click
    import typer

    from demur.errors import DemurError

    try:
        result = typer.main.get_command(build()).main(args=words, prog_name="demur", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _say("interrupted; what was finished is kept, and the same command goes on from there", 1)
    except BaseException as error:
        if isinstance(error, SystemExit):
            return int(error.code or 0)
        if debug:
            raise
        if isinstance(error, DemurError):
            return _say(str(error), error.exit_code)
        if hasattr(error, "format_message"):  # click's own, whichever click typer brings along
            return _say(error.format_message(), getattr(error, "exit_code", 2))
        if isinstance(error, OSError):
            return _say(_os_message(error), 1)
        return _say(f"{type(error).__name__}: {error} (run again with --debug for the traceback)", 1)


def _os_message(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the disk is full: free some space and run the same command again"
    what = f" {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{what}"


def _say(message: str, code: int) -> int:
    print(f"demur: {message}", file=sys.stderr)
    return code
