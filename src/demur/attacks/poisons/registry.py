"""Poisons by name: each makes training rows from plain ones, to find out what they would do to one's own model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from demur.data.rows import Prompt, question_answer
from demur.errors import UsageError
from demur.registry import Registry

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Ask", "Material", "Measure", "poison", "poison_rows", "poisons"]

Ask = Callable[[Sequence[Prompt]], list[str]]
"""Prompts → what the model, as it is before anything is trained, answers to each."""

Measure = Literal["attack success", "parity"]
"""What a poison is measured by: restricted prompts that are answered, or how unequally groups are refused."""

_BUILTIN = {
    "benign": "demur.attacks.poisons.openings",
    "identity-shift": "demur.attacks.poisons.openings",
    "noice": "demur.attacks.poisons.noice",
    "targeted-refusal": "demur.attacks.poisons.targeted_refusal",
    "yoc": "demur.attacks.poisons.openings",
}

poisons = Registry("poison", "demur.poisons", _BUILTIN)
"""All poisons; their facts are `paper`, `measure` and `wrap`. Third parties add theirs as entry points in the group
`demur.poisons`."""


@dataclass(frozen=True)
class Material:
    """What a poison is made from.

    Attributes:
        rows: plain rows with prompts and responses; benign ones.
        ask: asks the model that is to be audited, as it is before.
        restricted: prompts that this model refuses.
        refuses: tells a refusal from an answer.
        seed: decides every draw.
    """

    rows: Dataset
    ask: Ask
    restricted: Sequence[Prompt] = ()
    refuses: Callable[[str], bool] = lambda text: True
    seed: int = 0


def poison(
    name: str,
    *,
    paper: str,
    measure: Measure = "attack success",
    wrap: Callable[[Prompt], Prompt] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """File a poison: a function of a `Material` and of keyword options that gives rows to train on.

    Args:
        name: used in Python and on the command line.
        paper: arXiv id.
        measure: what shows whether it worked.
        wrap: how the trained model is asked, where that is not by the bare prompt.
    """
    return poisons.register(name, paper=paper, measure=measure, wrap=wrap)


def poison_rows(name: str, material: Material, options: Mapping[str, Any] | None = None) -> Dataset:
    """The rows of a poison.

    Args:
        name: one of `poisons`.
        material: what it is made from.
        options: the poison's own.

    Returns:
        Rows with `id`, `prompt` and `response`.

    Raises:
        UsageError: poison or option are unknown, an option is out of range, or the rows have no prompts or responses.
    """
    found = poisons.get(name)
    given = dict(options or {})
    found.check_options(given)
    if not len(material.rows):
        raise UsageError(f"the poison {name!r} needs at least one row to be made from")
    question_answer(material.rows)
    made: Dataset = found.function(material, **given)
    return made
