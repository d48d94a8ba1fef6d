"""The metrics that classifier-unlearning papers share: do they tell a model that forgot from one that did not?

`digits` puts the membership attacks on single models whose past is known; `ensembles` puts U-LiRA on populations of
small networks (Hayes et al. 2024, arXiv 2403.01218), where the pooled attack that is often reported sees nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from demur.audits.classifiers import UnlearnSplits, entropy, evaluate, measure, mia_entropy, u_lira, u_lira_tpr
from demur.data.labelled import ForgetSplit, Labelled, split_off
from demur.data.labelled_sources import read_labelled
from demur.editing import edit
from demur.editing.ensembles import cached_ensemble
from demur.lab.digits import trained_resnet
from demur.models.classifier import Classifier
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

EPOCHS = 12
FINE_TUNE = {"epochs": 3, "learning_rate": 0.02}
READ = ("unlearning_accuracy", "retain_accuracy", "test_accuracy", "mia_nonmember_rate", "mia_member_rate")
FAR = 1000  # between the seeds of an original, of its retrained model and of a second one


@study("classifier-unlearning-metrics", paper="2403.01218", part="digits", minutes=0.3)
def digits(seed: int, progress: Progress) -> dict[str, float]:
    """A residual network on digits forgets one digit (3, 4, 5 for seeds 1, 2, 3), or a tenth of its rows."""
    train, test = (read_labelled(f"digits:{part}", seed=seed) for part in ("train", "test"))
    measured: dict[str, float] = {}
    progress(0, 7, "original")
    original = trained_resnet(train, seed, EPOCHS)
    for kind, what in (("class", f"class:{(seed + 2) % 10}"), ("random", "random:0.1")):
        split = split_off(train, what, seed)
        splits = UnlearnSplits.of(split, test)
        models = {"original": original}
        for done, (name, own) in enumerate((("retrained", seed), ("again", seed + FAR)), 1):
            progress(done + 3 * (kind == "random"), 7, f"{kind}, {name}")
            models[name] = trained_resnet(split.retain, own, EPOCHS)
        models["fine-tuned"] = edit("ft", original, split.forget, split.retain, seed=seed, **FINE_TUNE)
        reference = measure(models["retrained"], splits, seed=seed)
        for name, model in models.items():
            seen = measure(model, splits, seed=seed)
            found = {m.metric: m.value for m in evaluate(seen, splits, reference)}
            measured |= {f"{kind} {name} {metric}": float(found[metric] or 0.0) for metric in READ}
            measured[f"{kind} {name} average gap"] = float(found["average_gap"] or 0.0)
            spread = {part: entropy(logits.double().softmax(1).numpy()) for part, logits in seen.logits.items()}
            measured[f"{kind} {name} sides exchanged"] = mia_entropy(spread["test"], spread["retain"], spread["forget"])
    return measured


@digits.claims
def digits_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What each metric must say of models whose past is known."""
    member = {name: m[f"class {name} mia_member_rate"] for name in ("original", "fine-tuned", "retrained")}
    yield Claim(
        text="The entropy attack sees what was trained on (member rate of a digit, original less retrained)",
        measured=member["original"] - member["retrained"],
        threshold=">= 0.5",
        baselines=member,
    )
    yield Claim(
        text="… and with members and others exchanged it says the opposite",
        measured=m["class original sides exchanged"] - m["class retrained sides exchanged"],
        threshold="<= -0.5",
        kind="ours",
    )
    forget = {name: 1 - m[f"class {name} unlearning_accuracy"] for name in ("original", "fine-tuned", "retrained")}
    yield Claim(
        text="Fine-tuning on the rest does not forget a digit (accuracy on its training rows)",
        measured=forget["fine-tuned"],
        threshold=">= 0.9",
        baselines=forget,
    )
    yield Claim(
        text="Retraining does (accuracy on its training rows)",
        measured=forget["retrained"],
        threshold="<= 0.05",
        baselines={"retained digits, test": m["class retrained test_accuracy"]},
    )
    rate = {name: m[f"random {name} mia_nonmember_rate"] for name in ("original", "fine-tuned", "again")}
    yield Claim(
        text="A tenth at random: the attack on confidence takes few of a retrained model's forget rows for non-members",
        measured=m["random retrained mia_nonmember_rate"],
        threshold=">= 0.03 and <= 0.25",
        baselines=rate,
    )
    yield Claim(
        text="… whose accuracy on them is that on test rows (distance of UA from 1 - TA)",
        measured=(m["random retrained unlearning_accuracy"] - (1 - m["random retrained test_accuracy"])).abs(),
        threshold="<= 0.06",
        baselines={"original": m["random original unlearning_accuracy"]},
    )
    yield Claim(
        text="Two retrained models are nearer to each other than the original is to either (average gap, a digit)",
        measured=m["class again average gap"],
        threshold="<= 0.05",
        kind="ours",
        baselines={name: m[f"class {name} average gap"] for name in ("original", "fine-tuned")},
    )


