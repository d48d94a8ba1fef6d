"""Label-agnostic forgetting (arXiv 2404.00506): features alone say enough to forget a class.

A small convolutional network for handwritten digits, whose last features are linear as the paper's are. It is to forget
a digit, a part of five digits, or rows with wrong labels; no label is read while it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from demur.data.labelled import ForgetSplit, Labelled, split_off
from demur.data.labelled_sources import read_labelled
from demur.editing import edit
from demur.models.classifier import Classifier
from demur.models.descent import cross_entropies, descend
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

EPOCHS, RATE, BATCH = 15, 1e-3, 32
STEPS, VAE_STEPS = 400, 400
LR_UNLEARN, LR_ALIGN, TEMPERATURE = 5e-4, 1e-3, 20.0
TIE = 1e-6  # where it starts, the second loss has no gradient but rounding noise
LABELLED = 100
REMOVED, NOISY = 0.4, 0.6
ARMS: dict[str, dict[str, float | int]] = {
    "LAF": {},
    "LAF+R": {"repair": LABELLED},
    "first loss only": {"lr_align": 0.0},
    "second loss only": {"lr_unlearn": TIE},
}


def new_network(seed: int) -> Classifier:
    """Two convolutions, 64 linear features and a head, untrained."""
    torch.manual_seed(seed)
    layers = [
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 64), nn.Linear(64, 10)),
    ]
    return Classifier(nn.Sequential(*layers), head="8", name="digits network")


def trained(data: Labelled, seed: int) -> Classifier:
    """The network, trained with Adam."""
    model = new_network(seed)
    return descend(
        model,
        lambda epoch: cross_entropies(model, data, BATCH, (seed, epoch)),
        epochs=EPOCHS,
        learning_rate=RATE,
        optimizer="adam",
        weight_decay=0.0,
    )


def accuracy(model: Classifier, data: Labelled) -> float:
    """Share of rows whose class it tells."""
    return float((model.predict(data).argmax(1) == data.labels).float().mean())


def attack_accuracy(model: Classifier, split: ForgetSplit, test: Labelled, seed: int) -> float:
    """How often an attack on the sorted probabilities tells forget rows from as many test rows.

    It learns from as many retain rows as there are forget rows, and from the other test rows (the paper's ASR, with
    scikit-learn's boosted trees).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    generator = np.random.default_rng([seed, 41])
    probabilities = [
        np.sort(model.predict(data).softmax(1).numpy(), axis=1)[generator.permutation(len(data))]
        for data in (split.retain, test, split.forget)
    ]
    size = min(len(split.forget), len(test) // 2)
    known, unknown, asked = probabilities[0][:size], probabilities[1], probabilities[2][:size]
    fit = np.concatenate([known, unknown[size:]])
    attack = HistGradientBoostingClassifier(max_iter=100, random_state=seed)
    with threadpool_limits(1):  # for so few rows, threads only wait for each other
        attack.fit(fit, np.repeat([1, 0], [len(known), len(unknown) - size]))
        right = attack.predict(np.concatenate([asked, unknown[:size]])) == np.repeat([1, 0], [len(asked), size])
    return float(right.mean())


def examine(
    model: Classifier, split: ForgetSplit, tests: dict[str, Labelled], members: Labelled, seed: int
) -> dict[str, float]:
    """Accuracies on both training parts and on test sets, and the attack's."""
    sets = {"forget": split.forget, "retain": split.retain, **tests}
    accuracies = {name: accuracy(model, data) for name, data in sets.items()}
    return accuracies | {"attack": attack_accuracy(model, split, members, seed)}


def compare(
    split: ForgetSplit,
    tests: dict[str, Labelled],
    unseen: Labelled,
    arms: dict[str, dict[str, float | int]],
    seed: int,
    progress: Progress,
) -> dict[str, float]:
    """The model before, one trained without the forget rows, and what each arm made of the former."""
    progress(0, len(arms) + 2, "training")
    models = {"before": trained(split.train, seed), "retrained": trained(split.retain, seed)}
    for done, (arm, options) in enumerate(arms.items()):
        progress(2 + done, len(arms) + 2, arm)
        models[arm] = edit(
            "laf",
            models["before"],
            split.forget,
            split.retain,
            seed=seed,
            **{
                "steps": STEPS,
                "vae_steps": VAE_STEPS,
                "lr_unlearn": LR_UNLEARN,
                "lr_align": LR_ALIGN,
                "temperature": TEMPERATURE,
                **options,
            },
        )
    return {
        f"{name} {what}": value
        for name, model in models.items()
        for what, value in examine(model, split, tests, unseen, seed).items()
    }


@study("laf", paper="2404.00506", minutes=1, seeds=(1, 2, 3), part="class")
def one_digit(seed: int, progress: Progress) -> dict[str, float]:
    """Forgetting one of ten handwritten digits: seed 1 forgets the zeros."""
    digit = seed - 1
    train, test = read_labelled("digits:train", seed=digit), read_labelled("digits:test", seed=digit)
    split, apart = split_off(train, f"class:{digit % 10}"), split_off(test, f"class:{digit % 10}")
    tests = {"test of the digit": apart.forget, "test of the others": apart.retain}
    return compare(split, tests, apart.retain, ARMS, digit, progress)


@one_digit.claims
def class_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of removing a class, and which of its two losses does it at this size."""

    def of(arm: str, name: str) -> pd.Series:
        return m[f"{arm} {name}"]

    every = ("before", "retrained", *ARMS)
    for name, what in (("forget", "in training"), ("test of the digit", "in the test set")):
        yield Claim(
            text=f"Without a label the digit is forgotten (accuracy on it {what})",
            measured=of("LAF", name),
            threshold="<= 0.02",
            baselines={arm: of(arm, name) for arm in every if arm != "LAF"},
        )
    yield Claim(
        text="and the other digits are not (accuracy lost on the test set)",
        measured=of("before", "test of the others") - of("LAF", "test of the others"),
        threshold="<= 0.04",
        baselines={arm: of(arm, "test of the others") for arm in every},
    )
    yield Claim(
        text="The loss on distributions alone destroys the model (accuracy on the rows to keep)",
        measured=of("first loss only", "retain"),
        threshold="<= 0.3",
        baselines={arm: of(arm, "retain") for arm in every if arm != "first loss only"},
    )
    yield Claim(
        text="An attack on its answers tells members no better than on the retrained model's (accuracy above it)",
        measured=of("LAF", "attack") - of("retrained", "attack"),
        threshold="<= 0.1",
        kind="ours",
        baselines={arm: of(arm, "attack") for arm in every},
    )


@one_digit.part("data", minutes=0.5)
def part_of_five(seed: int, progress: Progress) -> dict[str, float]:
    """Forgetting four in ten pictures of the digits five to nine: reported as it comes out."""
    seed -= 1
    train, test = read_labelled("digits:train", seed=seed), read_labelled("digits:test", seed=seed)
    split = _drawn(train, train.labels >= 5, REMOVED, seed)
    return compare(split, {"test": test}, test, {"LAF": {}}, seed, progress)


@part_of_five.claims
def data_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """No more than that the model survives: rows whose like are kept hardly change."""
    yield _cost(m, "Forgetting rows whose like are kept costs the test set little", ("LAF",))


@one_digit.part("noise", minutes=0.5)
def wrong_labels(seed: int, progress: Progress) -> dict[str, float]:
    """Forgetting rows with wrong labels, six in ten of the digits nought to four."""
    seed -= 1
    train, test = read_labelled("digits:train", seed=seed), read_labelled("digits:test", seed=seed)
    right = _drawn(train, train.labels < 5, NOISY, seed)
    generator = np.random.default_rng([seed, 43])
    shift = torch.as_tensor(generator.integers(1, 10, size=len(right.forget)))
    wrong = right.forget.with_labels((right.forget.labels + shift) % 10)
    split = ForgetSplit(wrong, right.retain, "random")
    return compare(split, {"test": test}, test, {"LAF": {}, "LAF+R": {"repair": LABELLED}}, seed, progress)


@wrong_labels.claims
def noise_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """No more than that the model survives: the paper's gain on the test set does not show at this size."""
    yield _cost(m, "Forgetting rows with wrong labels costs the test set little", ("LAF", "LAF+R"))


def _cost(m: pd.DataFrame, text: str, arms: tuple[str, ...]) -> Claim:
    every = ("before", "retrained", *arms)
    shown = {"test": "test set", "forget": "forget rows", "retain": "retain rows", "attack": "attack"}
    return Claim(
        text=f"{text} (accuracy lost)",
        measured=m["before test"] - m["LAF test"],
        threshold="<= 0.04",
        kind="ours",
        baselines={f"{name}, {arm}": m[f"{arm} {key}"] for key, name in shown.items() for arm in every},
    )


def _drawn(data: Labelled, among: Tensor, share: float, seed: int) -> ForgetSplit:
    """A share of each class among some rows is to be forgotten."""
    generator = np.random.default_rng([seed, 42])
    gone = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels[among].unique():
        rows = (data.labels == label).nonzero()[:, 0]
        gone[rows[torch.as_tensor(generator.permutation(len(rows))[: round(share * len(rows))])]] = True
    forget, retain = gone.nonzero()[:, 0], (~gone).nonzero()[:, 0]
    return ForgetSplit(data.subset(forget, "the forget set"), data.subset(retain, "the retain set"), "random")
