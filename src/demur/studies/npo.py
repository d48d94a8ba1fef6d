"""Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868): it collapses far more slowly than ascent.

`synthetic` is the paper's own setting: a logistic head on fixed random features, where the distance to a model that
never saw the forget set is known exactly. `tofu` is a small language model trained from scratch on TOFU. The other
parts have files of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.objectives import dpo_loss, npo_loss
from demur.studies.authors import NEVER, UNLEARN, authors, mean_nlls, mean_probability
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from numpy.typing import NDArray


# Paper, section 3.3, and its code: two classes, 16 inputs, 128 random ReLU features, 1000 points to keep, 200 to
# forget, 1000 fresh ones of each kind to measure on; 2000 full-batch steps of plain gradient descent.
INPUTS, FEATURES, KEEP, FORGET, FRESH, STEPS, EVERY = 16, 128, 1000, 200, 1000, 2000, 25


@dataclass(frozen=True)
class Points:
    """Points as the head sees them: features (n, FEATURES) and signs (n,), +1 for class 0 and -1 for class 1."""

    features: Tensor
    signs: Tensor

    def logps(self, head: Tensor) -> Tensor:
        """(n,) log-probability of each point's class; class 1 has score 0."""
        return F.logsigmoid(self.signs * (self.features @ head))

    def joined(self, other: Points) -> Points:
        """These points and the others."""
        return Points(torch.cat([self.features, other.features]), torch.cat([self.signs, other.signs]))


@dataclass(frozen=True)
class World:
    """One draw of the setting; `idk` are the forget points under coin-flip labels."""

    keep: Points
    forget: Points
    idk: Points
    fresh_keep: Points
    fresh_forget: Points


def make_world(shift: float, seed: int) -> World:
    """Two unit Gaussian clusters `2 * shift` apart on every axis; the one to forget has the classes swapped."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = normal(INPUTS, FEATURES) / INPUTS**0.5

    def cluster(count: int, side: float) -> Points:
        offsets = normal(count, INPUTS)
        score = 1 + offsets.sum(1) / INPUTS**0.5
        drawn = torch.rand(count, generator=generator, dtype=torch.float64) < torch.sigmoid(score)
        signs = torch.where(drawn, 1.0, -1.0).to(torch.float64) * -side
        return Points(torch.relu((offsets + side * shift) @ weights), signs)

    keep, forget = cluster(KEEP, -1.0), cluster(FORGET, +1.0)
    coins = torch.randint(0, 2, (FORGET,), generator=generator).to(torch.float64) * 2 - 1
    return World(keep, forget, Points(forget.features, coins), cluster(FRESH, -1.0), cluster(FRESH, +1.0))


def fit_head(points: Points, ridge: float = 1e-4) -> Tensor:
    """The head that minimises mean negative log-likelihood + ridge/2 · |head|², by Newton's method."""
    head = torch.zeros(FEATURES, dtype=torch.float64)
    for _ in range(100):
        chance = torch.sigmoid(points.features @ head)
        gradient = points.features.T @ (chance - (points.signs + 1) / 2) / len(chance) + ridge * head
        if gradient.norm() < 1e-10:
            return head
        curvature = (points.features.T * (chance * (1 - chance))) @ points.features / len(chance)
        head = head - torch.linalg.solve(curvature + ridge * torch.eye(FEATURES, dtype=torch.float64), gradient)
    raise RuntimeError(f"Newton's method did not converge: gradient norm {gradient.norm():.1e}")


def divergence(truth: Tensor, head: Tensor, points: Points) -> float:
    """KL(truth ‖ head) of the class distributions, mean over points, in nats."""
    p, q = points.features @ truth, points.features @ head
    gain = F.logsigmoid(p) - F.logsigmoid(q), F.logsigmoid(-p) - F.logsigmoid(-q)
    return (torch.sigmoid(p) * gain[0] + torch.sigmoid(-p) * gain[1]).mean().item()


