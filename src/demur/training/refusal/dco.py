"""DCO as a method: rows as they come, trained for whoever may draw several answers (Chen et al. 2025, 2502.07154)."""

from __future__ import annotations

from demur.errors import UsageError
from demur.models.language_model import LanguageModel
from demur.training.refusal.registry import Lesson, Stage, refusal_method

__all__ = ["dco"]


@refusal_method("dco", paper="2502.07154", suite="coverage")
def dco(
    lesson: Lesson, *, n: float = 16.0, variant: str = "exact", min_factor: float = 0.0, separator: str = ""
) -> list[Stage]:
    """Imitation that stops where n draws no longer need it: coverage in the place of confidence.

    Args:
        lesson: rows with `prompt` and `response`.
        n: answers drawn at test time, or with variant=step the candidates a step; 1 is plain imitation.
        variant: exact takes the probability of the whole response, step that of each of its steps.
        min_factor: with exact, rows whose gradient would be scaled by less make way for others; the paper's is not
            known, 0.001 is a beginning.
        separator: with step, the text that ends a step, one token of the model's such as a line break; by default
            every token is a step.
    """
    if variant == "exact":
        if separator:
            raise UsageError("option separator belongs to variant=step")
        return [Stage(lesson.rows, "dco", {"n": n, "min_factor": min_factor})]
    if variant == "approx":
        raise UsageError(
            "variant approx weighs each row by an estimate of its answer's probability, which no training run carries: "
            "use exact, or call demur.objectives.dco_approx_loss in a loop of your own"
        )
    if variant != "step":
        raise UsageError(f"option variant must be exact or step, not {variant!r}")
    if min_factor:
        raise UsageError("option min_factor belongs to variant=exact")
    token = _single_token(lesson.model(), separator) if separator else -1
    return [Stage(lesson.rows, "dco-step", {"n": n, "separator": token})]


def _single_token(lm: LanguageModel, text: str) -> int:
    """The id of the one token that a text is; a word boundary before it does not count."""
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids or str(lm.tokenizer.decode(ids[-1:])) != text:
        raise UsageError(f"option separator must be one token of {lm.name}: {text!r} is {len(ids)}")
    return int(ids[-1])
