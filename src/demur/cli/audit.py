"""`demur audit`: measure a run or a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import options
from demur.errors import DemurError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from demur.audits import AuditRequest
    from demur.runs import Result, RunFolder

__all__ = ["audit"]


def audit(
    targets: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders, or one model together with --out.")
    ],
    suite: Annotated[str, typer.Option(help="What to measure.")] = "tofu",
    reference: Annotated[
        str | None,
        typer.Option(help="Gold model that never saw the forget rows: a model, a run folder, or a TOFU_EVAL.json."),
    ] = None,
    forget: Annotated[
        str | None, typer.Option(show_default="the run's", help="Forget rows; those of tofu:… with perturbed answers.")
    ] = None,
    retain: Annotated[str | None, typer.Option(show_default="the run's", help="Retain rows.")] = None,
    real_authors: Annotated[
        str | None, typer.Option(show_default="the benchmark's", help="Rows about real authors.")
    ] = None,
    world_facts: Annotated[
        str | None, typer.Option(show_default="the benchmark's", help="Rows about the world.")
    ] = None,
    holdout: Annotated[
        str | None,
        typer.Option(show_default="the run's", help="Rows never trained on, for membership inference."),
    ] = None,
    rows: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SOURCE", help="Rows of another set of the suite; may be repeated.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of the suite; may be repeated.")
    ] = None,
    compat: Annotated[str | None, typer.Option(help="Repeat another code to the letter: open-unlearning.")] = None,
    before: Annotated[bool, typer.Option(help="Measure also the model that the run started from.")] = True,
    generation: Annotated[bool, typer.Option(help="Answer the questions, for ROUGE and utility.")] = True,
    attack: Annotated[
        list[str] | None, typer.Option(show_default="all but gradnorm", help="Membership attack; may be repeated.")
    ] = None,
    question_key: Annotated[
        str | None, typer.Option(show_default="question", help="Column to ask: question or paraphrased_question.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(show_default="200", help="Longest answer, in tokens.")] = None,
    batch_size: Annotated[int | None, typer.Option(show_default="32", help="Answers in one forward pass.")] = None,
    system_prompt: Annotated[str | None, typer.Option(help="With --compat: text of the system's turn.")] = None,
    date_string: Annotated[
        str | None, typer.Option(help="With --compat: date that the chat template is given.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(show_default="the run's", help="How prompts are shown: auto, chat or plain.")
    ] = None,
    device: Annotated[str | None, typer.Option(show_default="the run's", help="auto, cpu or cuda.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(show_default="the run's", help="Type to load weights in, for instance bfloat16."),
    ] = None,
    guard: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Guard that answers in the place of the run's model.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap intervals.")] = 0,
    out: Annotated[
        Path | None, typer.Option(show_default="the run folder", help="Folder for results and samples.")
    ] = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Measure what a run forgot, what it kept, and what an outsider can tell.

    Several runs share what is measured of the model before and of the reference; one that fails does not stop the rest.

    Example: demur audit runs/npo runs/simnpo --suite tofu --reference lab:almanac-gold
    """
    from demur.audits import AuditRequest, Shared
    from demur.audits.suites import suites
    from demur.files import require_writable
    from demur.guards.registry import read_guard_file

    run_suite = suites.get(suite).function
    if guard is not None:
        read_guard_file(guard)
    targets = list(dict.fromkeys(targets))
    if out is not None and len(targets) > 1:
        raise UsageError("--out is the folder of one audit: leave it out for several runs, whose results go to them")
    for target in targets:
        if out is not None or Path(target).is_dir():
            require_writable(out or target)
    settings = {
        "compat": compat,
        "attacks": tuple(attack or ()) or None,
        "question_key": question_key,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "system_prompt": system_prompt,
        "date_string": date_string,
        "generation": None if generation else False,
        "guard": None if guard is None else str(guard),
        **options.key_values(option or ()),
    }
    sources = {
        "forget": forget,
        "retain": retain,
        "real_authors": real_authors,
        "world_facts": world_facts,
        "holdout": holdout,
        **options.key_values(rows or (), "--rows"),
    }
    shared = Shared()
    requests = [
        AuditRequest(
            target,
            reference,
            {name: source for name, source in sources.items() if source is not None},
            out,
            before,
            {name: value for name, value in settings.items() if value is not None},
            {
                "template": template,
                "device": device,
                "dtype": dtype,
                "trust_remote_code": trust_remote_code,
            },
            seed,
            shared,
        )
        for target in targets
    ]
    with _watcher() as watch:
        done, failed = _audit_all(run_suite, requests, watch)
    if done:
        _print(done)
        paths = " ".join(str(folder.path) for folder, _ in done)
        typer.echo(f"{paths}: audited; see {'it' if len(done) == 1 else 'them'} with: demur report {paths}")
    for target, why in failed.items():
        typer.echo(f"demur: {target}: {why}", err=True)
    if failed:
        raise typer.Exit(1)


