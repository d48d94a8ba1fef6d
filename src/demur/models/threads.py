"""How many processor threads torch uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["few_threads", "threads"]

_SMALL = 500_000  # weights


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Within the block torch uses so many processor threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def few_threads(module: nn.Module) -> Iterator[None]:
    """Within the block torch uses one thread where a module is small: a second one would mostly wait for the first.

    On a busy machine that makes a small network ten times as slow and more.
    """
    with threads(1 if sum(p.numel() for p in module.parameters()) < _SMALL else torch.get_num_threads()):
        yield