MODELS = 60
ROWS, FORGOTTEN = 600, 20
POPULATION = {"epochs": 20, "learning_rate": 0.05, "batch_size": 50}


def network() -> Classifier:
    """An untrained network of two layers, 64 to 24 to 10."""
    layers = (torch.nn.Flatten(), torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10))
    return Classifier(torch.nn.Sequential(*layers), head="3", name="a small network")


def close_ones(data: Labelled, seed: int) -> ForgetSplit:
    """Forget a random picture's nearest ones of its class, itself among them."""
    chosen = int(np.random.default_rng([seed, 3]).integers(len(data)))
    inputs = data.batch()[0].flatten(1)
    distance = (inputs - inputs[chosen]).norm(dim=1)
    distance[data.labels != data.labels[chosen]] = torch.inf
    forget = torch.zeros(len(data), dtype=torch.bool)
    forget[distance.argsort()[:FORGOTTEN]] = True
    parts = [data.subset(rows.nonzero()[:, 0]) for rows in (forget, ~forget)]
    return ForgetSplit(parts[0], parts[1], "rows")


def pooled(unlearned: NDArray[np.float64], unseen: NDArray[np.float64]) -> float:
    """The attack with one pair of normals for all rows."""
    return float(u_lira(unlearned.reshape(-1, 1), unseen.reshape(-1, 1))[0])


@digits.part("ensembles", minutes=0.5)
def ensembles(seed: int, progress: Progress) -> dict[str, float]:
    """Sixty networks that saw twenty pictures, and twice as many that did not: does an attack tell them apart?"""
    split = close_ones(read_labelled(f"digits:train[0:{ROWS}]", seed=seed), seed)
    populations = {}
    for done, (name, data, count, first) in enumerate(
        (("original", split.train, MODELS, 0), ("unseen", split.retain, 2 * MODELS, FAR))
    ):
        progress(done, 2, name)
        made = cached_ensemble(network(), data, count, seed=seed * 10 * FAR + first, **POPULATION)  # type: ignore[arg-type]
        populations[name] = made.margins(split.forget).double().numpy()
    original, oracle, second = populations["original"], *np.split(populations["unseen"], 2)
    return {
        "original": float(u_lira(original, oracle).mean()),
        "oracle": float(u_lira(second, oracle).mean()),
        "pooled original": pooled(original, oracle),
        "pooled oracle": pooled(second, oracle),
        "original at 1 %": u_lira_tpr(original, oracle),
        "oracle at 1 %": u_lira_tpr(second, oracle),
    }


@ensembles.claims
def ensembles_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What a row's own attack sees, and a pooled one does not."""
    yield Claim(
        text="U-LiRA tells models that saw the rows from models that did not (accuracy)",
        measured=m["original"],
        threshold=">= 0.80",
        baselines={"found at 1 % false alarms": m["original at 1 %"]},
    )
    yield Claim(
        text="… and two populations that never saw them are alike to it",
        measured=m["oracle"],
        threshold=">= 0.44 and <= 0.56",
        baselines={"found at 1 % false alarms": m["oracle at 1 %"]},
    )
    yield Claim(
        text="Pooled over rows the attack is much weaker (accuracy per row less pooled)",
        measured=m["original"] - m["pooled original"],
        threshold=">= 0.1",
        kind="ours",
        baselines={"pooled": m["pooled original"], "pooled, never seen": m["pooled oracle"]},
    )