Loss = Callable[[Tensor], Tensor]


def losses(world: World, start: Tensor) -> dict[str, Callable[[float], Loss]]:
    """What is minimised, by name; each takes the β it uses, if any, and gives a function of the head."""
    reference, idk_reference = world.forget.logps(start), world.idk.logps(start)

    def retain(head: Tensor) -> Tensor:
        return -world.keep.logps(head).mean()

    def ga(head: Tensor) -> Tensor:
        return world.forget.logps(head).mean()

    def npo(beta: float) -> Loss:
        return lambda head: npo_loss(world.forget.logps(head), reference, beta)

    def dpo(beta: float) -> Loss:
        return lambda head: (
            2 / beta * dpo_loss(world.idk.logps(head), world.forget.logps(head), idk_reference, reference, beta)
        )

    return {
        "GA": lambda beta: ga,
        "GDiff": lambda beta: lambda head: ga(head) + retain(head),
        "IDK+RT": lambda beta: lambda head: retain(head) - world.idk.logps(head).mean(),
        "NPO": npo,
        "NPO+RT": lambda beta: lambda head: npo(beta)(head) + retain(head),
        "DPO+RT": lambda beta: lambda head: dpo(beta)(head) + retain(head),
    }


def descend(loss: Loss, start: Tensor, rate: float, steps: int = STEPS, every: int = EVERY) -> list[Tensor]:
    """The heads before the first step and after every `every`-th step of plain gradient descent."""
    head, path = start.clone().requires_grad_(True), [start]
    for step in range(1, steps + 1):
        (gradient,) = torch.autograd.grad(loss(head), head)
        with torch.no_grad():
            head -= rate * gradient
        if step % every == 0:
            path.append(head.detach().clone())
    return path


# Half the distance between the clusters on every axis; then name → loss, learning rate and β as in the paper's code.
# Apart, forgetting need not hurt; mixed, the clusters lie in one place and differ in their classes alone.
SETTINGS: dict[str, tuple[float, dict[str, tuple[str, float, float]]]] = {
    "apart": (
        1.0,
        {
            "GA": ("GA", 5e-4, 0.0),
            "GDiff": ("GDiff", 5e-4, 0.0),
            "IDK+RT": ("IDK+RT", 5e-4, 0.0),
            "NPO": ("NPO", 5e-3, 1.0),
            "NPO+RT": ("NPO+RT", 5e-3, 1.0),
            "DPO+RT": ("DPO+RT", 5e-3, 0.1),
            "NPO as β → 0": ("NPO", 5e-4, 1e-3),  # ours: gradient ascent's learning rate
        },
    ),
    "mixed": (0.0, {"GA": ("GA", 1e-4, 0.0), "NPO": ("NPO", 5e-2, 10.0), "NPO+RT": ("NPO+RT", 5e-2, 10.0)}),
}


