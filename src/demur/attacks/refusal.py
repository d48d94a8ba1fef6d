"""Taking a direction out of the residual stream: where refusing is one direction, without it the answer returns.

The direction of a layer is the difference between mean states at the end of two groups of prompts (Arditi et al. 2024,
arXiv 2406.11717): those whose answers are withheld, and those that are answered; or the same prompts under the model
after and before. Removing it moves the component along it to the answered group's mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from demur.attacks.knowledge import answer_probability
from demur.models.activations import edit
from demur.models.scored import unwrapped
from demur.probes.states import prompt_states

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data import Encoded
    from demur.models import LanguageModel, Prompt

__all__ = ["direction_attack", "direction_removed", "directions"]


def directions(withheld: Tensor, answered: Tensor) -> tuple[Tensor, Tensor]:
    """Unit directions between two groups of states, layer by layer, and where the second group lies along them.

    Args:
        withheld: (n, layers, hidden) states at the end of prompts whose answers are withheld.
        answered: (m, layers, hidden) the same for prompts that are answered.

    Returns:
        (layers, hidden) directions from answered to withheld, and (layers,) the answered group's mean along each; the
        zero direction where the groups do not differ.
    """
    gap = withheld.mean(0) - answered.mean(0)
    unit = gap / gap.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return unit, (answered.mean(0) * unit).sum(-1)


@contextlib.contextmanager
def direction_removed(lm: LanguageModel, unit: Tensor, level: Tensor, layers: Sequence[int]) -> Iterator[None]:
    """The model with the component along a direction held at a level in some layers, inside the block.

    Args:
        lm: the model.
        unit: (layers, hidden) as `directions` gives them.
        level: (layers,) likewise; zeros project the direction out.
        layers: in which layers.
    """

    def hold(hidden: Tensor, layer: int) -> Tensor:
        along = unit[layer].to(hidden)
        return hidden - ((hidden @ along) - level[layer].to(hidden)).unsqueeze(-1) * along

    with edit(unwrapped(lm.model), layers, hold):
        yield


def direction_attack(
    lm: LanguageModel,
    withheld: Sequence[Prompt],
    answered: Sequence[Prompt],
    encoded: Sequence[Encoded],
    *,
    before: LanguageModel | None = None,
    choose_on: Sequence[Encoded] | None = None,
    knowledge: Callable[[LanguageModel, Sequence[Encoded]], NDArray[np.float64]] = answer_probability,
) -> NDArray[np.float64]:
    """What the model knows when the direction that sets withheld from answered prompts is taken out.

    Every single layer and all layers together are tried; the choice is made on facts that are not measured.

    Args:
        lm: the model; it is not changed.
        withheld: prompts whose answers it withholds.
        answered: prompts that it answers.
        encoded: the facts to measure.
        before: take the direction between this model and `lm` on the withheld prompts instead.
        choose_on: facts to choose the layers on; those of `encoded` by default.
        knowledge: what is measured, one number a fact.

    Returns:
        (n,) what is known of each fact.
    """
    ours = prompt_states(lm, withheld)
    theirs = prompt_states(lm, answered) if before is None else prompt_states(before, withheld)
    unit, level = (part.to(lm.device) for part in directions(ours, theirs))
    count = len(unit)
    tried: list[list[int]] = [list(range(count)), *([layer] for layer in range(count))]
    scores = []
    for layers in tried:
        with direction_removed(lm, unit, level, layers):
            scores.append(knowledge(lm, encoded if choose_on is None else choose_on).mean())
    with direction_removed(lm, unit, level, tried[int(np.argmax(scores))]):
        return knowledge(lm, encoded)
