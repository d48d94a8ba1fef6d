"""Direct coverage optimisation (arXiv 2502.07154): cross entropy overtrains for whoever may draw more than one answer.

The next of 65 characters of Shakespeare, from the five before it: a real distribution with far more right answers than
one, small enough that pass@N is computed and not estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from demur.objectives import dco_loss
from demur.studies.registry import Progress, study
from demur.studies.results import Claim
from demur.studies.shakespeare import read_text

if TYPE_CHECKING:
    import pandas as pd

CONTEXT, POSITIONS = 5, 4000
EMBEDDING, WIDTH = 24, 256
EARLY, EPOCHS, BATCH, RATE = 3, 60, 128, 1e-3
BUDGETS = (1, 4, 16, 64)
MOST = BUDGETS[-1]


class _NextCharacter(nn.Module):
    """Embeddings of the characters before, and two hidden layers."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, EMBEDDING)
        self.layers = nn.Sequential(
            nn.Linear(CONTEXT * EMBEDDING, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, characters),
        )

    def forward(self, before: Tensor) -> Tensor:
        """(batch, context) characters to (batch, characters) log-probabilities of the next."""
        out: Tensor = self.layers(self.embed(before).flatten(1)).log_softmax(1)
        return out


def attached_loss(logps: Tensor, n: int) -> Tensor:
    """A slip: cross entropy times the factor, with gradients flowing into the factor too."""
    p = logps.exp()
    factor = n * (1 - p) ** (n - 1) * p / (1 - (1 - p) ** n).clamp(min=1e-12)
    return (factor * -logps).mean()


def reversed_loss(logps: Tensor, n: int) -> Tensor:
    """A slip that must show: the sign of the logarithm is lost."""
    return -dco_loss(logps, n)


ARMS: dict[str, tuple[Callable[[Tensor, int], Tensor], int]] = {
    **{f"N={n}": (dco_loss, n) for n in BUDGETS},
    "attached": (attached_loss, MOST),
    "reversed": (reversed_loss, MOST),
}


def positions(seed: int) -> tuple[Tensor, Tensor, int]:
    """Windows of characters to learn from, windows from the last tenth of the text to test on, and how many signs."""
    text = read_text()
    signs = {c: i for i, c in enumerate(sorted(set(text)))}
    codes = np.array([signs[c] for c in text])
    border, generator = len(codes) * 9 // 10, np.random.default_rng(seed)
    sides = []
    for low, high in ((0, border), (border, len(codes))):
        starts = low + generator.choice(high - low - CONTEXT, size=POSITIONS, replace=False)
        sides.append(torch.from_numpy(codes[starts[:, None] + np.arange(CONTEXT + 1)]))
    return sides[0], sides[1], len(signs)


@torch.no_grad()
def examine(model: nn.Module, windows: Tensor) -> dict[str, float]:
    """Exact pass@N on windows, and the mean probability of the likeliest character."""
    logps = model(windows[:, :-1])
    right = logps.gather(1, windows[:, -1:]).squeeze(1)
    measured = {f"pass@{n}": float(torch.exp(-dco_loss(right, n, "none")).mean()) for n in BUDGETS}
    return {**measured, "confidence": float(logps.exp().amax(1).mean())}


@study("dco", paper="2502.07154", minutes=1, seeds=(1, 2, 3))
def next_character(seed: int, progress: Progress) -> dict[str, float]:
    """Shakespeare's next character, trained for one draw and for several, and with two slips."""
    train, test, signs = positions(seed)
    measured = {}
    for done, (arm, (loss, n)) in enumerate(ARMS.items()):
        torch.manual_seed(seed)
        model = _NextCharacter(signs)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        shuffled = torch.Generator().manual_seed(seed)
        for epoch in range(1, EPOCHS + 1):
            progress(done * EPOCHS + epoch, len(ARMS) * EPOCHS, arm)
            for rows in torch.randperm(len(train), generator=shuffled).split(BATCH):
                windows = train[rows]
                value = loss(model(windows[:, :-1]).gather(1, windows[:, -1:]).squeeze(1), n)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
            if epoch in (EARLY, EPOCHS):
                when = "early" if epoch == EARLY else "late"
                measured |= {f"{arm} {when} {name}": value for name, value in examine(model, test).items()}
    return measured


@next_character.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of cross entropy and of its own loss."""

    def of(arm: str, name: str, when: str = "late") -> pd.Series:
        return m[f"{arm} {when} {name}"]

    most = f"pass@{MOST}"
    yield Claim(
        text=f"Cross entropy trained on loses coverage: {most} falls from epoch {EARLY} to {EPOCHS} (by how much)",
        measured=of("N=1", most, "early") - of("N=1", most),
        threshold=">= 0.2",
        baselines={f"epoch {EARLY}": of("N=1", most, "early"), f"epoch {EPOCHS}": of("N=1", most)},
    )
    yield Claim(
        text="while its pass@1 rises (by how much)",
        measured=of("N=1", "pass@1") - of("N=1", "pass@1", "early"),
        threshold=">= 0.1",
        baselines={f"epoch {EARLY}": of("N=1", "pass@1", "early"), f"epoch {EPOCHS}": of("N=1", "pass@1")},
    )
    yield Claim(
        text=f"Trained for {MOST} draws, {most} is far above cross entropy's (difference)",
        measured=of(f"N={MOST}", most) - of("N=1", most),
        threshold=">= 0.25",
        baselines={arm: of(arm, most) for arm in ARMS},
    )
    yield Claim(
        text="Coverage is paid for at one draw: cross entropy's pass@1 is above it (difference)",
        measured=of("N=1", "pass@1") - of(f"N={MOST}", "pass@1"),
        threshold=">= 0.1",
        baselines={arm: of(arm, "pass@1") for arm in ARMS},
    )
    confidence = [of(f"N={n}", "confidence") for n in BUDGETS]
    falls = [before - after for before, after in pairwise(confidence)]
    yield Claim(
        text="The more draws it is trained for, the less confident it ends (smallest fall of mean top probability)",
        measured=falls[0].combine(falls[1], min).combine(falls[2], min),
        threshold="> 0",
        baselines={f"N = {n}": series for n, series in zip(BUDGETS, confidence, strict=True)},
    )
    yield Claim(
        text=f"With the sign turned {most} is lost (by how much); gradients let into the factor do little harm here",
        measured=of(f"N={MOST}", most) - of("reversed", most),
        threshold=">= 0.25",
        kind="ours",
        baselines={arm: of(arm, most) for arm in ("attached", "reversed")},
    )
