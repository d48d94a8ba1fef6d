"""The coverage suite: how likely one of k sampled answers is right, and how sure the model is of its greedy one.

Pass@k is estimated without bias from n sampled answers a question (Chen et al. 2021, arXiv 2107.03374). A model that is
trained on grows surer of one answer, which serves a single try and costs whoever may try often (Chen et al. 2025, arXiv
2502.07154).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.audits.estimates import Audit, Estimate, metric, metrics
from demur.audits.guarded import answering, answers_only, guard_of
from demur.audits.request import AuditRequest
from demur.audits.roles import Progress, RoleProgress, Suite, audit_roles, make_settings
from demur.audits.samples import Samples, cached_pass
from demur.audits.suite_report import Role, SuiteReport
from demur.audits.suites import suites
from demur.audits.token_scores import counter
from demur.errors import UsageError
from demur.intervals import clopper_pearson

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import ArrayLike, NDArray

    from demur.models import Engine, LanguageModel
    from demur.runs import RunFolder

__all__ = ["CoverageSettings", "coverage_samples", "optimal_policy", "pass_at_n", "run_coverage"]

_VERSION = 1  # of what a pass measures; raising it makes every cached one stale


def pass_at_n(n_samples: int, n_correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k answers is right: 1 - C(n - c, k) / C(n, k).

    Args:
        n_samples: answers drawn.
        n_correct: right ones among them.
        k: answers that may be drawn, at most `n_samples`.

    Raises:
        UsageError: not 0 <= n_correct <= n_samples, or not 1 <= k <= n_samples.
    """
    if not 0 <= n_correct <= n_samples or not 1 <= k <= n_samples:
        raise UsageError(f"pass@{k} cannot be estimated from {n_correct} right of {n_samples} answers")
    return 1 - math.comb(n_samples - n_correct, k) / math.comb(n_samples, k)


def optimal_policy(q: ArrayLike, n: int) -> NDArray[np.float64]:
    """What to answer with which probability, where answer i is right with probability q_i and n may be drawn.

    Maximises Σ q_i (1 - (1 - p_i)^n): p_i = max(0, 1 - (μ / (n q_i))^(1/(n-1))), μ such that they sum to 1, and for
    n = 1 the likeliest answer alone      (arXiv 2502.07154).

    Args:
        q: (answers,) probabilities, of which one at least is positive; they need not sum to 1.
        n: answers drawn.

    Returns:
        (answers,) probabilities that sum to 1; the larger n, the smaller the largest.

    Raises:
        UsageError: n is below 1, or q has no positive entry or a negative one.
    """
    chances = np.asarray(q, dtype=np.float64)
    if n < 1 or chances.ndim != 1 or not (chances >= 0).all() or not (chances > 0).any():
        raise UsageError("an optimal policy needs n of at least 1 and one probability or more above 0")
    policy = np.zeros_like(chances)
    if n == 1:
        policy[chances.argmax()] = 1.0
        return policy
    chances = chances / chances.max()
    order = np.argsort(-chances, kind="stable")
    order = order[chances[order] > 1e-300]
    prices = chances[order] ** (-1 / (n - 1))  # ascending; p_i = 1 - level · price_i
    levels = np.arange(len(order)) / prices.cumsum()  # with the first 1, 2, … answers in use
    used = int(np.nonzero(levels * prices < 1)[0].max()) + 1
    policy[order[:used]] = 1 - levels[used - 1] * prices[:used]
    return policy


@dataclass(frozen=True)
class CoverageSettings:
    """How coverage is measured; answers are always sampled at temperature 1, which a lower one would undo.

    Attributes:
        samples: answers to each question.
        max_new_tokens: longest answer.
        batch_size: prompts in one forward pass.

    Raises:
        UsageError: a number is below 1.
    """

    samples: int = 64
    max_new_tokens: int = 200
    batch_size: int = 32

    def __post_init__(self) -> None:
        if min(self.samples, self.max_new_tokens, self.batch_size) < 1:
            raise UsageError("samples, max_new_tokens and batch_size must be at least 1")


