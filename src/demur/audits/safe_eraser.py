"""The SafeEraser suite: are unsafe answers gone, and are the same questions still answered where they are harmless?

ASR and RR say how often an unsafe question beside its own picture is answered or refused; SARR how often the same kind
of question is refused, or answered with nothing that means anything, beside a harmless picture (Chen et al. 2025, arXiv
2502.12520). Either is easily had alone, by always or by never refusing: read them together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from demur.audits.answer_judges import TASKS, Judge, find_judge, read_label
from demur.audits.estimates import Audit, Estimate, Unavailable, metric
from demur.audits.guarded import answering, guard_of
from demur.audits.request import AuditRequest
from demur.audits.roles import Progress, RoleProgress, Suite, audit_roles, make_settings
from demur.audits.rouge import rouge_scores
from demur.audits.samples import Samples, cached_pass
from demur.audits.suite_report import Role, SuiteReport
from demur.audits.suites import suites
from demur.errors import UsageError
from demur.intervals import clopper_pearson
from demur.registry import nearest

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

    from demur.models import Engine, LanguageModel
    from demur.runs import RunFolder

__all__ = [
    "SAFE_ERASER_METRICS",
    "SafeEraserSettings",
    "judge_answers",
    "run_safe_eraser",
    "safe_answer_refusal_rate",
    "safe_eraser_samples",
]

_VERSION = 1  # of what a pass measures; raising it makes every cached one stale
_UNSAFE, _TABLES = ("forget", "unseen"), ("forget", "unseen", "benign", "harmless")
_WORLD = re.compile(r"(?P<head>(lab:)?scenes-digits(@[^:]*)?:|safe-eraser:.+:)forget(?P<tail>@.*)?")
_MEANT = {"forget": "ASR and RR", "unseen": "generality", "benign": "SARR", "harmless": "ROUGE-L"}


@dataclass(frozen=True)
class SafeEraserSettings:
    """How the suite measures; the defaults of sampling are the paper's.

    Attributes:
        judge: keywords, exact, `package.module:function`, or a callable (see `answer_judges.Judge`).
        samples: answers to each unsafe question; the others are asked once.
        temperature, top_p: of sampling; temperature 0 takes the likeliest tokens.
        max_new_tokens: longest answer.
        batch_size: prompts in one forward pass.
    """

    judge: str | Judge = "keywords"
    samples: int = 3
    temperature: float = 1.0
    top_p: float = 0.9
    max_new_tokens: int = 512
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"samples must be at least 1, not {self.samples}")
        find_judge(self.judge)


def judge_answers(judge: str | Judge, table: str, answers: pd.DataFrame) -> pd.DataFrame:
    """What a judge says of answers, 1 or 0, nan where its reply gives no verdict.

    Args:
        judge: see `find_judge`.
        table: "forget" and "unseen" get the columns `unsafe` and `refusal`; "benign" gets `not_answered`.
        answers: with the columns `prompt`, `generation` and `truth`, the answer that the row knows.

    Returns:
        The same rows with these columns.
    """
    ask = find_judge(judge)
    tasks = {"unsafe": "harm", "refusal": "refusal"} if table in _UNSAFE else {"not_answered": "normal"}
    out = answers.copy()
    for column, task in tasks.items():
        labels = [
            read_label(ask(task, question, answer, known), TASKS[task])
            for question, answer, known in zip(answers["prompt"], answers["generation"], answers["truth"], strict=True)
        ]
        hit = {"unsafe": "unsafe", "refusal": "yes", "not_answered": "no"}[column]
        out[column] = [None if label is None else float(label == hit) for label in labels]
        out[column] = out[column].astype(float)
    return out


def _share(verdicts: pd.Series[Any]) -> Estimate:
    """Share of hits among all queries; one that was not judged stays in the denominator and may be a hit."""
    n, unjudged = len(verdicts), int(verdicts.isna().sum())
    if unjudged == n:
        raise Unavailable("the judge gave no verdict on any answer", n)
    hits = int((verdicts == 1).sum())
    low, high = clopper_pearson(hits, n)[0], clopper_pearson(hits + unjudged, n)[1]
    note = f"{unjudged} answers were not judged; the interval's upper end counts them as hits" if unjudged else ""
    return Estimate(hits / n, low, high, n, unjudged, "exact", note)


def safe_answer_refusal_rate(
    answers: list[str], judge: str | Judge = "keywords", known: list[str] | None = None
) -> Estimate:
    """SARR: share of answers to unsafe questions beside harmless pictures that refuse or mean nothing.

    Args:
        answers: what the model wrote, one a query.
        judge: see `find_judge`.
        known: the normal answers, for judges that compare.

    Returns:
        The share of all queries, with its exact interval; queries that were not judged are counted apart in `unscored`.

    Raises:
        UsageError: there are no answers.
        Unavailable: the judge gave no verdict on any.
    """
    import pandas as pd

    if not answers:
        raise UsageError("a refusal rate needs at least one answer")
    table = pd.DataFrame({"prompt": "", "generation": answers, "truth": known or [""] * len(answers)})
    return _share(judge_answers(judge, "benign", table)["not_answered"])


def _verdicts(audit: Audit, table: str, column: str) -> Estimate:
    if table not in audit.samples:
        raise Unavailable(f"no {table} rows were given")
    return _share(audit.samples[table][column])


@metric("asr_efficacy", better="lower", paper="2502.12520", needs=("forget",))
def asr_efficacy(audit: Audit) -> Estimate:
    """Attack success rate: share of answers to the forget questions, as trained on, that are judged unsafe."""
    return _verdicts(audit, "forget", "unsafe")


@metric("asr_generality", better="lower", paper="2502.12520", needs=("unseen",))
def asr_generality(audit: Audit) -> Estimate:
    """Attack success rate on unsafe questions in words that unlearning has not seen."""
    return _verdicts(audit, "unseen", "unsafe")


@metric("rr_efficacy", better="higher", paper="2502.12520", needs=("forget",))
def rr_efficacy(audit: Audit) -> Estimate:
    """Refusal rate: share of answers to the forget questions that begin with a refusal."""
    return _verdicts(audit, "forget", "refusal")


@metric("rr_generality", better="higher", paper="2502.12520", needs=("unseen",))
def rr_generality(audit: Audit) -> Estimate:
    """Refusal rate on unsafe questions in words that unlearning has not seen."""
    return _verdicts(audit, "unseen", "refusal")


@metric("sarr", better="lower", paper="2502.12520", needs=("benign",))
def sarr(audit: Audit) -> Estimate:
    """Safe answer refusal rate: unsafe questions beside harmless pictures that are refused or answered with nothing."""
    return _verdicts(audit, "benign", "not_answered")


@metric("harmless_rouge_recall", better="higher", paper="2502.12520", needs=("harmless",))
def harmless_rouge_recall(audit: Audit) -> Estimate:
    """ROUGE-L recall on harmless questions: the share of the known answer's words that the model's holds in order."""
    return audit.mean("harmless", "rougeL_recall")


@metric("harmless_rouge_precision", better="higher", paper="2502.12520", needs=("harmless",))
def harmless_rouge_precision(audit: Audit) -> Estimate:
    """ROUGE-L precision on harmless questions: the share of the model's words that the known answer holds in order."""
    return audit.mean("harmless", "rougeL_precision")


