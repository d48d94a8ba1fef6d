"""`demur requests`: a ledger of deletion requests, answered one after another on one model."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import options
from demur.cli.forget import TEXT, forget

if TYPE_CHECKING:
    from rich.table import Table

    from demur.requests import Finding, Ledger, Request, Standing

__all__ = ["app"]

app = typer.Typer(help="Answer deletion requests over time, and prove it.", no_args_is_help=True)

_Ledger = Annotated[Path, typer.Argument(metavar="LEDGER", show_default=False, help="The ledger's folder.")]
_Id = Annotated[int, typer.Argument(metavar="ID", show_default=False, help="Number of a request.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_HOW = {*TEXT, *options.TRAINING, "seed"} - {"retain", "holdout", "reference", "trajectory"}
"""The options of `demur forget` that say how a language model forgets."""


@app.command("init")
@options.with_options([p for name, p in inspect.signature(forget).parameters.items() if name in _HOW])
def init(
    ledger: _Ledger,
    *,
    model: Annotated[str, typer.Option(help="Model that is to forget: folder, hub name or lab model.")],
    retain: Annotated[str, typer.Option(help="Rows to keep; what is requested is taken out of them.")],
    reference: Annotated[
        str | None, typer.Option(help="Gold model that never saw the requested rows, to compare with.")
    ] = None,
    holdout: Annotated[str | None, typer.Option(help="Rows never trained on, for membership inference.")] = None,
    training_data: Annotated[
        str | None, typer.Option(help="What the model was trained on; requested rows that are not in it are reported.")
    ] = None,
    days: Annotated[int, typer.Option(help="From receipt to deadline, where a request names none.")] = 30,
    suite: Annotated[str | None, typer.Option(help="Audit suite to run after every step, for instance tofu.")] = None,
    rows: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SOURCE", help="Rows of a set of the suite; may be repeated.")
    ] = None,
    suite_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of the suite; may be repeated.")
    ] = None,
    option: options.ObjectiveOption = None,
    recipe: options.Recipe = None,
    **settings: Any,
) -> None:
    """Make a ledger for one model; the options that say how to forget are those of demur forget.

    Example: demur requests init ledger --model lab:almanac --retain lab:almanac:retain --learning-rate 5e-4
    """
    from demur.requests import Ledger

    made = Ledger.create(
        ledger,
        model=model,
        retain=retain,
        reference=reference,
        holdout=holdout,
        training_data=training_data,
        days=days,
        suite=suite,
        suite_rows=options.key_values(rows or (), "--rows"),
        suite_options=options.key_values(suite_option or (), "--suite-option"),
        recipe=recipe,
        objective_options=options.key_values(option or ()) or None,
        **settings,
    )
    typer.echo(f"{made.path}: made; add a request with: demur requests add {ledger} --rows ROWS --requester NAME")


@app.command("add")
def add(
    ledger: _Ledger,
    rows: Annotated[str, typer.Option(help="Rows to forget: file, folder, hub name, tofu:…, muse:… or lab:…")],
    requester: Annotated[str, typer.Option(help="Who asks.")],
    deadline: Annotated[str | None, typer.Option(help="Date or time, in UTC where nothing else is said.")] = None,
    days: Annotated[
        int | None, typer.Option(min=1, show_default="the ledger's", help="From receipt to deadline.")
    ] = None,
    received: Annotated[str | None, typer.Option(show_default="now", help="When the request came in.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for instance the article of a law.")] = None,
    note: Annotated[str | None, typer.Option(help="Whatever else is to be known.")] = None,
    keep_rows: Annotated[
        bool, typer.Option(help="Keep the rows beside the ledger once they are forgotten, to measure them again.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Where there is no ledger yet: the model, as for init.")] = None,
    retain: Annotated[str | None, typer.Option(help="Likewise: rows to keep.")] = None,
    recipe: options.Recipe = None,
    as_json: _Json = False,
) -> None:
    """Put down a request, and print its number.

    Example: demur requests add ledger --rows 'lab:almanac:forget[0:5]' --requester ann@example.org
    """
    from demur.errors import UsageError
    from demur.requests import Ledger

    if not (ledger / "ledger.sqlite").exists() and model is not None and retain is not None:
        found = Ledger.create(ledger, model=model, retain=retain, recipe=recipe)
    else:
        found = Ledger.open(ledger)
        if model is not None or retain is not None or recipe is not None:
            raise UsageError(f"{ledger} is a ledger already: leave --model, --retain and --recipe out")
    request = found.add(
        rows,
        requester,
        deadline=deadline,
        days=days,
        received=received,
        reason=reason,
        note=note,
        keep_rows=keep_rows,
    )
    if as_json:
        typer.echo(json.dumps({"id": request.id, "repeated": request.repeated, "unknown": request.unknown}))
        return
    again = "; the same was asked before" if request.repeated else ""
    typer.echo(f"request {request.id}: {request.rows} rows, due {request.deadline:%Y-%m-%d %H:%M} UTC{again}")
    if request.unknown:
        shown = ", ".join(map(str, request.unknown[:5])) + (", …" if len(request.unknown) > 5 else "")
        typer.echo(f"{len(request.unknown)} rows are not in the training data: row {shown}", err=True)


@app.command("process")
def process(
    ledger: _Ledger,
    together: Annotated[bool, typer.Option("--together", help="Forget all waiting rows in one step.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Take up also the requests that failed.")] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of demur forget that differs; may be repeated."),
    ] = None,
) -> None:
    """Answer all requests that wait, one after another on the same model; the same command goes on after a crash.

    Example: demur requests process ledger
    """
    from demur.requests import Ledger

    found = Ledger.open(ledger)
    given = options.key_values(setting or (), "--set")
    taken = found.process(
        together=together, retry=retry, settings=given, say=lambda sentence: typer.echo(sentence, err=True)
    )
    if not taken:
        typer.echo("nothing waits")
        return
    failed = _tell(found, taken)
    typer.echo(f"see {found.path / 'status.html'}")
    if failed:
        raise typer.Exit(1)


def _tell(ledger: Ledger, taken: list[Request]) -> int:
    """A line a request; returns how many failed."""
    from demur.requests.page import measure_text

    standings = {standing.request.id: standing for standing in ledger.status()}
    for request in taken:
        standing = standings[request.id]
        told = request.explanation
        if request.state == "done":
            scores = f"{measure_text(standing.before)} → {measure_text(standing.forget)}"
            found = standing.verdict.word if standing.verdict else "–"
            told = f"{found}; forget score {scores}, utility {measure_text(standing.utility)}"
        typer.echo(f"request {request.id}: {request.state}: {told}")
    return sum(request.state == "failed" for request in taken)


@app.command("status")
def status(
    ledger: _Ledger,
    as_json: _Json = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where a request is overdue.")] = False,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the status as a page, with plots.")] = None,
) -> None:
    """Show every request: what is left until its deadline, its state, and what was measured.

    Example: demur requests status ledger --check
    """
    from demur.requests import Ledger, status_json, write_status

    found = Ledger.open(ledger)
    standings = found.status()
    if page is not None:
        write_status(found, page)
    if as_json:
        typer.echo(json.dumps(status_json(found), indent=1, ensure_ascii=False))
    else:
        from rich.console import Console

        Console(emoji=False).print(_table(standings) if standings else "no requests yet")
    late = [str(s.request.id) for s in standings if s.overdue]
    if check and late:
        typer.echo(f"demur: overdue: request {', '.join(late)}", err=True)
        raise typer.Exit(1)


def _table(standings: list[Standing]) -> Table:
    from rich.markup import escape
    from rich.table import Column, Table

    from demur.requests.page import deadline_text, measure_text

    columns = ("requester", "rows", "received, due", "state, finding, run", "forget score, now", "utility")
    table = Table(Column("id", justify="right"), *columns, show_lines=True, title="with 95 % intervals in brackets")
    for standing in standings:
        request = standing.request
        left = [] if request.state == "rejected" else [deadline_text(standing)]
        scores = [measure_text(standing.forget)]
        if standing.latest != standing.forget:
            scores.append(f"now {measure_text(standing.latest)}")
        table.add_row(
            str(request.id),
            "–" if request.requester is None else escape(request.requester),
            str(request.rows),
            "\n".join([f"{request.received:%Y-%m-%d}", f"{request.deadline:%Y-%m-%d}", *left]),
            "\n".join(filter(None, [request.state, standing.verdict and standing.verdict.word, standing.run])),
            escape("\n".join(scores)),
            escape(measure_text(standing.utility)),
            style="red" if standing.overdue or request.state == "failed" else "",
        )
    return table


@app.command("verify")
def verify(
    ledger: _Ledger,
    number: Annotated[
        int | None, typer.Argument(metavar="[ID]", show_default="all", help="Number of a request.")
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Rows that must be the ones that request ID asked for.")] = None,
    measure: Annotated[bool, typer.Option(help="Measure the forget scores again.")] = True,
    as_json: _Json = False,
) -> None:
    """Check chain, weights and rows against the ledger, and whether what was forgotten has come back.

    Example: demur requests verify ledger 3 --rows asked.jsonl
    """
    from dataclasses import asdict

    from demur.requests import Ledger

    found = Ledger.open(ledger).verify(number, rows=rows, measure=measure)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=1, ensure_ascii=False))
    else:
        _print_findings(found)
    if any(finding.holds is False for finding in found):
        raise typer.Exit(1)


def _print_findings(findings: list[Finding]) -> None:
    words = {True: "ok", False: "WRONG", None: "unknown"}
    for finding in findings:
        typer.echo(f"{words[finding.holds]:8}{finding.what}: {finding.detail}")


@app.command("certificate")
def certificate(
    ledger: _Ledger,
    number: _Id,
    out: Annotated[Path, typer.Option(help="Folder for the JSON file and the page.")],
    key: Annotated[Path | None, typer.Option(help="File with a secret of at least 16 bytes, to sign with.")] = None,
) -> None:
    """Write the certificate of an answered request, as JSON and as a page.

    Example: demur requests certificate ledger 3 --out certificates --key signing.key
    """
    from demur.requests import Ledger

    file = Ledger.open(ledger).certificate(number, out, key)
    typer.echo(f"{file}\n{file.with_suffix('.html')}")


@app.command("verify-certificate")
def verify_certificate(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="A certificate's JSON file.")],
    key: Annotated[Path | None, typer.Option(help="The secret that it was signed with.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="The ledger that must hold its entry.")] = None,
    rows: Annotated[str | None, typer.Option(help="Rows that must be the ones that it is about.")] = None,
) -> None:
    """Find out whether a certificate still says what it said.

    Example: demur requests verify-certificate certificates/certificate-0003.json --key signing.key
    """
    from demur.requests import Ledger
    from demur.requests import verify_certificate as check

    problems = check(file, key, None if ledger is None else Ledger.open(ledger), rows)
    for problem in problems:
        typer.echo(f"WRONG   {problem}")
    if problems:
        raise typer.Exit(1)
    typer.echo(f"ok      {file}")


@app.command("reject")
def reject(ledger: _Ledger, number: _Id, reason: Annotated[str, typer.Option(help="Why it is turned down.")]) -> None:
    """Turn down a request that waits.

    Example: demur requests reject ledger 4 --reason "the requester could not be identified"
    """
    from demur.requests import Ledger

    typer.echo(f"request {Ledger.open(ledger).reject(number, reason).id}: rejected")


@app.command("redact")
def redact(ledger: _Ledger, number: _Id) -> None:
    """Delete an answered request's kept rows, requester, reason, note and source; hashes and numbers stay.

    Example: demur requests redact ledger 3
    """
    from demur.requests import Ledger

    typer.echo(f"request {Ledger.open(ledger).redact(number).id}: redacted")
