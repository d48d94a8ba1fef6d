"""Reinforcement distillation (arXiv 2505.24850): wrong traces help only while they are pushed less than right ones.

Running sums modulo 10 of four digits. A right trace holds the partial sums; a wrong one is off from some step on. A
small model learns right traces until it solves seven problems in ten, then goes on with pairs.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from demur.data.batch import Encoded
from demur.objectives import dpo_loss, redi
from demur.studies.registry import Progress, study
from demur.studies.results import Claim
from demur.studies.small_llama import descend, score_rows, small_llama

if TYPE_CHECKING:
    import pandas as pd
    from transformers import LlamaForCausalLM

DIGITS, EQUALS, END = 4, 10, 11
PROBLEMS, FRESH, WIDTH, BATCH = 1200, 400, 64, 32
LEARN_STEPS, LEARN_ROUND, LEARN_RATE = 600, 10, 2e-3
ENOUGH = 0.7  # a model that solves every problem has nothing left to lose by α = 1
STEPS, RATE, LOW_RATE = 150, 1e-3, 3e-5
ALPHAS = (0.0, 0.5, 0.8, 1.0)
BETAS = (0.01, 0.1)


def make_pairs(count: int, generator: np.random.Generator) -> tuple[list[Encoded], list[Encoded]]:
    """Problems with a right and with a wrong trace."""
    digits = generator.integers(10, size=(count, DIGITS))
    right = digits.cumsum(1) % 10
    slip, step = generator.integers(1, 10, size=(count, 1)), generator.integers(DIGITS, size=(count, 1))
    wrong = (right + slip * (np.arange(DIGITS) >= step)) % 10
    fronts = np.concatenate([digits, np.full((count, 1), EQUALS)], axis=1)

    def encoded(traces: np.ndarray) -> list[Encoded]:
        ends = np.full((count, 1), END)
        return [Encoded(row.tolist(), DIGITS + 1) for row in np.concatenate([fronts, traces, ends], axis=1)]

    return encoded(right), encoded(wrong)


@torch.no_grad()
def examine(model: LlamaForCausalLM, right: list[Encoded], wrong: list[Encoded]) -> dict[str, float]:
    """Share of problems whose greedy trace is the right one, and both traces' log-probability per token."""
    model.eval()
    scored = score_rows(model, right)
    hits = scored.top_k(1)[1][:, 0] == scored.label_ids
    return {
        "accuracy": float(hits.view(len(right), -1).all(1).float().mean()),
        "chosen": float(scored.mean_logps.mean()),
        "rejected": float(score_rows(model, wrong).mean_logps.mean()),
    }


@study("redi", paper="2505.24850", minutes=2, seeds=(1, 2, 3))
def running_sums(seed: int, progress: Progress) -> dict[str, float]:
    """Fine-tuning on right traces, then REDI with four weights of the wrong ones, DPO, and two wrong losses."""
    generator = np.random.default_rng(seed)
    right, wrong = make_pairs(PROBLEMS, generator)
    fresh = make_pairs(FRESH, generator)
    base = small_llama(END + 1, WIDTH, seed)
    arms = {f"α={alpha:g}": RATE for alpha in ALPHAS} | {f"β={beta:g}": RATE for beta in BETAS}
    arms |= {"α=1, low rate": LOW_RATE, "sign, α=0.8": RATE}
    progress(0, len(arms) + 2, "fine-tuning")
    optimizer = torch.optim.AdamW(base.parameters(), lr=LEARN_RATE)
    for step in range(0, LEARN_STEPS, LEARN_ROUND):
        descend(
            base,
            lambda rows: score_rows(base, [right[i] for i in rows]).nll,
            rows=PROBLEMS,
            batch=BATCH,
            steps=LEARN_ROUND,
            seed=seed + step,
            optimizer=optimizer,
        )
        if examine(base, *fresh)["accuracy"] >= ENOUGH:
            break
    with torch.no_grad():
        reference = [score_rows(base, side).logps for side in (right, wrong)]
    measured = {f"start {name}": value for name, value in examine(base, *fresh).items()}
    for done, (arm, rate) in enumerate(arms.items()):
        progress(2 + done, len(arms) + 2, arm)
        model = copy.deepcopy(base)
        number = float(arm.partition("=")[2].partition(",")[0])

        def loss(rows: list[int], model=model, arm=arm, number=number) -> torch.Tensor:  # type: ignore[no-untyped-def]
            won, lost = (score_rows(model, [side[i] for i in rows]) for side in (right, wrong))
            if arm.startswith("β"):
                return dpo_loss(won.logps, lost.logps, reference[0][rows], reference[1][rows], number)
            if arm.startswith("sign"):  # a slip that must show: the wrong trace is raised too
                return (-won.mean_logps - number * lost.mean_logps).mean()
            return redi(won, lost, number)

        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        descend(model, loss, rows=PROBLEMS, batch=BATCH, steps=STEPS, seed=seed + 1, optimizer=optimizer)
        measured |= {f"{arm} {name}": value for name, value in examine(model, *fresh).items()}
    return measured


@running_sums.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of its loss, as far as a task this small can show it."""
    chosen = {arm: m[f"{arm} chosen"] for arm in ("start", *(f"α={a:g}" for a in ALPHAS), "α=1, low rate")}
    yield Claim(
        text="With α = 1 the right trace falls much further than with α = 0.8 (log-probability per token, difference)",
        measured=chosen["α=0.8"] - chosen["α=1"],
        threshold=">= 0.2",
        baselines={"α = 0.8": chosen["α=0.8"], "α = 1": chosen["α=1"], "start": chosen["start"]},
    )
    drops = [chosen[f"α={a:g}"] - chosen[f"α={b:g}"] for a, b in itertools.pairwise(ALPHAS)]
    smallest = drops[0].combine(drops[1], min).combine(drops[2], min)
    yield Claim(
        text="The harder wrong traces are pushed, the lower right ones end (smallest fall from one α to the next)",
        measured=smallest,
        threshold="> 0",
        baselines={f"α = {a:g}": chosen[f"α={a:g}"] for a in ALPHAS},
    )
    yield Claim(
        text="At a learning rate 30 times lower α = 1 survives (accuracy lost against the start)",
        measured=m["start accuracy"] - m["α=1, low rate accuracy"],
        threshold="<= 0.15",
        baselines={"start": m["start accuracy"], "α = 1, full rate": m["α=1 accuracy"]},
    )
    yield Claim(
        text="The wrong trace falls, under every α above 0 (largest change of its log-probability per token)",
        measured=_largest([m[f"α={a:g} rejected"] - m["start rejected"] for a in ALPHAS[1:]]),
        threshold="< 0",
        kind="ours",
        baselines={"with the sign turned": m["sign, α=0.8 rejected"] - m["start rejected"]},
    )


def _largest(series: list[pd.Series]) -> pd.Series:
    out = series[0]
    for other in series[1:]:
        out = out.combine(other, max)
    return out