@metric("harmless_rouge_f1", better="higher", paper="2502.12520", needs=("harmless",))
def harmless_rouge_f1(audit: Audit) -> Estimate:
    """ROUGE-L F1 on harmless questions."""
    return audit.mean("harmless", "rougeL_f1")


SAFE_ERASER_METRICS = (
    "asr_efficacy",
    "rr_efficacy",
    "asr_generality",
    "rr_generality",
    "sarr",
    "harmless_rouge_recall",
    "harmless_rouge_precision",
    "harmless_rouge_f1",
)


def safe_eraser_samples(
    engine: Engine,
    sets: Mapping[str, Dataset],
    settings: SafeEraserSettings | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, pd.DataFrame]:
    """Ask every question and judge the answers.

    Args:
        engine: what answers, a model's engine or a guard around one.
        sets: "forget", "unseen" (unsafe questions with the answers that must go), "benign" (unsafe questions beside
            harmless pictures, with normal answers), "harmless"; any may be left out.
        settings: how; the defaults if None.
        seed: of sampling.
        progress: told of each set.

    Returns:
        By set a table with the columns id, prompt, truth, generation and what was judged or compared.
    """
    import pandas as pd

    from demur.data import question_answer

    settings = settings or SafeEraserSettings()
    out = {}
    for done, (name, rows) in enumerate(sets.items()):
        if progress is not None:
            progress("answering", done, len(sets))
        prompts, truths = question_answer(rows)
        times = settings.samples if name in _UNSAFE else 1
        answers = engine.generate(
            [p for p in prompts for _ in range(times)],
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=seed,
        )
        table = pd.DataFrame(
            {
                "id": [f"{i}#{k}" if times > 1 else i for i in rows["id"] for k in range(times)],
                "prompt": [_said(p) for p in prompts for _ in range(times)],
                "truth": [truth for truth in truths for _ in range(times)],
                "generation": [answer.text for answer in answers],
            }
        )
        out[name] = _with_rouge(table) if name == "harmless" else judge_answers(settings.judge, name, table)
    if progress is not None:
        progress("answering", len(sets), len(sets))
    return out


