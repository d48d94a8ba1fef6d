"""The honesty suite: are answers honest about their limits, are they helpful all the same, and how long are they?

Rows are queries with a category of HoneSet's (Gao et al. 2024, arXiv 2406.00380). Honesty alone is had by answering
nothing and helpfulness alone by bluffing: read them together.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.audits.estimates import Audit, Estimate, Unavailable, metric
from demur.audits.honesty import ModelH2Judge, ModelHonestyJudge, h2_bins, honesty_rate, keyword_honesty
from demur.audits.request import AuditRequest
from demur.audits.roles import Progress, RoleProgress, Suite, audit_roles, make_settings
from demur.audits.samples import Samples, cached_pass
from demur.audits.suite_report import Role, SuiteReport
from demur.audits.suites import suites
from demur.data.honeset import honeset_category
from demur.errors import RowError, UnknownNameError, UsageError

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

    from demur.models import Engine, LanguageModel
    from demur.runs import RunFolder

__all__ = ["HONESTY_METRICS", "HonestySettings", "honesty_samples", "run_honesty"]

_VERSION = 1  # of what a pass measures; raising it makes every cached one stale
Verdict = tuple[bool | None, float | None]


@dataclass(frozen=True)
class HonestySettings:
    """How the suite measures.

    Attributes:
        judge: "keywords" (honesty alone, by the words in which limits are admitted), `model:NAME` (a model answers),
            or `package.module:function`, called with lists of queries, answers and categories, which returns for each
            answer whether it is honest and its H² score from 1 to 10; either may be None.
        max_new_tokens: longest answer.
        batch_size: prompts in one forward pass.
        guard: folder of a guard that answers in the place of the run's model.
    """

    judge: str = "keywords"
    max_new_tokens: int = 200
    batch_size: int = 32
    guard: str | None = None


def honesty_samples(
    engine: Engine, rows: Dataset, settings: HonestySettings | None = None, progress: Progress | None = None
) -> pd.DataFrame:
    """Ask every query and judge the answers.

    Args:
        engine: what answers.
        rows: queries with the columns id, prompt and category.
        settings: how; the defaults if None.
        progress: told before asking and before judging.

    Returns:
        A row a query: id, prompt, category, generation, `honest` and `h2` (nan where there is no verdict), `words`.

    Raises:
        UsageError: there is no such judge, or it gives another number of verdicts.
        RowError: a row's category is none of HoneSet's.
    """
    import pandas as pd

    settings = settings or HonestySettings()
    judge = _find_judge(settings)
    categories, prompts = _categories(rows), rows["prompt"][:]
    if progress is not None:
        progress("answering", 0, 2)
    answers = [a.text for a in engine.generate(prompts, max_new_tokens=settings.max_new_tokens)]
    if progress is not None:
        progress("judging", 1, 2)
    asked = [p if isinstance(p, str) else str(p[-1]["content"]) for p in prompts]
    verdicts = list(judge(asked, answers, categories))
    if len(verdicts) != len(answers):
        raise UsageError(f"judge {settings.judge!r} gave {len(verdicts)} verdicts on {len(answers)} answers")
    return pd.DataFrame(
        {
            "id": rows["id"][:],
            "prompt": asked,
            "category": categories,
            "generation": answers,
            "honest": pd.Series([None if honest is None else float(honest) for honest, _ in verdicts], dtype=float),
            "h2": pd.Series([score for _, score in verdicts], dtype=float),
            "words": [float(len(answer.split())) for answer in answers],
        }
    )


def _categories(rows: Dataset) -> list[str]:
    found = []
    for line, name in enumerate(rows["category"][:], start=1):
        try:
            found.append(honeset_category(str(name)))
        except UnknownNameError as error:
            raise RowError("the queries", line, "category", str(error)) from None
    return found


def _find_judge(settings: HonestySettings) -> Callable[[list[str], list[str], list[str]], list[Verdict]]:
    """The judge that the settings name, as one function for both verdicts.

    Raises:
        UsageError: there is no such judge.
    """
    if settings.judge == "keywords":
        return lambda queries, answers, categories: [(v, None) for v in keyword_honesty(queries, answers, categories)]
    kind, _, name = settings.judge.partition(":")
    if kind == "model" and name:
        from demur.models import LocalEngine, load_model

        engine = LocalEngine(load_model(name), settings.batch_size)
        honesty, helpfulness = ModelHonestyJudge(engine), ModelH2Judge(engine)
        return lambda *asked: list(zip(honesty(*asked), helpfulness(*asked), strict=True))
    try:
        found: Any = getattr(importlib.import_module(kind), name, None) if name else None
    except ImportError as error:
        raise UsageError(f"the judge {settings.judge!r} cannot be imported: {error}") from error
    if not callable(found):
        raise UsageError(f"unknown judge {settings.judge!r}: use keywords, model:NAME or package.module:function")
    return found


def _column(audit: Audit, name: str) -> list[float | None]:
    if "queries" not in audit.samples:
        raise Unavailable("no queries were given")
    values = audit.samples["queries"][name]
    if values.isna().all():
        reason = "the judge gives no such verdict" + (": use --option judge=model:NAME" if name == "h2" else "")
        raise Unavailable(reason, len(values))
    return [None if value != value else float(value) for value in values]


@metric("honesty_rate", better="higher", paper="2406.00380", needs=("queries",))
def honesty_rate_metric(audit: Audit) -> Estimate:
    """Share of the judged answers that do what an honest assistant does with a query of the category."""
    return honesty_rate([None if value is None else value == 1 for value in _column(audit, "honest")])


@metric("h2_score", better="higher", paper="2406.00380", needs=("queries",))
def h2_score_metric(audit: Audit) -> Estimate:
    """Mean H², honest helpfulness from 1 to 10."""
    _column(audit, "h2")
    return audit.mean("queries", "h2")


@metric("h2_poor", better="lower", paper="2406.00380", needs=("queries",))
def h2_poor(audit: Audit) -> Estimate:
    """Share of the scored answers with an H² below 4."""
    return h2_bins(_column(audit, "h2"))["poor"]


@metric("h2_excellent", better="higher", paper="2406.00380", needs=("queries",))
def h2_excellent(audit: Audit) -> Estimate:
    """Share of the scored answers with an H² of 7 or more."""
    return h2_bins(_column(audit, "h2"))["excellent"]


@metric("answer_words", better="none", paper="2406.00380", needs=("queries",))
def answer_words(audit: Audit) -> Estimate:
    """Mean number of words of an answer: judges may like long ones."""
    return audit.mean("queries", "words")


HONESTY_METRICS = ("honesty_rate", "h2_score", "h2_poor", "h2_excellent", "answer_words")


@suites.register("honesty")
def run_honesty(request: AuditRequest, progress: RoleProgress | None = None) -> tuple[RunFolder, list[SuiteReport]]:
    """Audit a run, or a plain model, on queries that ask for honesty about limits: `--rows queries=SOURCE`.

    Args:
        request: what to audit; HoneSet's test split is asked without such rows, where it is at hand.
        progress: see `RoleProgress`.

    Returns:
        The folder and the reports by role.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    from demur.data import read_rows, rows_hash
    from demur.models import LocalEngine

    request.check()
    settings = make_settings(HonestySettings, "an honesty", request.settings)
    source = next((s for name, s in request.sources.items() if name == "queries"), "honeset:test")
    rows = request.shared.once(("rows", source), lambda: read_rows(source, required=("prompt", "category")))
    _categories(rows)

    def measure(lm: LanguageModel, watch: Progress | None) -> Samples:
        def make() -> Samples:
            engine = LocalEngine(lm, settings.batch_size)
            return Samples({"queries": honesty_samples(engine, rows, settings, watch)}, lm.name)

        parts = [_VERSION, "honesty", rows_hash(rows), settings.judge, settings.max_new_tokens]
        return cached_pass(Samples, lm, parts, make)

    def guarded(lm: LanguageModel, watch: Progress | None) -> Samples:
        from demur.guards import open_guard

        engine = open_guard(str(settings.guard), LocalEngine(lm, settings.batch_size))
        return Samples({"queries": honesty_samples(engine, rows, settings, watch)}, lm.name)

    def report(samples: Samples, reference: Samples | None, *, role: Role, seed: int, seconds: float) -> SuiteReport:
        audit, names = Audit(samples.tables, seed=seed), HONESTY_METRICS
        facts: dict[str, Any] = {"suite": "honesty", "role": role, "run": "", "seconds": seconds}
        made = SuiteReport.compute(audit, names, samples, reference, **facts)
        note = {"honesty_rate": "judged by key words: an upper bound"} if settings.judge == "keywords" else {}
        return SuiteReport(made.results, {**note, **made.notes}, samples, reference)

    suite: Suite[Samples, SuiteReport] = Suite(
        name="honesty",
        sources={"queries": source},
        data_hash=rows_hash(rows),
        measure=measure,
        report=report,
        measure_run=guarded if settings.guard is not None else None,
    )
    return audit_roles(request, suite, progress)
