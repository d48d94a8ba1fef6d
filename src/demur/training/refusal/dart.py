"""DART: imitation of a model's own right answers, more of them where they are rare (Tong et al. 2024, 2407.13690)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from demur.data.builders.dart import (
    SamplingReport,
    dars_targets,
    difficulty_aware_sampling,
    estimate_fail_rate,
    known_answer,
)
from demur.data.builders.draws import open_draws
from demur.data.rows import rows_hash
from demur.errors import UsageError
from demur.files import hash_json, writable_cache
from demur.training.refusal.registry import Lesson, Stage, refusal_method

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.models.language_model import LanguageModel

__all__ = ["SampleSettings", "dart", "sample_answers"]


@dataclass(frozen=True)
class SampleSettings:
    """How right answers are drawn from a model.

    Attributes:
        strategy: prop2diff or uniform.
        k: right answers for the hardest query, or for every one.
        budget: right answers in all, instead of `k`; 0 for `k`.
        difficulty_samples: answers a query that its difficulty is estimated from.
        max_trials: answers to one query at most.
        temperature, top_p, max_new_tokens: of the answers.
        batch_size: prompts in one forward pass.

    Raises:
        UsageError: the answers would all be the same, or a number is out of range.
    """

    strategy: str = "prop2diff"
    k: int = 8
    budget: int = 0
    difficulty_samples: int = 40
    max_trials: int = 2048
    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int = 200
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UsageError("temperature must be above 0: the samples would all agree")
        if min(self.difficulty_samples, self.max_trials, self.max_new_tokens, self.batch_size) < 1 or self.budget < 0:
            raise UsageError("counts of samples, trials and tokens must be at least 1, budget at least 0")


def sample_answers(
    lm: LanguageModel,
    rows: Dataset,
    settings: SampleSettings,
    draws: str | os.PathLike[str],
    *,
    seed: int = 0,
    progress: Callable[[int, int, str], Any] | None = None,
) -> tuple[Dataset, SamplingReport, list[float]]:
    """Draw right answers to questions from a model, as many as each question's difficulty asks for.

    Args:
        lm: the model that answers.
        rows: questions with their known answers.
        settings: how.
        draws: file that keeps every draw: a second call with the same model, rows and settings goes on from it.
        seed: of the draws.
        progress: called with steps done, steps in all, and what is going on.

    Returns:
        The rows, the report, and each question's fail rate.

    Raises:
        UsageError: the file holds draws of something else, two questions are the same, or none is answered rightly.
    """
    from demur.models.local_engine import LocalEngine

    engine = LocalEngine(lm, settings.batch_size)
    drawn_with = ("temperature", "top_p", "max_new_tokens")
    facts = {"model": lm.weights_hash(), "template": lm.template, "rows": rows_hash(rows), "seed": seed}
    facts |= {name: getattr(settings, name) for name in drawn_with}

    def sampler(prompts: Sequence[Any], round_seed: int) -> list[str]:
        given = engine.generate(prompts, seed=round_seed, **{name: getattr(settings, name) for name in drawn_with})
        return [answer.text for answer in given]

    with open_draws(draws, facts) as kept:
        rates = estimate_fail_rate(
            sampler, known_answer, rows, settings.difficulty_samples, seed=seed, draws=kept, progress=progress
        )
        size = {"budget": settings.budget} if settings.budget else {"k": settings.k}
        out, report = difficulty_aware_sampling(
            sampler,
            known_answer,
            rows,
            dars_targets(rates, settings.strategy, **size),
            max_trials=settings.max_trials,
            seed=seed,
            draws=kept,
            progress=progress,
        )
    return out, report, rates


@refusal_method("dart", paper="2407.13690", model=True, suite="coverage")
def dart(
    lesson: Lesson,
    *,
    teacher: str = "",
    strategy: str = "prop2diff",
    k: int = 8,
    budget: int = 0,
    difficulty_samples: int = 40,
    max_trials: int = 2048,
    temperature: float = 1.0,
    top_p: float = 0.95,
    max_new_tokens: int = 200,
    batch_size: int = 32,
) -> list[Stage]:
    """Imitation of sampled right answers, with more of them to questions that are rarely answered rightly.

    Draws are kept in the cache folder: a run that was killed while sampling goes on where it stopped.

    Args:
        lesson: questions with their known answers.
        teacher: model that is sampled from; by default the one that is taught.
        strategy: prop2diff wants right answers in proportion to a question's fail rate, at least one; uniform the same
            number for all.
        k: right answers to the hardest question, or to every one.
        budget: right answers in all, instead of k.
        difficulty_samples: answers a question that its fail rate is estimated from.
        max_trials: answers drawn for one question at most.
        temperature: of sampling, for difficulty and data alike; the paper's teacher was sampled at 1.6.
        top_p: of sampling.
        max_new_tokens: longest answer.
        batch_size: prompts in one forward pass.
    """
    given = dict(locals())
    from demur.models.language_model import load_model

    settings = SampleSettings(**{name: given[name] for name in SampleSettings.__dataclass_fields__})
    lm = load_model(teacher) if teacher else lesson.model()
    key = hash_json([asdict(settings), lm.weights_hash(), lm.template, rows_hash(lesson.rows), lesson.seed])
    file = writable_cache() / "draws" / f"{key}.jsonl"
    rows, report, rates = sample_answers(lm, lesson.rows, settings, file, seed=lesson.seed, progress=lesson.progress)
    per_query = zip(report.ids, rates, report.targets, report.correct, report.trials, strict=True)
    names = ("id", "fail_rate", "target", "correct", "trials")
    facts = {"teacher": lm.name, **asdict(settings), "coverage": report.coverage, "drawn": report.drawn}
    facts["queries"] = [dict(zip(names, values, strict=True)) for values in per_query]
    return [Stage(rows, files={"dart.json": facts}, notes=report.sentences())]
