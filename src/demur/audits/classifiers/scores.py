"""All that is measured of one forgetting classifier beside a retrained one, from outputs that were computed once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from demur.audits.classifiers.attacks import (
    entropy,
    entropy_attack,
    mia_class_threshold,
    mia_loss,
    svm_attack,
)
from demur.audits.classifiers.measured import Measured, UnlearnSplits, measure
from demur.audits.classifiers.relearning import anamnesis_index
from demur.audits.estimates import Estimate, Unavailable
from demur.errors import UsageError
from demur.intervals import bootstrap, bootstrap_mean, wilson
from demur.models.classifier import Classifier
from demur.registry import nearest
from demur.runs import Better

__all__ = ["Measurement", "evaluate", "metric_names"]

Floats = NDArray[np.float64]

ALPHA = 0.1  # share of the accuracy before that may be missing when rows count as known again
_FAR = 0.1  # a rate of members this much below the retrained model's tells that the rows were special


@dataclass(frozen=True)
class Measurement:
    """One number with what it is to be compared with.

    Attributes:
        metric: its name.
        value: the number; None where it could not be computed.
        low, high: ends of its 95 % interval; None where it has none.
        n: rows that went into it.
        better: which direction is good; "reference" means near the retrained model's value.
        method: how the interval was made.
        reference: the retrained model's value; None without one, or where the value itself is a comparison.
        note: what to know about it.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    better: Better = "reference"
    method: str = "none"
    reference: float | None = None
    note: str = ""

    @property
    def gap(self) -> float | None:
        """Distance to the retrained model's value, where nearness to it is what is wanted."""
        if self.better != "reference" or self.value is None or self.reference is None:
            return None
        return abs(self.value - self.reference)


@dataclass(frozen=True)
class _View:
    """One model's outputs as the metrics read them; whatever two metrics need is computed once."""

    measured: Measured
    splits: UnlearnSplits
    seed: int
    original: Measured | None

    def logits(self, name: str) -> Tensor:
        if name not in self.measured.logits:
            raise Unavailable("no test rows of forgotten classes")
        return self.measured.logits[name]

    def labels(self, name: str) -> Tensor:
        return self.splits.by_name[name].labels

    def probabilities(self, name: str) -> Floats:
        return np.asarray(self.logits(name).double().softmax(1))

    def correct(self, name: str) -> Floats:
        return np.asarray((self.logits(name).argmax(1) == self.labels(name)).double())

    def own(self, name: str) -> Floats:
        """The probability of the true label."""
        return self.probabilities(name)[np.arange(len(self.labels(name))), self.labels(name)]

    @cached_property
    def by_confidence(self) -> Floats:
        """1 where the attack on confidence calls a forget row a member."""
        return svm_attack(self.own("retain"), self.own("test"), self.own("forget"), self.seed)

    @cached_property
    def by_entropy(self) -> Floats:
        return entropy_attack(*(entropy(self.probabilities(name)) for name in ("retain", "test", "forget")))


def _share(hits: Floats, note: str = "") -> Estimate:
    low, high = wilson(int(hits.sum()), len(hits))
    return Estimate(float(hits.mean()), low, high, len(hits), method="exact", note=note)


def _mean(values: Floats, seed: int) -> Estimate:
    if len(values) < 2:
        return Estimate(float(values.mean()), n=len(values))
    return Estimate(float(values.mean()), *bootstrap_mean(values, seed=seed), n=len(values), method="bootstrap")


# Metrics of one model


def _unlearning_accuracy(view: _View) -> Estimate:
    return _share(1 - view.correct("forget"))


def _retain_accuracy(view: _View) -> Estimate:
    return _share(view.correct("retain"))


def _test_accuracy(view: _View) -> Estimate:
    left = view.splits.left.tolist()
    note = ""
    if left:
        named = ", ".join(view.splits.test.classes[number] for number in left)
        note = f"the test rows hold class {named}, which was to be forgotten: set it apart as forget_test"
    return _share(view.correct("test"), note)


