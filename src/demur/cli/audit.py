"""`demur audit`: measure a run or a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from demur.runs import Result

__all__ = ["audit"]


def audit(
    target: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or any model together with --out.")],
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
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap intervals.")] = 0,
    out: Annotated[
        Path | None, typer.Option(show_default="the run folder", help="Folder for results and samples.")
    ] = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Measure what a run forgot, what it kept, and what an outsider can tell.

    Example: demur audit runs/npo --suite tofu --reference lab:almanac-gold
    """
    from demur.audits import AuditRequest
    from demur.audits.suites import suites
    from demur.files import require_writable

    run_suite = suites.get(suite).function
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
        "generation": generation,
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
    request = AuditRequest(
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
    )
    with _watcher() as watch:
        folder, reports = run_suite(request, watch)
    _print(reports)
    typer.echo(f"{folder.path}: audited; see it with: demur report {folder.path}")


@contextmanager
def _watcher() -> Iterator[Callable[[str, str, int, int], None]]:
    """A bar a stage, on standard error."""
    from demur.training import progress_bar

    with progress_bar() as bars:
        tasks: dict[str, Any] = {}

        def watch(role: str, stage: str, done: int, total: int) -> None:
            name = f"{role}: {stage}"
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, note="")
            bars.update(tasks[name], completed=done)

        yield watch


def _print(reports: Sequence[Any]) -> None:
    from rich.console import Console

    console = Console()
    console.print(_table([r.results for r in reports]))
    for report in reports[:1]:
        for metric, note in report.notes.items():
            console.print(f"{metric}: {note}", style="dim", markup=False, highlight=False)


def _table(columns: Sequence[Sequence[Result]]) -> Table:
    """Metrics by role, with their direction and 95 % intervals."""
    from rich.table import Column, Table

    from demur.reports.glossary import ARROWS

    roles = [results[0].role for results in columns]
    metric = Column("metric", no_wrap=True)  # on a narrow screen the numbers wrap: names cut short look alike
    table = Table(metric, "good", *roles, "n", title="95 % intervals in brackets")
    by_role = [{r.metric: r for r in results} for results in columns]
    for result in columns[0]:
        cells = [_cell(found.get(result.metric)) for found in by_role]
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
