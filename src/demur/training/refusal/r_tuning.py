"""R-Tuning: ask the model what it knows, then teach it to say so (Zhang et al. 2024, arXiv 2311.09677)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from demur.data.builders.r_tuning import (
    KnowledgeSplit,
    holds_answer,
    r_tuning_rows,
    split_by_entropy,
    split_by_knowledge,
)
from demur.data.rows import question_answer
from demur.errors import UsageError
from demur.training.refusal.registry import Lesson, Stage, refusal_method

if TYPE_CHECKING:
    from demur.models.local_engine import LocalEngine

__all__ = ["r_tuning"]

_MATCHES: dict[str, Callable[[str, str], bool]] = {
    "substring": holds_answer,
    "exact": lambda said, answer: holds_answer(said, answer) and holds_answer(answer, said),
}


@refusal_method("r-tuning", paper="2311.09677", model=True, suite="abstention")
def r_tuning(
    lesson: Lesson,
    *,
    variant: str = "sure",
    num_samples: int = 5,
    temperature: float = 0.7,
    match: str = "substring",
    mask_unknown_answers: bool = False,
    max_new_tokens: int = 64,
    stop: str = "",
    batch_size: int = 32,
) -> list[Stage]:
    """Answers that end with how sure the model is of them, or admissions in the place of answers it does not know.

    The model answers every question before it is tuned, through the template that it is tuned with.

    Args:
        lesson: questions with their answers.
        variant: sure adds "I am sure" or "I am unsure" to every answer, by whether the model's own is right; entropy
            does the same by how much its sampled answers agree; replace puts an admission of ignorance in the place of
            the answers that it gets wrong.
        num_samples: sampled answers a question, for entropy.
        temperature: of sampling, for entropy.
        match: substring takes an answer for right that holds the true one, exact only one that says nothing else.
        mask_unknown_answers: with sure and entropy, do not teach the answers that the model does not know.
        max_new_tokens: longest answer that the model is let give.
        stop: text that ends its answers, the paper's is a full stop; by default they end where the model ends them.
        batch_size: questions asked at a time.
    """
    from demur.models.local_engine import LocalEngine

    if variant not in ("sure", "replace", "entropy"):
        raise UsageError(f"option variant must be sure, replace or entropy, not {variant!r}")
    if match not in _MATCHES:
        raise UsageError(f"option match must be substring or exact, not {match!r}")
    if num_samples < 2 or temperature <= 0:
        raise UsageError("option num_samples must be at least 2 and temperature above 0: the samples would all agree")
    engine = LocalEngine(lesson.model(), batch_size)
    stops = [stop] if stop else []
    if variant == "entropy":
        split = split_by_entropy(_ask(engine, lesson, stops, max_new_tokens, num_samples, temperature))
    else:
        said = [answers[0] for answers in _ask(engine, lesson, stops, max_new_tokens, 1, 0.0)]
        split = split_by_knowledge(lesson.rows, said, _MATCHES[match])
    rows = r_tuning_rows(
        lesson.rows,
        split,
        "replace" if variant == "replace" else "certainty",
        mask_unknown_answers=mask_unknown_answers,
        seed=lesson.seed,
    )
    unknown = [str(i) for i, known in zip(lesson.rows["id"][:], split.known, strict=True) if not known]
    facts = {
        "variant": variant,
        "rows": len(rows),
        "known": len(rows) - len(unknown),
        "ties": split.ties,
        "unknown": unknown,
    }
    return [Stage(rows, files={"r_tuning.json": facts}, notes=_notes(split, len(unknown)))]


def _ask(
    engine: LocalEngine, lesson: Lesson, stops: Sequence[str], max_new_tokens: int, times: int, temperature: float
) -> list[list[str]]:
    """So many answers of the model to every question."""
    prompts, _ = question_answer(lesson.rows)
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        lesson.progress(done, times * len(prompts), "asking the model what it knows")

    answers = engine.generate(
        [prompt for prompt in prompts for _ in range(times)],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        stop=stops,
        seed=lesson.seed,
        progress=told,
    )
    return [[a.text for a in answers[times * i : times * (i + 1)]] for i in range(len(prompts))]


def _notes(split: KnowledgeSplit, unknown: int) -> list[str]:
    total = len(split.known)
    notes = [f"the model knows {total - unknown} of {total} answers"]
    if unknown in (0, total):
        notes.append(f"it knows {'none' if unknown else 'all'} of them: there is nothing to tell apart")
    if split.ties:
        notes.append(f"{split.ties} questions have the entropy at which the halves part: only their order parts them")
    return notes