def _unlearning_accuracy_test(view: _View) -> Estimate:
    return _share(1 - view.correct("forget_test"))


def _mia_nonmember_rate(view: _View) -> Estimate:
    return _share(1 - view.by_confidence)


def _mia_member_rate(view: _View) -> Estimate:
    return _share(view.by_entropy)


def _mia_loss_accuracy(view: _View) -> Estimate:
    splits = view.splits
    like = "forget_test" if splits.forget_test is not None else "test"
    kept = torch.isin(view.labels(like), splits.forget.labels)
    forget, unseen = (
        np.asarray(F.cross_entropy(view.logits(name), view.labels(name), reduction="none").double())
        for name in ("forget", like)
    )
    unseen = unseen[np.asarray(kept)]
    size = min(len(forget), len(unseen))
    if size < 10:
        raise Unavailable(f"the loss attack needs ten rows on either side, not {size}")
    return Estimate(mia_loss(forget, unseen, seed=view.seed), n=2 * size)


def _mia_threshold_member_rate(view: _View) -> Estimate:
    """Half of the test rows set the thresholds, the other half is judged with the forget rows."""
    if view.splits.whole_classes:
        raise Unavailable("a class without retain rows has no threshold")
    odd = np.random.default_rng([view.seed, 5]).permutation(len(view.labels("test"))) % 2 == 1
    own, labels = view.own("test"), view.labels("test").numpy()
    forget = (view.own("forget"), view.labels("forget").numpy())
    shadow = (view.own("retain"), view.labels("retain").numpy())
    try:
        found = mia_class_threshold(shadow, (own[odd], labels[odd]), forget, (own[~odd], labels[~odd]))
    except UsageError as error:
        raise Unavailable(str(error)) from error
    hits = round(found.member_rate * len(forget[0]))
    low, high = wilson(hits, len(forget[0]))
    note = f"of test rows it calls {found.nonmember_rate:.2f} unseen"
    return Estimate(found.member_rate, low, high, len(forget[0]), method="exact", note=note)


def _zero_retrain_forgetting(view: _View) -> Estimate:
    p, q = (np.asarray(z.double().softmax(1)) for z in (view.logits("forget"), view.measured.untrained))
    middle = (p + q) / 2
    return _mean(1 - entropy(middle) + (entropy(p) + entropy(q)) / 2, view.seed)


def _relearn_steps(view: _View) -> Estimate:
    way, wanted = view.measured.relearning, _known_again(view)
    if way is None:
        raise Unavailable("relearning was not asked for")
    found = way.time(accuracy=wanted)
    steps = len(way.accuracy) - 1
    note = f"steps until {wanted:.2f} of the forget rows are right"
    if found is None:
        return Estimate(float(steps + 1), n=len(view.splits.forget), note=f"more than {steps} {note}")
    return Estimate(float(found), n=len(view.splits.forget), note=note)


def _known_again(view: _View) -> float:
    if view.original is None:
        raise Unavailable("it needs the model before it forgot")
    logits = view.original.logits["forget"]
    return (1 - ALPHA) * float((logits.argmax(1) == view.labels("forget")).double().mean())


def _unlearning_seconds(view: _View) -> Estimate:
    if view.measured.seconds is None:
        raise Unavailable("how long it took is not known")
    return Estimate(view.measured.seconds, n=1)


# Metrics of a model beside the retrained one


def _accuracies(view: _View, other: _View, names: Sequence[str]) -> list[Floats]:
    """(rows, 2) for each set: what is right, the model's beside the retrained one's."""
    return [np.stack([view.correct(name), other.correct(name)], 1) for name in names]


def _compared(statistic: Callable[..., Floats], pairs: Sequence[Floats], seed: int) -> Estimate:
    value = float(statistic(*(pair[None] for pair in pairs))[0])
    low, high = bootstrap(statistic, *pairs, seed=seed)
    return Estimate(value, low, high, sum(map(len, pairs)), method="bootstrap")