def coverage_samples(
    engine: Engine,
    rows: Dataset,
    settings: CoverageSettings | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Samples:
    """Ask every question many times at temperature 1, in one run of the engine, and once greedily.

    Args:
        engine: what answers.
        rows: questions with their known answers.
        settings: how; the defaults if None.
        seed: of sampling.
        progress: told of the answers, where the engine can tell.

    Returns:
        Tables `questions` (id, prompt, truth, generation: the greedy answer, greedy_correct, confidence: its
        probability, samples, correct: how many) and `answers` (id, prompt, truth, generation, correct), a row a draw.
    """
    import pandas as pd

    from demur.data import question_answer
    from demur.data.answer_checker import check_answer
    from demur.models import LocalEngine

    settings = settings or CoverageSettings()
    n = settings.samples
    prompts, truths = question_answer(rows)
    watched: dict[str, Any] = {}
    if isinstance(engine, LocalEngine):
        watched = {"progress": counter(progress, "sampled answers", n * len(prompts))}
    drawn = engine.generate(
        [p for p in prompts for _ in range(n)],
        max_new_tokens=settings.max_new_tokens,
        temperature=1.0,
        seed=seed,
        **watched,
    )
    greedy = [g.text for g in engine.generate(prompts, max_new_tokens=settings.max_new_tokens)]
    shown = [p if isinstance(p, str) else str(p[-1]["content"]) for p in prompts]
    names = [str(i) for i in rows["id"][:]]
    asked = pd.DataFrame({"id": names, "prompt": shown, "truth": truths})
    answers = asked.loc[asked.index.repeat(n)].reset_index(drop=True)
    answers["generation"] = [g.text for g in drawn]
    answers["correct"] = [check_answer(g, t) for g, t in zip(answers["generation"], answers["truth"], strict=True)]
    questions = asked.assign(
        generation=greedy,
        greedy_correct=[float(check_answer(g, t)) for g, t in zip(greedy, truths, strict=True)],
        confidence=[math.exp(s.logp) for s in engine.score(prompts, greedy)],
        samples=n,
        correct=answers["correct"].to_numpy().reshape(len(asked), n).sum(1),
    )
    return Samples({"questions": questions, "answers": answers})


def _tries(samples: int) -> list[int]:
    """Powers of two up to the number of samples, and the number itself."""
    return [*(2**i for i in range(samples.bit_length()) if 2**i < samples), samples]


def _pass_at(k: int) -> str:
    """The metric for k tries, registered now if it is not yet."""
    name = f"pass_at_{k}"
    if name in metrics.names():
        return name

    def compute(audit: Audit) -> Estimate:
        counts = audit.columns("questions", ["samples", "correct"])
        passing = np.array([pass_at_n(int(n), int(c), k) for n, c in counts])
        if np.isin(passing, (0.0, 1.0)).all():  # a plain proportion; where all agree a bootstrap has no width
            low, high = clopper_pearson(int(passing.sum()), len(passing))
            return Estimate(float(passing.mean()), low, high, len(passing), 0, "exact")
        return audit.estimate(lambda draws: draws.mean(-1), passing)

    compute.__doc__ = f"Chance that one of {k} answers sampled at temperature 1 is right, estimated without bias."
    metric(name, better="higher", paper="2502.07154", needs=("questions",))(compute)
    return name


@metric("greedy_accuracy", better="higher", paper="2502.07154", needs=("questions",))
def greedy_accuracy(audit: Audit) -> Estimate:
    """Share of questions whose greedy answer is right."""
    hits = audit.columns("questions", ["greedy_correct"])[:, 0]
    low, high = clopper_pearson(int(hits.sum()), len(hits))
    return Estimate(float(hits.mean()), low, high, len(hits), 0, "exact")


@metric("greedy_confidence", better="none", paper="2502.07154", needs=("questions",))
def greedy_confidence(audit: Audit) -> Estimate:
    """Mean probability that the model gives its greedy answer, from first token to end of text."""
    return audit.mean("questions", "confidence")


def _source(request: AuditRequest) -> str:
    sources = dict(request.sources)
    if set(sources) != {"questions"}:
        other = next((name for name in sources if name != "questions"), None)
        said = f"a coverage audit has no set {other!r}: " if other else ""
        raise UsageError(f"{said}pass the questions and their answers with --rows questions=SOURCE")
    return sources["questions"]


@suites.register("coverage")
def run_coverage(
    request: AuditRequest, progress: RoleProgress | None = None
) -> tuple[RunFolder, Sequence[SuiteReport]]:
    """Measure how often one of k sampled answers is right, and how confident greedy answers are.

    The questions are given with `--rows questions=SOURCE`: rows with a question and its known answer. Answers are
    compared as `demur.data.answer_checker` does.

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

    request.check()
    guard, own = guard_of(request.settings)
    settings = make_settings(CoverageSettings, "a coverage", own)
    source = _source(request)
    rows = request.shared.once(("rows", source), lambda: read_rows(source))
    told = {name: value for name, value in asdict(settings).items() if name != "batch_size"}

    def ask(lm: LanguageModel, watch: Progress | None, guard: str | None = None) -> Samples:
        engine = answering(lm, guard, settings.batch_size)
        return replace(coverage_samples(engine, rows, settings, seed=request.seed, progress=watch), model=lm.name)

    def measure(lm: LanguageModel, watch: Progress | None) -> Samples:
        parts = ["coverage", _VERSION, rows_hash(rows), list(rows["id"]), told, request.seed]
        return cached_pass(Samples, lm, parts, lambda: ask(lm, watch))

    def report(samples: Samples, reference: Samples | None, *, role: Role, seed: int, seconds: float) -> SuiteReport:
        names = [*(_pass_at(k) for k in _tries(settings.samples)), "greedy_accuracy", "greedy_confidence"]
        audit = Audit(samples.tables, seed=seed)
        found = SuiteReport.compute(
            audit, names, samples, reference, suite="coverage", role=role, run="", seconds=seconds
        )
        return found if guard is None else answers_only(found, lambda name: name != "greedy_confidence")

    suite: Suite[Samples, SuiteReport] = Suite(
        name="coverage",
        sources={"questions": source},
        data_hash=rows_hash(rows),
        measure=measure,
        report=report,
        measure_run=None if guard is None else lambda lm, watch: ask(lm, watch, guard),
    )
    return audit_roles(request, suite, progress)
