"""The logic of preference losses (Richardson et al. 2024, arXiv 2412.17696): what a loss says foretells what it does.

Nine losses over one winner and one loser, compiled from their formulas, train the same character model of Shakespeare
on the same pairs: a true continuation, and a snippet from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from demur.data.batch import Encoded
from demur.objectives.preference_logic import ATOMS, KNOWN_LOSSES, PreferenceStructure, compile_loss
from demur.studies.registry import Progress, study
from demur.studies.results import Claim
from demur.studies.shakespeare import PROMPT, Shakespeare
from demur.studies.small_llama import descend, score_rows

if TYPE_CHECKING:
    import pandas as pd

LENGTH, TRAIN, TEST = 12, 200, 100
LEARN = {"width": 64, "steps": 300}
STEPS, BATCH, RATE = 80, 24, 3e-4
LOSSES = {
    name: structure
    for name, formulas in KNOWN_LOSSES.items()
    if (structure := PreferenceStructure.of(*formulas)).atoms == ATOMS
}
COLLAPSING = tuple(name for name, structure in LOSSES.items() if structure.labels[-1] == "T")
# The wrong implementation that is easiest to make: the cases that count for both sides are left out.
CPO_WITHOUT_ADDITIVE = PreferenceStructure.of(*KNOWN_LOSSES["cpo"][:2])


def _order_broken(values: dict[str, torch.Tensor]) -> float:
    """By how much the worst example's losses break the order in which the structures entail each other."""
    worst = 0.0
    for one, lower in LOSSES.items():
        for other, higher in LOSSES.items():
            if lower.entails(higher):
                worst = max(worst, float((values[other] - values[one]).max()))
    return worst


@study("preference-logic", paper="2412.17696", minutes=2, seeds=(1, 2, 3))
def preference_logic(seed: int, progress: Progress) -> dict[str, float]:
    """Nine compiled losses on one small model; how the winner's log-probability per character moves on fresh pairs."""
    whole = len(LOSSES) + 3
    lab = Shakespeare(seed, **LEARN, progress=lambda done, total, note="": progress(2 * done / total, whole, note))
    generator = np.random.default_rng([seed, 1])
    wins, losses = [], []
    for _ in range(TRAIN + TEST):
        passage = lab.excerpt(generator, PROMPT + LENGTH)
        wins.append(Encoded(passage, PROMPT))
        losses.append(Encoded(passage[:PROMPT] + lab.excerpt(generator, LENGTH), PROMPT))
    fresh = wins[TRAIN:], losses[TRAIN:]
    with torch.no_grad():
        start = [score_rows(lab.model, rows).mean_logps for rows in fresh]
    weights = dict(zip(ATOMS, start, strict=True))
    per_row = {
        name: torch.stack([compile_loss(s)({a: w[i : i + 1] for a, w in weights.items()}) for i in range(TEST)])
        for name, s in LOSSES.items()
    }
    measured = {"order broken by": _order_broken(per_row)}
    for done, (name, structure) in enumerate({**LOSSES, "cpo, wrong": CPO_WITHOUT_ADDITIVE}.items()):
        progress(2 + done, whole, name)
        model, loss = lab.copy(), compile_loss(structure)

        def value(rows: list[int], model=model, loss=loss) -> torch.Tensor:  # type: ignore[no-untyped-def]
            both = score_rows(model, [wins[i] for i in rows] + [losses[i] for i in rows]).mean_logps
            return loss(dict(zip(ATOMS, both.chunk(2), strict=True)))

        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        descend(model, value, rows=TRAIN, batch=BATCH, steps=STEPS, seed=seed, optimizer=optimizer)
        with torch.no_grad():
            won, lost = (score_rows(model, rows).mean_logps for rows in fresh)
        measured[f"{name} winner"] = float((won - start[0]).mean())
        measured[f"{name} loser"] = float((lost - start[1]).mean())
        measured[f"{name} accuracy"] = float((won > lost).float().mean())
    return measured


@preference_logic.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the formulas foretell."""
    winner = {name: m[f"{name} winner"] for name in LOSSES}
    for name in COLLAPSING:
        yield Claim(
            text=f"{name}: no valid answer counts as good, so both fall (winner's log-probability per character)",
            measured=winner[name],
            threshold="<= -2",
            baselines={"loser": m[f"{name} loser"], "accuracy": m[f"{name} accuracy"]},
        )
    for name in ("ce", "ceunl"):
        yield Claim(
            text=f"{name}: no valid answer counts as bad, so the winner stays",
            measured=winner[name],
            threshold=">= -0.3",
            baselines={other: winner[other] for other in ("cpo", "orpo", "qfunl")},
        )
    yield Claim(
        text="Counting 'both valid' as good instead of for both sides (cCPO over CPO) keeps the winner higher",
        measured=winner["ccpo"] - winner["cpo"],
        threshold=">= 0.05",
        baselines={"cCPO": winner["ccpo"], "CPO": winner["cpo"]},
    )
    yield Claim(
        text="… and CPO compiled without its additive formula is cCPO (the control that shows a wrong compiler)",
        measured=(m["cpo, wrong winner"] - winner["ccpo"]).abs(),
        threshold="<= 0.001",
        kind="ours",
    )
    yield Claim(
        text="A loss is never below one that its structure entails, on any example (by how much it is, at worst)",
        measured=m["order broken by"],
        threshold="<= 1e-5",
    )
