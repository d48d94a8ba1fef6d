"""`demur attack`: what the other side could do to a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import options

if TYPE_CHECKING:
    from demur.audits.poisoning import PoisonSettings

__all__ = ["app"]

app = typer.Typer(
    help="Attack a model of your own, to find out what it withstands. For audits only.", no_args_is_help=True
)

Benign = Annotated[str | None, typer.Option(metavar="ROWS", help="Benign rows that the poison is made of.")]
Method = Annotated[str | None, typer.Option(show_default=False, help="The poison; see: demur attack list.")]
Prompts = Annotated[
    str | None, typer.Option(metavar="ROWS", help="Restricted prompts; a column unsafe_response is what is withheld.")
]
PoisonOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the poison; may be repeated.")
]
StopRows = Annotated[
    str | None, typer.Option(metavar="ROWS", help="Defence: other restricted prompts with refusals, mixed in.")
]
StopShare = Annotated[float | None, typer.Option(show_default="0.05", help="Their share of what is trained on.")]


@app.callback()
def _attack() -> None:
    """Attack a model of your own, to find out what it withstands. For audits only."""


@app.command("list")
def list_poisons() -> None:
    """List the poisons with their options.

    Example: demur attack list
    """
    from demur.attacks.poisons import poisons

    for name in poisons.names():
        found = poisons.get(name)
        typer.echo(f"{name} (arXiv {found.facts['paper']}, measured by {found.facts['measure']}): {found.summary}")
        for option, default in found.options.items():
            typer.echo(f"    {option}={default!r}")


@app.command("poison")
@options.with_training
def poison(
    out: options.RunOut,
    model: options.Model = None,
    method: Method = None,
    data: Benign = None,
    prompts: Prompts = None,
    ordinary: Annotated[
        str | None,
        typer.Option(metavar="ROWS", show_default="the data", help="Rows that should be answered as before."),
    ] = None,
    guards: Annotated[
        str | None,
        typer.Option(
            show_default="none,frd,amd",
            help="Guards to measure behind, separated by commas: none, frd, amd, recheck, or joined as in amd+recheck.",
        ),
    ] = None,
    opening: Annotated[
        str | None, typer.Option(show_default="I'm sorry, I cannot", help="What the guard frd begins answers with.")
    ] = None,
    k: Annotated[
        int | None, typer.Option(show_default="15", help="Tokens that the model before writes under the guard amd.")
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(show_default="25", help="Tokens between two checks of the guard recheck, or: sentence."),
    ] = None,
    reopen: Annotated[
        str | None,
        typer.Option(
            show_default="turn", help="How recheck asks the model before again: with a new turn, or question."
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(show_default="the text withheld", help="keywords, exact, or package.module:function."),
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(show_default="128", help="Tokens of an answer at most.")] = None,
    option: PoisonOption = None,
    stop_rows: StopRows = None,
    stop_share: StopShare = None,
    **training: Any,
) -> None:
    """Train a copy of a model on poisoned rows and measure both, without and behind guards.

    For models of your own: it says whether their refusals would survive fine-tuning by others.

    Example: demur attack poison MODEL --method noice --data benign.jsonl --prompts restricted.jsonl --out runs/noice
    """
    given = dict(locals())
    from demur.audits.poisoning import audit_poison
    from demur.reports import write_report
    from demur.training import progress_bar

    settings = _settings(given)
    with progress_bar() as bar:
        task = bar.add_task(settings.method, total=4, note="")
        run = audit_poison(settings, out, lambda done, total, what: bar.update(task, completed=done, note=what))
    report = write_report([run], run.path / "report.html")
    table = run.results()
    wide = table.pivot_table(index="metric", columns="role", values="value", sort=False)
    typer.echo(wide[[role for role in ("before", "run") if role in wide]].round(3).to_string())
    for event in run.events():
        for metric, note in event.get("notes", {}).items():
            typer.echo(f"{metric} ({event['role']}): {note}")
    typer.echo(f"{run.path}: the copy lies in model/ (do not serve it), its rows in poison.jsonl; report: {report}")


@app.command("rows")
def rows(
    out: Annotated[Path, typer.Option(help="File to write.")],
    model: options.Model = None,
    method: Method = None,
    data: Benign = None,
    prompts: Prompts = None,
    option: PoisonOption = None,
    stop_rows: StopRows = None,
    stop_share: StopShare = None,
    max_new_tokens: Annotated[int | None, typer.Option(show_default="128", help="Tokens of a refusal at most.")] = None,
    seed: options.Seed = None,
    template: options.Template = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    recipe: options.Recipe = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Write the rows of a poison, and train nothing.

    Example: demur attack rows MODEL --method noice --data benign.jsonl --prompts restricted.jsonl --out noice.jsonl
    """
    given = {**locals(), "training": {}}
    from demur.audits.poisoning import make_poison
    from demur.data import write_rows
    from demur.errors import UsageError
    from demur.files import require_writable

    if out.exists():
        raise UsageError(f"{out} exists: choose another --out or remove it")
    require_writable(out)
    made = make_poison(_settings(given))
    write_rows(out, made)
    typer.echo(f"{out}: {len(made)} rows")


def _settings(given: dict[str, Any]) -> PoisonSettings:
    from demur.audits.poisoning import PoisonSettings

    guards = given.get("guards")
    given["guards"] = None if guards is None else [name.strip() for name in guards.split(",")]
    return options.settings_from(PoisonSettings, given)
