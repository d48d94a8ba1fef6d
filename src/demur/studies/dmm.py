"""Datamodel matching (arXiv 2410.23232): what a model would say without some rows can be predicted, and taught to it.

Ensembles of small networks on real digits, so that each row's margin has a distribution under models that unlearned it
and under models that never saw it; and ridge regression, where both solutions are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from demur.audits.classifiers import kl_of_margins, u_lira
from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.editing.datamodels import agreement, resampled_datamodel
from demur.editing.ensembles import Ensemble, cached_ensemble, descend_together, member_losses
from demur.editing.matching import datamodel_direct, match_logits, matching_set
from demur.models.classifier import Classifier
from demur.models.descent import batches
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

ROWS, FORGOTTEN, WIDTH = 600, 20, 24
MODELS, RESAMPLED = 60, 1500
BATCH = 50
RECIPE: dict[str, Any] = {"epochs": 20, "learning_rate": 0.05, "batch_size": BATCH, "weight_decay": 5e-4}
RIDGE = 60.0
MATCH: dict[str, Any] = {"epochs": 60, "learning_rate": 3e-3, "gamma": 1.0}
FAST: dict[str, Any] = {**MATCH, "learning_rate": 0.05}
TUNE: dict[str, Any] = {"epochs": 2, "learning_rate": 0.005}
LONGER: dict[str, Any] = {"epochs": 10, "learning_rate": 0.01}
ASCENT = [(rate, epochs) for rate in (1e-3, 3e-3, 1e-2, 3e-2) for epochs in (1, 2, 3, 5, 8)]
POINTS, COLUMNS, LEAVING, STEPS = 100, 400, 5, 20
LIGHT, HEAVY = 0.1, 100.0
Vector = NDArray[np.float64]


class _Layer(nn.Linear):
    """A linear layer with He's initial weights, under which runs differ more than under torch's own."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=(2 / self.in_features) ** 0.5)
        nn.init.zeros_(self.bias)


def net() -> Classifier:
    """A network of one hidden layer for 8 × 8 digits."""
    layers = nn.Sequential(nn.Flatten(), _Layer(64, WIDTH), nn.ReLU(), _Layer(WIDTH, 10))
    return Classifier(layers, head="3", name="the perceptron")


def alike(data: Labelled, certain: Tensor, seed: int) -> Tensor:
    """(rows,) bool: a picture and those of its class that are nearest to it.

    The picture is drawn from the half that networks are least certain of: among pictures that every network gets right
    by far, with or without them, there is nothing to forget.
    """
    doubtful = (certain <= certain.median()).nonzero()[:, 0]
    one = int(doubtful[int(np.random.default_rng([seed, 5]).integers(len(doubtful)))])
    distance = (data.inputs - data.inputs[one]).flatten(1).norm(dim=1)
    distance[data.labels != data.labels[one]] = torch.inf
    chosen = torch.zeros(len(data), dtype=torch.bool)
    chosen[distance.argsort()[:FORGOTTEN]] = True
    return chosen


def ascend(members: Ensemble, forget: Labelled, rate: float, epochs: int, seed: int) -> Ensemble:
    """Gradient ascent on the forget rows."""
    return descend_together(members, _stream(forget, seed, -1), epochs=epochs, learning_rate=rate)


