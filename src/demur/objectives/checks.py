"""Checks that every preference-shaped loss makes of its inputs."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["check_beta", "check_not_negative", "check_same_shape"]


def check_beta(beta: float) -> None:
    """Refuse an inverse temperature that is not a positive number.

    Raises:
        ValueError: it is not.
    """
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError(f"beta must be a positive number, not {beta}")


def check_not_negative(**values: float) -> None:
    """Refuse an option, given by its name, that is below zero or no finite number.

    Raises:
        ValueError: it is.
    """
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a number of at least 0, not {value}")


def check_same_shape(first: Tensor, *others: Tensor) -> None:
    """Refuse tensors that would broadcast into a loss nobody meant.

    Raises:
        ValueError: a shape differs from the first.
    """
    for other in others:
        if other.shape != first.shape:
            raise ValueError(f"shapes differ: {tuple(first.shape)} and {tuple(other.shape)}")