@study("npo", paper="2404.05868", part="synthetic", seeds=(1, 2, 3, 4, 5), minutes=0.2)
def synthetic(seed: int, progress: Progress) -> dict[str, float]:
    """A logistic head on random features unlearns one of two Gaussian clusters; KL to a head that never saw it."""
    measured: dict[str, float] = {}
    for setting, (shift, methods) in SETTINGS.items():
        world = make_world(shift, seed)
        gold, start = fit_head(world.keep), fit_head(world.keep.joined(world.forget))
        available = losses(world, start)
        measured[f"{setting} start forget"] = divergence(gold, start, world.fresh_forget)
        for name, (loss, rate, beta) in methods.items():
            progress(len(measured), 42, f"{setting} {name}")
            path = descend(available[loss](beta), start, rate)
            forget = [divergence(gold, head, world.fresh_forget) for head in path]
            moved = [(head - start).norm().item() for head in path]
            measured[f"{setting} {name} forget"] = forget[-1]
            measured[f"{setting} {name} best forget"] = min(forget)
            measured[f"{setting} {name} retain"] = divergence(gold, path[-1], world.fresh_keep)
            measured[f"{setting} {name} pace"] = moved[-1] / moved[len(moved) // 2]
    return measured


@synthetic.claims
def synthetic_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of its synthetic setting."""
    retain = {name: m[f"apart {name} retain"] for name in SETTINGS["apart"][1]}
    yield Claim(
        text="Clusters apart: gradient ascent ruins the retain set (final KL)",
        measured=retain["GA"],
        threshold="> 0.9",
        baselines={"GDiff": retain["GDiff"], "IDK+RT": retain["IDK+RT"], "DPO+RT": retain["DPO+RT"]},
    )
    yield Claim(
        text="NPO without any retain data damages it far less (final KL)",
        measured=retain["NPO"],
        threshold="< 0.3",
        baselines={"GA": retain["GA"]},
    )
    yield Claim(
        text="… at most a quarter as much as gradient ascent",
        measured=retain["NPO"] / retain["GA"],
        threshold="<= 0.25",
    )
    yield Claim(
        text="NPO with a retain term leaves it unharmed (final KL)",
        measured=retain["NPO+RT"],
        threshold="< 0.04",
        baselines={"GDiff": retain["GDiff"], "DPO+RT": retain["DPO+RT"]},
    )
    yield Claim(
        text="NPO forgets: final forget KL over the KL before (a wrong sign gives more than 1)",
        measured=m["apart NPO forget"] / m["apart start forget"],
        threshold="< 0.1",
        baselines={"NPO+RT": m["apart NPO+RT forget"] / m["apart start forget"]},
    )
    yield Claim(
        text="Training on coin-flip labels (IDK+RT) does not forget (final forget KL)",
        measured=m["apart IDK+RT forget"],
        threshold="> 0.4",
        baselines={"NPO": m["apart NPO forget"], "before": m["apart start forget"]},
    )
    yield Claim(
        text="Twice the steps carry gradient ascent at least 1.9 times as far (linear growth gives 2)",
        measured=m["apart GA pace"],
        threshold=">= 1.9",
    )
    yield Claim(
        text="… and NPO at most 1.2 times as far (logarithmic growth gives 1.1)",
        measured=m["apart NPO pace"],
        threshold="<= 1.2",
    )
    yield Claim(
        text="As β → 0 NPO becomes gradient ascent (retain KL at β = 0.001 over ascent's, same learning rate)",
        measured=retain["NPO as β → 0"] / retain["GA"],
        threshold=">= 0.95 and <= 1.05",
    )
    best = {name: m[f"mixed {name} best forget"] for name in SETTINGS["mixed"][1]}
    yield Claim(
        text="Clusters mixed: NPO comes nearer to the retrained head than ascent ever does (best forget KL, ratio)",
        measured=best["NPO"] / best["GA"],
        threshold="<= 0.85",
        baselines={"KL of NPO": best["NPO"], "KL of GA": best["GA"]},
    )
    yield Claim(
        text="… and NPO with a retain term nearer than NPO (best forget KL, ratio)",
        measured=best["NPO+RT"] / best["NPO"],
        threshold="<= 0.75",
        baselines={"KL of NPO+RT": best["NPO+RT"]},
    )


# Name → objective and retain term.
OBJECTIVES = {
    "GA": ("ga", "none"),
    "GradDiff": ("graddiff", "nll"),
    "NPO": ("npo", "none"),
    "NPO+RT": ("npo", "nll"),
    "NPO+KL": ("npo", "kl"),
    "SimNPO": ("simnpo", "nll"),
    "IdkDPO": ("idkdpo", "nll"),
}


def examine(model: Path, forget: Dataset, retain: Dataset) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Mean answer probability on both sets, and the truth ratios of the forget rows."""
    from demur.audits import truth_ratios
    from demur.models import load_model

    lm, found = load_model(model), {}
    for name, rows in (("forget", forget), ("retain", retain)):
        found[name] = mean_probability(lm, rows)
    true = mean_nlls(lm, forget["question"], forget["paraphrased_answer"])
    wrong = [mean_nlls(lm, forget["question"], column) for column in zip(*forget["perturbed_answer"], strict=True)]
    return found, truth_ratios(true, np.stack(wrong, axis=1))


@synthetic.part("tofu", seeds=(1, 2, 3), minutes=2)
def tofu(seed: int, progress: Progress) -> dict[str, float]:
    """A small language model learns eight TOFU authors and unlearns two; mean probability of an answer's tokens."""
    from demur.audits import forget_quality_test
    from demur.training import ForgetSettings, forget

    world = authors(seed, lambda done, total, note="": progress(3 * done, 14, note))
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as holder:
        work = Path(holder)
        models = {"before": world.base, "gold": world.gold}
        for done, (name, (objective, retain)) in enumerate(OBJECTIVES.items()):
            progress(7 + done, 14, name)
            settings = ForgetSettings(
                model=str(world.base),
                forget=world.forget_file,
                retain=world.kept_file,
                objective=objective,
                retain_objective=retain,
                alternates=world.templates if objective == "idkdpo" else None,
                seed=seed,
                **UNLEARN,
                **NEVER,
            )
            models[name] = forget(settings, work / name).model_path
        ratios = {}
        for name, model in models.items():
            found, ratios[name] = examine(model, world.forget, world.kept)
            measured |= {f"{name} {side}": value for side, value in found.items()}
    for name, values in ratios.items():
        measured[f"{name} forget quality"] = forget_quality_test(values, ratios["gold"]).p
    return measured


@tofu.claims
def tofu_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of language models, as far as so small a one can show it."""
    forget = {name: m[f"{name} forget"] for name in ("before", "gold", *OBJECTIVES)}
    retain = {name: m[f"{name} retain"] for name in ("before", "gold", *OBJECTIVES)}
    quality = {name: m[f"{name} forget quality"] for name in ("before", *OBJECTIVES)}
    yield Claim(
        text="Before, the model knows the authors to be forgotten (forget probability)",
        measured=forget["before"],
        threshold=">= 0.9",
        kind="ours",
        baselines={"before, retain": retain["before"], "gold, forget": forget["gold"], "gold, retain": retain["gold"]},
    )
    yield Claim(
        text="Gradient ascent takes everything with it (retain probability)",
        measured=retain["GA"],
        threshold="<= 0.01",
        baselines={"NPO": retain["NPO"], "gold": retain["gold"]},
    )
    yield Claim(
        text="Gradient difference over-forgets (forget probability, far below the gold model's)",
        measured=forget["GradDiff"],
        threshold="< 1e-4",
        baselines={"gold": forget["gold"], "GA": forget["GA"], "GradDiff, retain": retain["GradDiff"]},
    )
    yield Claim(
        text="NPO with a retain term forgets without overshooting (forget probability)",
        measured=forget["NPO+RT"],
        threshold=">= 1e-4 and <= 0.2",
        baselines={name: forget[name] for name in ("before", "gold", "NPO", "NPO+KL", "SimNPO", "IdkDPO")},
    )
    yield Claim(
        text="… and keeps the rest (retain probability)",
        measured=retain["NPO+RT"],
        threshold=">= 0.85",
        baselines={name: retain[name] for name in ("before", "gold", "GradDiff", "NPO+KL", "SimNPO", "IdkDPO")},
    )
    yield Claim(
        text="Forget quality alone misleads: NPO without a retain term, a ruined model, scores higher (ratio of p)",
        measured=quality["NPO"] / quality["NPO+RT"],
        threshold="> 1",
        kind="ours",
        baselines={f"p of {name}": quality[name] for name in ("NPO", "NPO+RT", "GA", "before")},
    )


# Parts in files of their own, which add themselves to the study declared above.
import demur.studies.npo_news  # noqa: E402
import demur.studies.npo_siblings  # noqa: E402, F401