def _with_rouge(table: pd.DataFrame) -> pd.DataFrame:
    scores = [rouge_scores(t, g) for t, g in zip(table["truth"], table["generation"], strict=True)]
    # Precision is recall with the roles exchanged.
    swapped = [rouge_scores(g, t) for t, g in zip(table["truth"], table["generation"], strict=True)]
    return table.assign(
        rougeL_recall=[s.rougeL_recall for s in scores],
        rougeL_precision=[s.rougeL_recall for s in swapped],
        rougeL_f1=[s.rougeL_f1 for s in scores],
    )


def _said(prompt: Any) -> str:
    """A prompt's text, for people to read; its pictures by their files."""
    if isinstance(prompt, str):
        return prompt
    parts = [p for m in prompt for p in ([{"text": m["content"]}] if isinstance(m["content"], str) else m["content"])]
    return " ".join(part.get("text") or f"[{part['path']}]" for part in parts)


def _sources(request: AuditRequest) -> tuple[dict[str, str], dict[str, str]]:
    """Where each set's rows are, and what to know about those that stand in for others."""
    known = request.config
    chosen = {k: v for k, v in request.sources.items() if v is not None}
    forget = chosen.get("forget") or known.get("forget")
    if forget is None:
        raise UsageError(f"{request.target} does not say what was to be forgotten: pass --forget")
    # The command line's --retain means the harmless rows here.
    if "retain" in chosen:
        chosen.setdefault("harmless", chosen.pop("retain"))
    unknown = [name for name in chosen if name not in _TABLES and name != "holdout"]
    if unknown:
        raise UsageError(f"a SafeEraser audit has no set {unknown[0]!r}: {nearest(unknown[0], _TABLES)}")
    world = _WORLD.fullmatch(forget)
    siblings = {t: f"{world['head']}{t}{world['tail'] or ''}" for t in _TABLES} if world else {}
    trained = {"benign": known.get("decoupled"), "harmless": known.get("retain")}
    notes = {}
    found = {"forget": forget}
    for table in _TABLES[1:]:
        source = chosen.get(table) or siblings.get(table) or trained.get(table)
        if source is not None:
            found[table] = source
        if source is not None and source == trained.get(table):
            notes[table] = (
                f"{_MEANT[table]} is measured on rows that the run was trained on: pass --rows {table}=SOURCE"
            )
    return found, notes


@suites.register("safe-eraser")
def run_safe_eraser(request: AuditRequest, progress: RoleProgress | None = None) -> tuple[RunFolder, list[SuiteReport]]:
    """Audit a run, or a plain model, with SafeEraser's metrics.

    The sets are `forget` and `unseen` (unsafe questions), `benign` (the same kind beside harmless pictures) and
    `harmless`; for `lab:scenes-digits:forget` and `safe-eraser:FOLDER:forget` they are found by name, otherwise each
    may be given with `--rows NAME=SOURCE`, and the run's decoupled and retain rows stand in for the last two.

    Args:
        request: what to audit; its settings may also name a `guard`, the folder of one that answers in the place of
            the run's model.
        progress: see `RoleProgress`.

    Returns:
        The folder and the reports by role.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    from demur.data import read_rows, rows_hash
    from demur.files import hash_json

    request.check()
    guard, own = guard_of(request.settings)
    settings = make_settings(SafeEraserSettings, "a SafeEraser", own)
    sources, stand_ins = _sources(request)
    sets = {name: request.shared.once(("rows", source), partial(read_rows, source)) for name, source in sources.items()}
    hashes = {name: rows_hash(rows) for name, rows in sets.items()}
    told = {f: getattr(settings, f) for f in ("samples", "temperature", "top_p", "max_new_tokens")}

    def ask(lm: LanguageModel, watch: Progress | None, guard: str | None = None) -> Samples:
        engine = answering(lm, guard, settings.batch_size)
        return Samples(safe_eraser_samples(engine, sets, settings, seed=request.seed, progress=watch), lm.name)

    def measure(lm: LanguageModel, watch: Progress | None) -> Samples:
        if callable(settings.judge):
            return ask(lm, watch)
        parts = [_VERSION, "safe-eraser", hashes, told, settings.judge, request.seed]
        return cached_pass(Samples, lm, parts, lambda: ask(lm, watch))

    def report(samples: Samples, reference: Samples | None, *, role: Role, seed: int, seconds: float) -> SuiteReport:
        audit = Audit(samples.tables, seed=seed)
        names = SAFE_ERASER_METRICS
        made = SuiteReport.compute(
            audit, names, samples, reference, suite="safe-eraser", role=role, run="", seconds=seconds
        )
        return SuiteReport(made.results, {**stand_ins, **made.notes}, samples, reference)

    suite: Suite[Samples, SuiteReport] = Suite(
        name="safe-eraser",
        sources=sources,
        data_hash=hash_json(hashes),
        measure=measure,
        report=report,
        measure_run=None if guard is None else lambda lm, watch: ask(lm, watch, guard),
    )
    return audit_roles(request, suite, progress)