def fine_tune(members: Ensemble, retain: Labelled, recipe: dict[str, Any], seed: int) -> Ensemble:
    """Fine-tuning on the kept rows, its rate rising and falling as in training."""
    steps = -(-len(retain) // BATCH)
    return descend_together(members, _stream(retain, seed, 1), steps=steps, **recipe)


def _stream(data: Labelled, seed: int, sign: int) -> Callable[[Ensemble, int], Iterator[Tensor]]:
    """Every member's loss on the same batches."""

    def losses(moving: Ensemble, epoch: int) -> Iterator[Tensor]:
        for rows in batches(len(data), BATCH, (seed, epoch)):
            yield sign * member_losses(moving, data, rows.expand(len(moving), -1))

    return losses


@study("dmm", paper="2410.23232", minutes=1, seeds=(1, 2, 3))
def ensembles(seed: int, progress: Progress) -> dict[str, float]:
    """Sixty networks unlearn twenty similar digits, and are compared with sixty that never saw them."""
    data, val = (read_labelled(f"digits:{part}", seed=seed) for part in (f"train[0:{ROWS}]", "test"))
    base = 10_000 * seed

    def trained(rows: Labelled, offset: int, at: int) -> Ensemble:
        progress(at, 100, "networks")
        return cached_ensemble(net(), rows, MODELS, seed=base + offset, **RECIPE)

    originals = trained(data, 0, 0)
    chosen = alike(data, originals.margins(data).mean(0), seed)
    forget, retain = data.subset(chosen.nonzero()[:, 0]), data.subset((~chosen).nonzero()[:, 0])
    oracles, floor = trained(retain, 1000, 4), trained(retain, 2000, 8)
    datamodel = resampled_datamodel(
        net(),
        data,
        RESAMPLED,
        ridge=RIDGE,
        seed=base + 3000,
        progress=lambda done, total, note="": progress(12 + 70 * done / total, 100, "datamodel"),
        **RECIPE,
    )
    both, alone = matching_set(forget, retain, seed=seed), matching_set(forget, retain, 1.0, 0.0, seed)

    def matching(rows: Labelled, multiplier: float = 1.0, recipe: dict[str, Any] = MATCH) -> Ensemble:
        beta = datamodel.beta(rows, forget.ids)
        targets = datamodel_direct(originals.logits(rows), rows.ids, beta, forget.ids, multiplier=multiplier)
        return match_logits(originals, rows, targets, seed=seed, **recipe)

    mean = oracles.logits(both).mean(0).expand(MODELS, -1, -1)
    arms: dict[str, Callable[[], Ensemble]] = {
        "nothing": lambda: originals,
        "floor": lambda: floor,
        "fine-tuning": lambda: fine_tune(originals, retain, TUNE, seed),
        "longer fine-tuning": lambda: fine_tune(originals, retain, LONGER, seed),
        "matching": lambda: matching(both),
        "oracle matching": lambda: match_logits(originals, both, mean, seed=seed, **MATCH),
        "wrong sign": lambda: matching(both, -1.0),
        "no kept rows": lambda: matching(alone),
        "matching, fast": lambda: matching(both, recipe=FAST),
        "no kept rows, fast": lambda: matching(alone, recipe=FAST),
    }
    sides = {"forget": forget, "retain": retain, "val": val}
    reference = {name: oracles.margins(rows).double().numpy() for name, rows in sides.items()}
    measured: dict[str, float] = {}
    for place, (arm, make) in enumerate(arms.items()):
        progress(82 + 15 * place / len(arms), 100, arm)
        measured |= {f"{arm} {name}": value for name, value in _compared(make(), sides, reference).items()}
    measured |= {f"ascent {name}": value for name, value in _best_ascent(originals, sides, reference, seed).items()}
    predicted = -datamodel.beta(forget, forget.ids).removed(forget.ids, forget.ids)
    real = oracles.logits(forget).mean(0) - originals.logits(forget).mean(0)
    measured["correlation"], measured["scale"] = agreement(predicted, real)
    return measured


def _compared(members: Ensemble, sides: dict[str, Labelled], reference: dict[str, Vector]) -> dict[str, float]:
    """Mean KLoM of each set, the retained rows' 95th percentile, and U-LiRA on the forget rows."""
    found = {name: members.margins(rows).double().numpy() for name, rows in sides.items()}
    klom = {name: kl_of_margins(reference[name], margins) for name, margins in found.items()}
    attack = u_lira(found["forget"], reference["forget"])
    turned = kl_of_margins(reference["forget"], found["forget"], direction="unlearned||oracle")
    return {
        **{name: float(value.mean()) for name, value in klom.items()},
        "retain 95th": float(np.quantile(klom["retain"], 0.95)),
        "forget turned": float(turned.mean()),
        "u-lira": float(attack.mean()),
    }


def _best_ascent(
    originals: Ensemble, sides: dict[str, Labelled], reference: dict[str, Vector], seed: int
) -> dict[str, float]:
    """Gradient ascent at the setting that comes nearest on the forget rows, which no user could look up."""
    tried = [
        _compared(ascend(originals, sides["forget"], rate, epochs, seed), sides, reference) for rate, epochs in ASCENT
    ]
    return min(tried, key=lambda one: one["forget"])


@ensembles.claims
def ensemble_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of datamodel matching, and two slips that must show."""

    def of(name: str, *arms: str) -> dict[str, pd.Series]:
        return {arm: m[f"{arm} {name}"] for arm in arms}

    forgot = of("forget", "nothing", "fine-tuning", "ascent", "oracle matching", "floor")
    yield Claim(
        text="Datamodel matching forgets: KLoM to networks that never saw the rows, as a share of doing nothing's",
        measured=m["matching forget"] / m["nothing forget"],
        threshold="<= 0.4",
        baselines={"matching, in nats": m["matching forget"], **forgot},
    )
    for name, what in (("retain", "kept rows"), ("val", "new digits")):
        yield Claim(
            text=f"and leaves {what} as near to them as they are to one another: mean KLoM above that floor",
            measured=m[f"matching {name}"] - m[f"floor {name}"],
            threshold="<= 0.6",
            baselines=of(name, "matching", "nothing", "fine-tuning", "ascent", "oracle matching", "floor"),
        )
    yield Claim(
        text="An attack that knows the distribution of each row's margin is held off (U-LiRA, by how much)",
        measured=m["nothing u-lira"] - m["matching u-lira"],
        threshold=">= 0.2",
        baselines=of("u-lira", "matching", "nothing", "fine-tuning", "ascent", "oracle matching", "floor"),
    )
    yield Claim(
        text="Attribution predicts what retraining changes in the forget rows' logits (correlation)",
        measured=m["correlation"],
        threshold=">= 0.8",
        baselines={"real change per predicted": m["scale"]},
    )
    yield Claim(
        text=f"A little fine-tuning on the kept rows ({TUNE['epochs']} epochs at {TUNE['learning_rate']}) does not "
        "forget: its KLoM as a share of doing nothing's",
        measured=m["fine-tuning forget"] / m["nothing forget"],
        threshold=">= 0.85",
        baselines={
            f"{LONGER['epochs']} epochs at {LONGER['learning_rate']}": m["longer fine-tuning forget"]
            / m["nothing forget"],
            "matching": m["matching forget"] / m["nothing forget"],
        },
    )
    yield Claim(
        text="With the sign turned, memory is doubled: forget KLoM above doing nothing's (by how much)",
        measured=m["wrong sign forget"] - m["nothing forget"],
        threshold="> 0",
        kind="ours",
        baselines=of("forget", "wrong sign", "nothing"),
    )
    yield Claim(
        text=f"Matched fast ({FAST['learning_rate']}) on forget rows alone, new digits drift: their KLoM above that "
        "of matching on kept rows too",
        measured=m["no kept rows, fast val"] - m["matching, fast val"],
        threshold="> 1",
        baselines=of("val", "no kept rows, fast", "matching, fast", "no kept rows", "matching", "floor"),
    )


@ensembles.part("ridge", minutes=0.1)
def ridge(seed: int, progress: Progress) -> dict[str, float]:
    """Least squares with more columns than rows: which descent comes near the solution without the forget rows."""
    drawn = np.random.default_rng(seed)
    x = drawn.standard_normal((POINTS, COLUMNS))
    y = x @ drawn.standard_normal(COLUMNS) + drawn.standard_normal(POINTS)
    kept, gone = slice(LEAVING, None), slice(0, LEAVING)

    def solution(rows: slice, decay: float) -> Vector:
        gram = x[rows] @ x[rows].T
        return np.asarray(x[rows].T @ np.linalg.solve(gram + decay * np.eye(len(gram)), y[rows]))

    def left(decay: float, rows: slice, of_loss: bool) -> float:
        """The share of the way that is left after some steps of size 1/L, on the labels or on the oracle's outputs."""
        start, goal = solution(slice(None), decay), solution(kept, decay)
        held = decay if of_loss else 0.0
        aim = y[rows] if of_loss else x[rows] @ goal
        size = float(np.linalg.eigvalsh(x[rows] @ x[rows].T)[-1]) + held
        at = start.copy()
        for _ in range(STEPS):
            at -= (x[rows].T @ (x[rows] @ at - aim) + held * at) / size
        return float(np.linalg.norm(at - goal) / np.linalg.norm(start - goal))

    return {
        "descent": left(LIGHT, kept, of_loss=True),
        "descent, heavy ridge": left(HEAVY, kept, of_loss=True),
        "oracle matching": left(LIGHT, slice(None), of_loss=False),
        "oracle matching, forget rows only": left(LIGHT, gone, of_loss=False),
    }


@ridge.claims
def ridge_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper proves of the convex case."""
    shares = {name: m[name] for name in m}
    yield Claim(
        text=f"Oracle matching on all rows is near the solution after {STEPS} steps (share of the distance left)",
        measured=m["oracle matching"],
        threshold="<= 0.05",
        baselines=shares,
    )
    yield Claim(
        text="while descent on the kept rows' loss has hardly moved",
        measured=m["descent"],
        threshold=">= 0.9",
        baselines=shares,
    )
    yield Claim(
        text="unless the ridge is heavy",
        measured=m["descent, heavy ridge"],
        threshold="<= 0.2",
        baselines=shares,
    )
    yield Claim(
        text="Matched on the forget rows only, it stalls at what they do not span",
        measured=m["oracle matching, forget rows only"],
        threshold=">= 0.3",
        baselines=shares,
    )
