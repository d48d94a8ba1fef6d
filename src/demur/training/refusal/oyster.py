"""Constructive safety alignment's training half (Duan et al. 2025, arXiv 2509.01909): imitation, then ORPO."""

from __future__ import annotations

from demur.data.builders.preferences import chosen_rows, preference_rows
from demur.training.refusal.registry import Lesson, Stage, refusal_method

__all__ = ["oyster"]


@refusal_method("oyster", paper="2509.01909", columns=("prompt",))
def oyster(lesson: Lesson, *, weight: float = 0.1, sft_epochs: int = 0) -> list[Stage]:
    """Imitation of optimised responses, then the odds ratio of optimised over initial ones.

    Args:
        lesson: pairs, as for `preference_rows`: the optimised response is chosen, the initial one rejected;
            `trajectories_to_preferences` makes them.
        weight: of ORPO's odds-ratio term; the paper does not give its own, TRL's default is 0.1.
        sft_epochs: passes of the first stage; 0 for as many as of the second.
    """
    pairs = preference_rows(lesson.rows)
    first = {"epochs": sft_epochs} if sft_epochs else {}
    return [Stage(chosen_rows(pairs), settings=first), Stage(pairs, "orpo", {"weight": weight})]
