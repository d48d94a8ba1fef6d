"""Training some of the weights and leaving the others as they are."""

from __future__ import annotations

import re

from torch import nn

from demur.errors import UsageError

__all__ = ["train_only"]


def train_only(model: nn.Module, pattern: str) -> list[str]:
    """Freeze every parameter whose name the pattern is not found in; those frozen already stay so.

    Args:
        model: as it will be trained, adapters included.
        pattern: a regular expression, for instance "layers.[5-7].mlp.down_proj".

    Returns:
        Names of the parameters that are left to train.

    Raises:
        UsageError: the pattern is no regular expression, or nothing that could be trained matches.
    """
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--trainable {pattern!r} is no regular expression: {error}") from error
    candidates = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    kept = [name for name in candidates if wanted.search(name)]
    if not kept:
        names = list(candidates)
        shown = ", ".join(names[:: max(1, len(names) // 4)][:5])
        raise UsageError(f"--trainable {pattern!r} matches none of the {len(names)} parameters, such as {shown}")
    for name in candidates.keys() - set(kept):
        candidates[name].requires_grad_(False)
    return kept
