"""The small character model of Shakespeare that studies of preference losses start from."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demur.data.batch import Encoded
from demur.studies.registry import NotMeasured, Progress
from demur.studies.small_llama import score_rows, small_llama

__all__ = ["PROMPT", "Shakespeare", "read_text"]

PROMPT, WINDOW, BATCH = 24, 96, 32


def read_text() -> str:
    """The plays, as one text.

    Raises:
        NotMeasured: they are not at hand.
    """
    import gzip

    file = Path(os.environ.get("DEMUR_SHARED_DATA") or "") / "tinyshakespeare" / "input.txt.gz"
    if not file.is_file():
        raise NotMeasured("the text is not at hand: set DEMUR_SHARED_DATA to the folder that holds `tinyshakespeare`")
    return gzip.decompress(file.read_bytes()).decode("utf-8")


class Shakespeare:
    """A character model and its text.

    Args:
        seed: of weights and batches.
        width: of the two layers.
        steps: batches of 32 windows of 96 characters that it learns from.
        make: the model from its number of symbols, its width and the seed.
        progress: told of every tenth step.
    """

    def __init__(
        self,
        seed: int,
        *,
        width: int,
        steps: int,
        make: Callable[[int, int, int], Any] = small_llama,
        progress: Progress = lambda done, total, note="": None,
    ) -> None:
        text = read_text()
        self.characters = sorted(set(text))
        place = {c: i for i, c in enumerate(self.characters)}
        self.text = np.array([place[c] for c in text])
        self.model = make(len(self.characters), width, seed)
        generator = np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
        for step in range(steps):
            starts = generator.integers(len(self.text) * 9 // 10 - WINDOW, size=BATCH)
            rows = [Encoded(self.text[s : s + WINDOW].tolist(), 0) for s in starts]
            loss = score_rows(self.model, rows).nll
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 10 == 0:
                progress(step, steps, "learning to write")
        self.model.eval()

    def excerpt(self, generator: np.random.Generator, length: int) -> list[int]:
        """Characters from a random place in the last tenth of the text, which the model did not learn from."""
        start = generator.integers(len(self.text) * 9 // 10, len(self.text) - length)
        return [int(c) for c in self.text[start : start + length]]

    def copy(self) -> Any:
        """The model as it was trained, to be trained further."""
        return copy.deepcopy(self.model)
