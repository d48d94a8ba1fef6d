"""demur audit"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from demur.runs import Result


def audit(
    target: str = typer.Argument(..., metavar="RUN", help="Run folder, or any model together with --out."),
    suite: str = typer.Option("tofu", help="What to measure."),
    reference: str | None = typer.Option(
        None, help="Gold model that never saw the forget rows: a model, a run folder, or a TOFU_EVAL.json."
    ),
    forget: str | None = typer.Option(None, help="Forget rows. [the run's; with perturbed answers for tofu:…]"),
    retain: str | None = typer.Option(None, help="Retain rows. [the run's]"),
    real_authors: str | None = typer.Option(None, help="Rows about real authors. [the benchmark's]"),
    world_facts: str | None = typer.Option(None, help="Rows about the world. [the benchmark's]"),
    holdout: str | None = typer.Option(None, help="Rows never trained on, for membership inference. [the run's]"),
    compat: str | None = typer.Option(None, help="Repeat another code to the letter: open-unlearning."),
    before: bool = typer.Option(True, help="Measure also the model that the run started from."),
    generation: bool = typer.Option(True, help="Answer the questions, for ROUGE and utility."),
    attack: list[str] = typer.Option([], help="Membership attack; may be repeated. [all but gradnorm]"),
    question_key: str | None = typer.Option(None, help="question or paraphrased_question."),
    max_new_tokens: int | None = typer.Option(None, help="Longest answer. [200]"),
    batch_size: int | None = typer.Option(None, help="Answers in one forward pass. [32]"),
    system_prompt: str | None = typer.Option(None, help="With --compat: text of the system's turn."),
    date_string: str | None = typer.Option(None, help="With --compat: date that the chat template is given."),
    template: str | None = typer.Option(None, help="How prompts are shown: chat or plain. [the run's]"),
    device: str | None = typer.Option(None, help="auto, cpu or cuda. [the run's]"),
    dtype: str | None = typer.Option(None, help="Type to load weights in, for instance bfloat16. [the run's]"),
    seed: int = typer.Option(0, help="Seed of the bootstrap intervals."),
    out: Path | None = typer.Option(None, help="Folder for results and samples. [the run folder]"),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
) -> None:
    """Measure what a run forgot, what it kept, and what an outsider can tell.

    [dim]Example: demur audit runs/npo --suite tofu --reference lab:almanac-gold[/dim]
    """
    from demur.audits import AuditRequest, find_suite

    run_suite = find_suite(suite)
    settings = {
        "compat": compat,
        "attacks": tuple(attack) or None,
        "question_key": question_key,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "system_prompt": system_prompt,
        "date_string": date_string,
        "generation": generation,
    }
    sources = {
        "forget": forget,
        "retain": retain,
        "real_authors": real_authors,
        "world_facts": world_facts,
        "holdout": holdout,
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
            "trust_remote_code": trust_remote_code or None,
        },
        seed,
    )
    with _watcher() as watch:
        folder, reports = run_suite(request, watch)
    _print(reports)
    print(f"{folder.path}: audited; see it with: demur report {folder.path}")


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
    from rich.table import Table

    from demur.reports.glossary import ARROWS

    roles = [results[0].role for results in columns]
    table = Table("metric", "good", *(role for role in roles), "n", title="95 % intervals in brackets")
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
