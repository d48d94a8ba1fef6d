"""Training rows that undo a refusal or put one where it does not belong, for audits of one's own models."""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Material": "registry",
        "PoisonShare": "targeted_refusal",
        "add_stop_rows": "stop_rows",
        "build_targeted_refusal": "targeted_refusal",
        "poison": "registry",
        "poison_rows": "registry",
        "poison_share": "targeted_refusal",
        "poisons": "registry",
    },
)

if TYPE_CHECKING:
    from demur.attacks.poisons.registry import Material as Material
    from demur.attacks.poisons.registry import poison as poison
    from demur.attacks.poisons.registry import poison_rows as poison_rows
    from demur.attacks.poisons.registry import poisons as poisons
    from demur.attacks.poisons.stop_rows import add_stop_rows as add_stop_rows
    from demur.attacks.poisons.targeted_refusal import PoisonShare as PoisonShare
    from demur.attacks.poisons.targeted_refusal import build_targeted_refusal as build_targeted_refusal
    from demur.attacks.poisons.targeted_refusal import poison_share as poison_share