def _distance(draws: Floats) -> Floats:
    """(draws,) |difference of the two columns' means|."""
    return np.abs(np.diff(draws.mean(1), axis=1))[:, 0]


def _tug_of_war(view: _View, other: _View) -> Estimate:
    pairs = _accuracies(view, other, ("forget", "retain", "test"))
    return _compared(lambda *draws: np.prod([1 - _distance(d) for d in draws], axis=0), pairs, view.seed)


def _tug_of_war_mia(view: _View, other: _View) -> Estimate:
    called = np.stack([view.by_confidence, other.by_confidence], 1)
    pairs = [called, *_accuracies(view, other, ("retain", "test"))]
    return _compared(lambda *draws: np.prod([1 - _distance(d) for d in draws], axis=0), pairs, view.seed)


def _average_gap(view: _View, other: _View) -> Estimate:
    called = np.stack([view.by_confidence, other.by_confidence], 1)
    forget, *kept = _accuracies(view, other, ("forget", "retain", "test"))
    pairs = [np.concatenate([forget, called], 1), *kept]

    def statistic(forget: Floats, *kept: Floats) -> Floats:
        gaps = [_distance(forget[..., :2]), _distance(forget[..., 2:]), *map(_distance, kept)]
        return np.asarray(np.mean(gaps, axis=0))

    return _compared(statistic, pairs, view.seed)


def _activation_distance(view: _View, other: _View) -> Estimate:
    gaps = np.linalg.norm(view.probabilities("forget") - other.probabilities("forget"), axis=1)
    return _mean(gaps, view.seed)


def _agreement(name: str) -> Callable[[_View, _View], Estimate]:
    return lambda view, other: _share(
        np.asarray((view.logits(name).argmax(1) == other.logits(name).argmax(1)).double())
    )


def _output_kl(name: str) -> Callable[[_View, _View], Estimate]:
    def compute(view: _View, other: _View) -> Estimate:
        ours, theirs = (v.logits(name).double().log_softmax(1) for v in (view, other))
        return _mean(np.asarray(F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1)), view.seed)

    return compute


def _anamnesis_index(view: _View, other: _View) -> Estimate:
    ways = view.measured.relearning, other.measured.relearning
    if ways[0] is None or ways[1] is None:
        raise Unavailable("relearning was not asked for")
    found = anamnesis_index(ways[0], ways[1], _known_again(view) / (1 - ALPHA), ALPHA)
    if found is None:
        raise Unavailable("the retrained model knows the rows as it is, or never learns them")
    if np.isinf(found):
        wanted = ways[1].time(accuracy=_known_again(view)) or 1
        return Estimate(len(ways[0].accuracy) / wanted, n=len(view.splits.forget), note="at least")
    return Estimate(found, n=len(view.splits.forget))


_OWN: dict[str, tuple[Callable[[_View], Estimate], Better]] = {
    "unlearning_accuracy": (_unlearning_accuracy, "reference"),
    "retain_accuracy": (_retain_accuracy, "reference"),
    "test_accuracy": (_test_accuracy, "reference"),
    "unlearning_accuracy_test": (_unlearning_accuracy_test, "reference"),
    "mia_nonmember_rate": (_mia_nonmember_rate, "reference"),
    "mia_member_rate": (_mia_member_rate, "reference"),
    "mia_loss_accuracy": (_mia_loss_accuracy, "reference"),
    "mia_threshold_member_rate": (_mia_threshold_member_rate, "reference"),
    "zero_retrain_forgetting": (_zero_retrain_forgetting, "reference"),
    "relearn_steps": (_relearn_steps, "reference"),
    "unlearning_seconds": (_unlearning_seconds, "lower"),
}
_BESIDE: dict[str, tuple[Callable[[_View, _View], Estimate], Better]] = {
    "average_gap": (_average_gap, "lower"),
    "tug_of_war": (_tug_of_war, "higher"),
    "tug_of_war_mia": (_tug_of_war_mia, "higher"),
    "activation_distance": (_activation_distance, "lower"),
    **{f"agreement_{name}": (_agreement(name), "higher") for name in ("forget", "retain", "test")},
    **{f"output_kl_{name}": (_output_kl(name), "lower") for name in ("forget", "retain", "test")},
    "anamnesis_index": (_anamnesis_index, "reference"),
}


