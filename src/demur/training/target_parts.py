"""How much of a loss comes from rows whose labels are one word, and how much from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from demur.models.scored import Scored
from demur.training.objective import Objective
from demur.training.plan import Plan

__all__ = ["TargetParts", "target_parts"]


def target_parts(objective: Objective, plan: Plan) -> TargetParts | None:
    """What parts a run's loss; None where the loss is no mean over the rows' tokens, or no row has targets."""
    if objective.main.name != "sft":
        return None
    targeted = [encoded.targets is not None for encoded in plan.tables["examples"]]
    return TargetParts(targeted) if any(targeted) else None


class TargetParts:
    """Parts of the loss since it was last logged. Rows of both kinds share batches, so the loss alone does not say it.

    Args:
        targeted: of each row, whether its labels are targets (see `demur.models.targets`).
    """

    def __init__(self, targeted: Sequence[bool]) -> None:
        self._targeted = targeted
        self._sums, self._passes = torch.zeros(2, dtype=torch.float64), 0

    def rows(self, items: Sequence[Mapping[str, int]]) -> torch.Tensor:
        """(batch,) whether each row's labels are targets."""
        return torch.tensor([self._targeted[item["examples"]] for item in items])

    def see(self, examples: Scored, targeted: torch.Tensor, weight: float) -> None:
        """Add a forward pass, with its weight in the optimizer step."""
        losses = (-examples.logps.detach() / examples.token_total * weight).double().cpu()
        targeted = targeted.cpu()
        self._sums += torch.stack([losses[targeted].sum(), losses[~targeted].sum()])
        self._passes += 1

    def take(self) -> dict[str, float]:
        """The two parts of the mean loss, `target_part` and `other_part`; counted anew from here."""
        target, other = (self._sums / max(1, self._passes)).tolist()
        self._sums, self._passes = torch.zeros(2, dtype=torch.float64), 0
        return {"target_part": target, "other_part": other}
