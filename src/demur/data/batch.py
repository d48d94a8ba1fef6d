"""From token lists to padded batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from demur.errors import UsageError

__all__ = ["IGNORE", "Batch", "Encoded", "collate"]

IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """The tokens of one prompt and its response.

    Attributes:
        input_ids: tokens of the prompt followed by those of the response.
        prompt_length: how many of them are prompt; the rest are the labels.
        id: the row it came from.
        images: files of the prompt's pictures, in order; their places in `input_ids` are as many tokens long as the
            model gives a picture.
        pixels: reads them, as (images, channels, height, width); None without pictures.
        targets: the labels, where they are not the response's own tokens: as many as these, -100 for none.
    """

    input_ids: list[int]
    prompt_length: int
    id: str = ""
    images: tuple[str, ...] = ()
    pixels: Callable[[], Tensor] | None = field(default=None, compare=False, repr=False)
    targets: tuple[int, ...] | None = None

    @property
    def first_label(self) -> int:
        """Index of the first label that can be predicted: the sequence's very first token has nothing before it."""
        return max(self.prompt_length, 1)

    @property
    def label_ids(self) -> list[int]:
        """The response's tokens."""
        return self.input_ids[self.prompt_length :]

    @property
    def label_count(self) -> int:
        """Labels that can be predicted."""
        if self.targets is None:
            return len(self.input_ids) - self.first_label
        return sum(label != IGNORE for label in self.targets[self.first_label - self.prompt_length :])


@dataclass(frozen=True)
class Batch:
    """Padded sequences.

    Attributes:
        input_ids: (batch, length) token ids.
        attention_mask: (batch, length), 1 where there is a token; made from true lengths, so a pad token that doubles
            as the end-of-text token keeps its place inside a sequence.
        labels: (batch, length), the token to be predicted *at* each position, -100 in prompt and padding.
        ids: the row of each sequence.
        token_total: what a mean over label tokens divides by; None means the batch's own count. Gradient
            accumulation sets it, so that the mean is over the whole accumulated batch.
        pixels: (images, channels, height, width) of all pictures of the batch, row by row; None without any.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    ids: list[str]
    token_total: float | None = None
    pixels: Tensor | None = None

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
            pixels=None if self.pixels is None else self.pixels.to(device),
        )

    @property
    def label_tokens(self) -> int:
        """Number of positions that have a label and a token before it."""
        return int((self.labels[:, 1:] != IGNORE).sum())


def collate(encoded: Sequence[Encoded], pad_id: int, side: Literal["right", "left"] = "right") -> Batch:
    """Pad sequences to the longest of them.

    Args:
        encoded: at least one sequence.
        pad_id: token id written into the padding (never attended to).
        side: where the padding goes.

    Raises:
        UsageError: there is nothing to collate, or `side` is neither "right" nor "left".
    """
    if not encoded:
        raise UsageError("an empty batch cannot be collated")
    if side not in ("right", "left"):
        raise UsageError(f"padding side must be 'right' or 'left', not {side!r}")
    length = max(len(e.input_ids) for e in encoded)
    input_ids = torch.full((len(encoded), length), pad_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORE)
    for row, item in enumerate(encoded):
        n = len(item.input_ids)
        start = 0 if side == "right" else length - n
        tokens = torch.tensor(item.input_ids, dtype=torch.long)
        input_ids[row, start : start + n] = tokens
        attention_mask[row, start : start + n] = 1
        said = tokens[item.prompt_length :] if item.targets is None else torch.tensor(item.targets)
        labels[row, start + item.prompt_length : start + n] = said
    # A label needs a token before it to be predicted from.
    labels.masked_fill_(attention_mask.cumsum(1) <= 1, IGNORE)
    pixels = [e.pixels() for e in encoded if e.pixels is not None]
    seen = torch.cat(pixels) if pixels else None
    return Batch(input_ids, attention_mask, labels, [e.id for e in encoded], pixels=seen)