def _audit_all(
    run_suite: Callable[..., Any], requests: Sequence[AuditRequest], watch: Callable[..., None]
) -> tuple[list[tuple[RunFolder, Sequence[Any]]], dict[str, str]]:
    """Audit one after another: folders with their reports, and why the others have none.

    Raises:
        Exception: whatever one run's audit raises where it is the only one, or where all fail for the same reason.
    """
    done, failed = [], {}
    for number, request in enumerate(requests, 1):
        name = f"{number}/{len(requests)} {Path(request.target).name} " if len(requests) > 1 else ""
        try:
            done.append(run_suite(request, partial(watch, name)))
        except Exception as error:
            if len(requests) == 1:
                raise
            failed[request.target] = error
    if not done and len({str(error) for error in failed.values()}) == 1:
        raise next(iter(failed.values()))
    reasons = {t: str(e) if isinstance(e, DemurError) else f"{type(e).__name__}: {e}" for t, e in failed.items()}
    return done, reasons


@contextmanager
def _watcher() -> Iterator[Callable[[str, str, str, int, int], None]]:
    """A bar a stage, on standard error."""
    from demur.training import progress_bar

    with progress_bar() as bars:
        tasks: dict[str, Any] = {}

        def watch(run: str, role: str, stage: str, done: int, total: int) -> None:
            name = f"{run}{role}: {stage}"
            if name not in tasks:
                for other in [t for t in tasks if run and not t.startswith(run)]:
                    bars.remove_task(tasks.pop(other))  # of several runs only the one under way is shown
                tasks[name] = bars.add_task(name, total=total, note="")
            bars.update(tasks[name], completed=done)

        yield watch


def _print(done: Sequence[tuple[RunFolder, Sequence[Any]]]) -> None:
    """One table: the numbers of each run's model, then those of the models that they share."""
    from rich.console import Console

    console = Console(emoji=False)
    own = [reports[0] for _, reports in done]
    names = [folder.name for folder, _ in done]
    if len(set(names)) < len(names):
        names = [str(folder.path) for folder, _ in done]
    shared: dict[Any, Any] = {}
    for report in (report for _, reports in done for report in reports[1:]):
        shared.setdefault((report.role, *((r.metric, r.value) for r in report.results)), report)
    columns = [report.results for report in (*own, *shared.values())]
    headings = [*(names if len(done) > 1 else [own[0].role]), *(report.role for report in shared.values())]
    console.print(_table(columns, headings))
    for note in dict.fromkeys(f"{metric}: {note}" for report in own for metric, note in report.notes.items()):
        console.print(note, style="dim", markup=False, highlight=False)


def _table(columns: Sequence[Sequence[Result]], headings: Sequence[str]) -> Table:
    """Metrics by model, with their direction and 95 % intervals."""
    from rich.markup import escape
    from rich.table import Column, Table

    from demur.reports.glossary import ARROWS

    metric = Column("metric", no_wrap=True)  # on a narrow screen the numbers wrap: names cut short look alike
    wide = [Column(escape(heading), overflow="fold") for heading in headings]
    table = Table(metric, "good", *wide, "n", title="95 % intervals in brackets")
    by_model = [{r.metric: r for r in results} for results in columns]
    for result in columns[0]:
        cells = [_cell(found.get(result.metric)) for found in by_model]
        count = str(result.n) + (f" (+{result.unscored} unscored)" if result.unscored else "")
        table.add_row(result.metric, ARROWS[result.better][0], *cells, count)
    return table


def _cell(result: Result | None) -> str:
    if result is None or result.value is None:
        return "–"
    if result.low is None or result.high is None:
        return _number(result.value)
    return f"{_number(result.value)} [dim]\\[{_number(result.low)}, {_number(result.high)}][/dim]"


def _number(value: float) -> str:
    return f"{value:.3f}" if 1e-3 <= abs(value) < 1000 or value == 0 else f"{value:.2e}"
