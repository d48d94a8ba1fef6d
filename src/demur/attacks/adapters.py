"""Taking a low-rank adapter off again: what was forgotten in an adapter alone is not gone from the weights below."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.models import LanguageModel

__all__ = ["adapter_detached", "has_adapter"]


def has_adapter(lm: LanguageModel) -> bool:
    """Whether the model is weights with an adapter of peft's on top."""
    return hasattr(lm.model, "disable_adapter")


@contextlib.contextmanager
def adapter_detached(lm: LanguageModel) -> Iterator[None]:
    """The model without its adapter, inside the block.

    Raises:
        UsageError: it has none.
    """
    if not has_adapter(lm):
        raise UsageError(f"{lm.name} has no adapter to take off")
    model: Any = lm.model
    with model.disable_adapter():
        yield
