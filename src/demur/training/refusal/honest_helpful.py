"""Honest first, then helpful (Gao et al. 2024, arXiv 2406.00380): two stages of DPO with fine-tuning on the chosen."""

from __future__ import annotations

from typing import Any

from demur.data.builders.honest import build_curriculum
from demur.errors import UsageError
from demur.training.refusal.registry import Lesson, Stage, refusal_method

__all__ = ["honest_helpful"]


@refusal_method("honest-helpful", paper="2406.00380", columns=("prompt", "response", "honest", "score"))
def honest_helpful(
    lesson: Lesson,
    *,
    threshold: float = 6.0,
    beta: float = 0.1,
    sft_weight: float = 1.0,
    stages: str = "two",
    pairs: int = 1000,
) -> list[Stage]:
    """Prefer honest answers to dishonest ones, then among honest answers the helpful ones.

    The second stage starts from the first one's weights, and they are its reference.

    Args:
        lesson: rows with `prompt`, `response`, `honest` (true or false) and `score` (1 to 10).
        threshold: score that parts helpful from less helpful answers.
        beta: DPO's inverse temperature.
        sft_weight: weight of the chosen answer's negative log-likelihood per token.
        stages: two; or as a control direct (the pairs of both stages in one run) or reversed.
        pairs: most pairs in a stage.
    """
    from datasets import concatenate_datasets

    if stages not in ("two", "direct", "reversed"):
        raise UsageError(f"option stages must be two, direct or reversed, not {stages!r}")
    if pairs < 1:
        raise UsageError(f"option pairs must be at least 1, not {pairs}")
    honest, helpful = build_curriculum(
        lesson.rows, float(threshold), most=pairs, seed=lesson.seed, source=lesson.source
    )
    options: dict[str, Any] = {"beta": beta, "sft_weight": sft_weight}
    notes = (f"{len(honest)} pairs of an honest and a dishonest answer", f"{len(helpful)} of two honest answers")
    helpful = helpful.remove_columns(["chosen_score", "rejected_score"])
    if stages == "direct":
        return [Stage(concatenate_datasets([honest, helpful]), "dpo-sft", options, notes=notes)]
    first, second = (honest, helpful) if stages == "two" else (helpful, honest)
    return [Stage(first, "dpo-sft", options, notes=notes), Stage(second, "dpo-sft", options)]