def metric_names() -> list[str]:
    """All that `evaluate` can measure."""
    return [*_OWN, *_BESIDE]


def evaluate(
    unlearned: Classifier | Measured,
    splits: UnlearnSplits,
    reference: Classifier | Measured | None = None,
    *,
    original: Classifier | Measured | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Measurement]:
    """Measure a classifier that was made to forget beside one that never saw the rows.

    Args:
        unlearned: the model, or what `measure` found of it: models that are compared often are measured once.
        splits: the rows.
        reference: a model retrained on the retain rows.
        original: the model before it forgot, whose accuracy says when relearning is done.
        metrics: names; by default all that can be measured with what was given.
        seed: of the attacks' draws and of the bootstrap.

    Returns:
        A measurement a metric; one that cannot be computed has no value and a note that says why.

    Raises:
        UsageError: a metric is unknown.
    """
    if len(splits.left):
        warnings.warn("a class that is forgotten as a whole is in the test rows", stacklevel=2)
    before = None if original is None else _measured(original, splits, seed)
    view = _View(_measured(unlearned, splits, seed), splits, seed, before)
    other = None if reference is None else _View(_measured(reference, splits, seed), splits, seed, before)
    names = _possible(view, other) if metrics is None else list(metrics)
    for name in names:
        if name not in _OWN and name not in _BESIDE:
            raise UsageError(f"unknown metric {name!r} of a classifier: {nearest(name, metric_names())}")
    found = []
    for name in names:
        if name in _OWN:
            compute, better = _OWN[name]
            made = _made(name, better, compute, view)
            wanted = None if other is None else _made(name, better, compute, other).value
            found.append(replace(made, reference=wanted))
        elif other is None:
            found.append(Measurement(name, None, better=_BESIDE[name][1], note="no retrained model was given"))
        else:
            found.append(_made(name, _BESIDE[name][1], _BESIDE[name][0], view, other))
    return [_judged(m) for m in found]


def _measured(model: Classifier | Measured, splits: UnlearnSplits, seed: int) -> Measured:
    return measure(model, splits, seed=seed) if isinstance(model, Classifier) else model


def _possible(view: _View, other: _View | None) -> list[str]:
    """What can be measured with what was given."""
    left_out = {"mia_threshold_member_rate"} if view.splits.whole_classes else set()
    if "forget_test" not in view.measured.logits:
        left_out.add("unlearning_accuracy_test")
    if view.measured.relearning is None or view.original is None:
        left_out |= {"relearn_steps", "anamnesis_index"}
    if view.measured.seconds is None:
        left_out.add("unlearning_seconds")
    names = metric_names() if other is not None else list(_OWN)
    return [name for name in names if name not in left_out]


def _made(name: str, better: Better, compute: Callable[..., Estimate], *views: Any) -> Measurement:
    try:
        e = compute(*views)
    except Unavailable as reason:
        return Measurement(name, None, better=better, note=str(reason))
    return Measurement(name, e.value, e.low, e.high, e.n, better, e.method, note=e.note)


def _judged(m: Measurement) -> Measurement:
    """With a word where forgetting goes so far that it gives the rows away."""
    if m.metric != "mia_member_rate" or m.value is None or m.reference is None or m.high is None:
        return m
    if m.high < m.reference and m.reference - m.value > _FAR:
        return replace(m, note="far below the retrained model's: it forgot more than never having seen the rows does")
    return m
