"""LoKU (Cha et al. 2024, arXiv 2408.06621): LoRA unlearning, quick by where adapters start and safe by the loss.

Two losses, the inverted hinge and gradient difference, each with ordinary adapters and with adapters that start as the
part of the weights that matters to the forget set (FILA).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from demur.studies.authors import NEVER, UNLEARN, Authors, authors, mean_nlls, mean_probability
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

    from demur.models import LanguageModel

# As forgetting sets in the retain probability dips for an epoch. It dips deeper the coarser the steps are, and where
# gradients are scaled down: they grow large then, and AdamW, which sees that, takes smaller steps.
ADAPTERS: dict[str, Any] = {
    "lora": 8,
    "lora_alpha": 16.0,
    "learning_rate": 5e-4,
    "batch_size": 4,
    "max_grad_norm": 1e6,
}
EPOCHS, EVERY = 12, 2
DRAWS = 3  # of adapters and of rows: how deep one run dips depends on them as much as on the model
HALF = 0.5  # forget probability with ordinary adapters at which FILA's is compared with it
LOSSES = {"IHL": "ihl", "GradDiff": "graddiff"}
STARTS = {"LoRA": None, "FILA": "fila"}


def trajectory(world: Authors, seed: int, objective: str, start: str | None, out: Path) -> list[tuple[float, float]]:
    """Forget and retain probability before training and after every second epoch."""
    from demur.training import ForgetSettings, forget

    curve: list[tuple[float, float]] = []

    def watch(lm: LanguageModel, epoch: int) -> None:
        if epoch % EVERY == 0:
            curve.append((mean_probability(lm, world.forget), mean_probability(lm, world.kept)))

    settings = ForgetSettings(
        model=str(world.base),
        forget=world.forget_file,
        retain=world.kept_file,
        objective=objective,
        lora_init=start,
        seed=seed,
        **{**UNLEARN, **ADAPTERS, "epochs": EPOCHS},
        **NEVER,
    )
    forget(settings, out, watch)
    return curve


def step_zero(world: Authors, seed: int) -> dict[str, float]:
    """How far the initialisation alone moves the forget answers' scores, as it is and had it not divided by s."""
    import peft

    from demur.data import collate, question_answer
    from demur.models import encode, load_model
    from demur.training import fila_init, relative_fisher

    def adapted() -> LanguageModel:
        lm = load_model(world.base, device="cpu")
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
        lm.model = peft.get_peft_model(lm.model, config).eval()
        return lm

    def nlls(lm: LanguageModel) -> np.ndarray:
        return mean_nlls(lm, world.forget["question"], world.forget["answer"])

    lm = adapted()
    before = nlls(lm)
    batches = []
    for rows in (world.forget, world.kept.select(range(min(len(world.forget), len(world.kept))))):
        encoded = encode(lm, *question_answer(rows))
        batches.append([collate(encoded[i : i + 8], lm.pad_id) for i in range(0, len(encoded), 8)])
    fila_init(lm.model, relative_fisher(lm.model, *batches))
    right = np.abs(nlls(lm) - before).max()
    with torch.no_grad():  # the same base, and B A larger by s
        for layer in lm.model.modules():
            if isinstance(layer, peft.tuners.lora.Linear):
                layer.lora_B["default"].weight *= layer.scaling["default"]
    return {"right": float(right), "undivided": float((nlls(lm) - before).mean())}


@study("loku", paper="2408.06621", minutes=4)
def tofu(seed: int, progress: Progress) -> dict[str, float]:
    """A small language model unlearns two TOFU authors through adapters of rank 8; mean probability of an answer."""
    arms = [(loss, start) for loss in LOSSES for start in STARTS]
    total = 2 + len(arms) * DRAWS + 1
    world = authors(seed, lambda done, _, note="": progress(done, total, note))
    curves: dict[tuple[str, str], np.ndarray] = {}
    with tempfile.TemporaryDirectory() as holder:
        for place, (loss, start) in enumerate(arms):
            drawn = []
            for draw in range(DRAWS):
                progress(2 + place * DRAWS + draw, total, f"{loss} {start}")
                out = Path(holder) / f"{loss} {start} {draw}"
                drawn.append(trajectory(world, seed + 1000 * draw, LOSSES[loss], STARTS[start], out))
            curves[loss, start] = np.array(drawn)  # (draws, times, forget and retain)
    measured: dict[str, float] = {}
    for loss, start in arms:
        forget, retain = curves[loss, start].mean(0).T
        half = curves[loss, "LoRA"].mean(0)[:, 0] <= HALF
        early = int(half.argmax()) if half.any() else -1
        found = {"early forget": forget[early], "early retain": retain[early], "forget": forget[-1]}
        found |= {"retain": retain[-1], "before": forget[0]}
        found |= {"lowest retain": curves[loss, start][:, :, 1].min(1).mean()}
        measured |= {f"{loss} {start} {name}": float(value) for name, value in found.items()}
    progress(total - 1, total, "step 0")
    return measured | {f"step 0 {name}": value for name, value in step_zero(world, seed).items()}


@tofu.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says, as far as so small a model can show it."""
    runs = [f"{loss} {start}" for loss in LOSSES for start in STARTS]
    yield Claim(
        text="Before, the model knows the authors to be forgotten (forget probability)",
        measured=m["IHL LoRA before"],
        threshold=">= 0.9",
        kind="ours",
    )
    yield Claim(
        text="FILA forgets faster: once LoRA is past half, at most a third of its forget probability is left (IHL)",
        measured=m["IHL FILA early forget"] / m["IHL LoRA early forget"],
        threshold="<= 0.3333333333333333",
        baselines={
            **{f"{name}, forget": m[f"{name} early forget"] for name in runs},
            **{f"{name}, retain": m[f"{name} early retain"] for name in runs},
        },
    )
    for start in STARTS:
        yield Claim(
            text=f"The inverted hinge never loses the rest on the way (lowest retain probability, {start})",
            measured=m[f"IHL {start} lowest retain"],
            threshold=">= 0.7",
            baselines={f"at the end, {side}": m[f"IHL {start} {side}"] for side in ("retain", "forget")},
        )
    for start in STARTS:
        yield Claim(
            text=f"Gradient difference does (lowest retain probability, {start})",
            measured=m[f"GradDiff {start} lowest retain"],
            threshold="<= 0.5",
            baselines={f"at the end, {side}": m[f"GradDiff {start} {side}"] for side in ("retain", "forget")},
        )
    yield Claim(
        text="At step 0 the adapter has changed nothing (largest difference of an answer's mean log-probability)",
        measured=m["step 0 right"],
        threshold="< 1e-5",
    )
    yield Claim(
        text="… and would have, had s not been divided out (rise of the mean negative log-likelihood)",
        measured=m["step 0 undivided"],
        threshold="> 0.1",
        kind="ours",
    )
