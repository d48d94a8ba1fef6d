"""Whether a classifier's features still know what its answers forgot (arXiv 2503.06991).

Answers are quickly changed in the last layer. So the features are compared too: how like a retrained model's they are
(CKA), and what a nearest-neighbour classifier makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from demur.audits.classifiers.measured import UnlearnSplits
from demur.errors import UsageError
from demur.probes.similarity import Estimator, Kernel, cka, knn_predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = [
    "ALL",
    "Aggregate",
    "Representation",
    "RepresentationAudit",
    "harmonic_score",
    "logit_closeness",
    "representation_closeness",
    "top_related_classes",
]

Aggregate = Literal["product", "mean"]

ALL = "all"
_SPLIT_SEED = 2  # of the parts of a set that comes in one piece, as in the paper's code
_TRAIN_SHARE = 0.8


def logit_closeness(found: Mapping[str, float], wanted: Mapping[str, float]) -> float:
    """AGL = Π (1 - |a - a'|) over accuracies: 1 where a model answers as well as the retrained one on every set.

    Args:
        found: set → accuracy of the model, in [0, 1].
        wanted: of the retrained one.

    Raises:
        UsageError: the sets differ.
    """
    _require_same(found, wanted)
    return float(np.prod([1 - abs(found[name] - wanted[name]) for name in found]))


def representation_closeness(
    knn: Mapping[str, float], wanted: Mapping[str, float], similarity: Mapping[str, float], aggregate: Aggregate
) -> float:
    """AGR: (1 - |kNN - kNN'|) · CKA of each set, taken together.

    Args:
        knn: set → k-NN accuracy on the model's features.
        wanted: on the retrained model's.
        similarity: set → CKA of the two models' features; below 0 counts as 0.
        aggregate: "product" over sets, or "mean".

    Raises:
        UsageError: the sets differ, or the aggregate is unknown.
    """
    _require_same(knn, wanted)
    _require_same(knn, similarity)
    if aggregate not in ("product", "mean"):
        raise UsageError(f"aggregate is product or mean, not {aggregate!r}")
    parts = [(1 - abs(knn[name] - wanted[name])) * np.clip(similarity[name], 0, None) for name in knn]
    return float(np.prod(parts) if aggregate == "product" else np.mean(parts))


def harmonic_score(logits: float, representations: float) -> float:
    """H-LR = 2 · AGL · AGR / (AGL + AGR); 0 where either is."""
    return 2 * logits * representations / (logits + representations) if logits and representations else 0.0


def _require_same(found: Mapping[str, float], wanted: Mapping[str, float]) -> None:
    if found.keys() != wanted.keys() or not found:
        raise UsageError(f"both models need the same sets, not {', '.join(found)} and {', '.join(wanted)}")


def top_related_classes(model: Classifier, downstream: Labelled, n: int) -> list[int]:
    """The classes that a model sees most often in other data: to forget them asks most of the features.

    Args:
        model: the trained model; it answers with its own classes.
        downstream: pictures of other classes; their labels are not read.
        n: how many.

    Returns:
        Class numbers, the most frequent first, the lower first where two are as frequent.

    Raises:
        UsageError: n is below 1 or above the number of classes.
    """
    if not 1 <= n <= model.classes:
        raise UsageError(f"{n} classes cannot be picked: {model.name} has {model.classes}")
    counts = np.bincount(model.predict(downstream).argmax(1).numpy(), minlength=model.classes)
    return [int(number) for number in np.argsort(-counts, kind="stable")[:n]]


@dataclass(frozen=True)
class _Look:
    """One model's features and what its answers are worth.

    Attributes:
        features: set → (rows, features).
        correct: set → (rows,) whether the model's own answer is right.
        layers: layer → (training rows, features).
    """

    features: Mapping[str, NDArray[np.float32]]
    correct: Mapping[str, NDArray[np.bool_]]
    layers: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Representation:
    """What was found of one model.

    Attributes:
        correct: set → (rows,) whether the model's own answer is right; "forget", "retain", "test" and, where whole
            classes are forgotten, "forget_test".
        knn_correct: "forget", "retain" or a downstream set → (test rows,) whether the neighbours' answer is right.
        knn_retrained: the same sets → k-NN accuracy on the retrained model's features.
        accuracy_retrained: set → accuracy of the retrained model.
        cka_retrained: set, "all" for all training rows → CKA with the retrained model's features.
        cka_original: the same with those of the model before; empty without it.
        cka_layers: layer → CKA with the retrained model's there, on all training rows.
        aggregate: how AGR takes sets together.
        rows: set → its rows.
    """

    correct: Mapping[str, NDArray[np.bool_]]
    knn_correct: Mapping[str, NDArray[np.bool_]]
    knn_retrained: Mapping[str, float]
    accuracy_retrained: Mapping[str, float]
    cka_retrained: Mapping[str, float]
    cka_original: Mapping[str, float]
    cka_layers: Mapping[str, float]
    aggregate: Aggregate
    rows: Mapping[str, int]

    @cached_property
    def accuracy(self) -> dict[str, float]:
        """Set → accuracy of the model."""
        return {name: float(hits.mean()) for name, hits in self.correct.items()}

    @cached_property
    def knn(self) -> dict[str, float]:
        """Set → k-NN accuracy on the model's features."""
        return {name: float(hits.mean()) for name, hits in self.knn_correct.items()}

    @property
    def agl(self) -> float:
        """Closeness of the answers to the retrained model's."""
        return logit_closeness(self.accuracy, self.accuracy_retrained)

    @property
    def agr(self) -> float:
        """Closeness of the features to the retrained model's, over the sets that have a k-NN accuracy."""
        similarity = {name: self.cka_retrained[name] for name in self.knn}
        return representation_closeness(self.knn, self.knn_retrained, similarity, self.aggregate)

    @property
    def h_lr(self) -> float:
        """Both."""
        return harmonic_score(self.agl, self.agr)

    @property
    def summary(self) -> dict[str, float]:
        """Metric → value, as the suite names them."""
        tables = {
            "accuracy": self.accuracy,
            "cka_retrained": self.cka_retrained,
            "cka_original": self.cka_original,
            "cka_layer": self.cka_layers,
            "knn": self.knn,
        }
        return {"agl": self.agl, "agr": self.agr, "h_lr": self.h_lr} | {
            f"{metric}:{name}": value for metric, table in tables.items() for name, value in table.items()
        }


class RepresentationAudit:
    """Compares models with a retrained one, row by row the same sets in the same order.

    Print a second retrained model beside the others: no model can be expected to come nearer. And the original: one
    whose features never changed has its numbers.

    Args:
        splits: rows to forget, rows kept and test rows.
        retrained: never saw the forget rows.
        original: the model before; None for no comparison with it.
        downstream: sets of other tasks by name, to see what else the features are still good for.
        k: neighbours.
        kernel, estimator, batch: of CKA, see `probes.cka`.
        aggregate: how AGR takes sets together.
        layers: names of modules whose outputs are compared too, averaged over places.
        nearest: metric of the neighbours.

    Raises:
        UsageError: a downstream set has the name of one of the four sets, or too few rows.
    """

    def __init__(
        self,
        splits: UnlearnSplits,
        retrained: Classifier,
        original: Classifier | None = None,
        downstream: Mapping[str, Labelled] | None = None,
        *,
        k: int = 5,
        kernel: Kernel = "linear",
        estimator: Estimator = "biased",
        batch: int | None = None,
        aggregate: Aggregate = "product",
        layers: Sequence[str] = (),
        nearest: str = "cosine",
    ) -> None:
        self.splits, self.downstream = splits, dict(downstream or {})
        taken = sorted(self.downstream.keys() & {ALL, "forget", "retain", "test", "forget_test"})
        if taken:
            raise UsageError(f"{taken[0]!r} cannot name a downstream set: it is one of the audit's own")
        self.k, self.kernel, self.estimator, self.batch = k, kernel, estimator, batch
        self.aggregate, self.layers, self.nearest = aggregate, tuple(layers), nearest
        self.sets = {**splits.by_name, **self.downstream}
        self._retrained = self._look(retrained)
        self._knn_retrained = {n: float(h.mean()) for n, h in self._neighbours(self._retrained).items()}
        self._original = None if original is None else self._look(original)

    def run(self, model: Classifier) -> Representation:
        """Measure one model, once."""
        look = self._look(model)
        return Representation(
            look.correct,
            self._neighbours(look),
            self._knn_retrained,
            {name: float(hits.mean()) for name, hits in self._retrained.correct.items()},
            self._alignments(look.features, self._retrained.features),
            {} if self._original is None else self._alignments(look.features, self._original.features),
            self._alignments(look.layers, self._retrained.layers),
            self.aggregate,
            {name: len(values) for name, values in look.features.items()},
        )

    def _look(self, model: Classifier) -> _Look:
        features, correct = {}, {}
        for name, data in self.sets.items():
            features[name] = model.features(data).float().numpy()
            if name not in self.downstream:
                correct[name] = (model.predict(data).argmax(1) == data.labels).numpy()
        features[ALL] = np.concatenate([features["retain"], features["forget"]])
        everything = self.splits.retain.joined(self.splits.forget)
        return _Look(features, correct, _layer_features(model, everything, self.layers))

    def _alignments(
        self, own: Mapping[str, NDArray[np.float32]], other: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, float]:
        return {name: cka(own[name], other[name], self.kernel, self.estimator, self.batch) for name in own}

    def _neighbours(self, look: _Look) -> dict[str, NDArray[np.bool_]]:
        """Sets with a test part are told from their training rows, others from four fifths of themselves."""
        pairs = {"forget": "forget_test", "retain": "test"}
        out = {}
        for name in ("forget", "retain", *self.downstream):
            test = pairs.get(name)
            labels, features = self.sets[name].labels.numpy(), look.features[name]
            if test in self.sets:
                known, asked = (features, labels), (look.features[test], self.sets[test].labels.numpy())
            else:
                order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SPLIT_SEED)).numpy()
                first, last = np.split(order, [int(_TRAIN_SHARE * len(order))])
                known, asked = ((features[part], labels[part]) for part in (first, last))
            if not len(asked[1]):
                raise UsageError(f"{self.sets[name].name} has {len(labels)} rows: too few to part them")
            out[name] = knn_predictions(*known, asked[0], self.k, self.nearest) == asked[1]
        return out


@torch.no_grad()
def _layer_features(model: Classifier, data: Labelled, layers: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """(rows, channels) outputs of modules, averaged over places or tokens."""
    if not layers:
        return {}
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    modules = dict(model.module.named_modules())
    for name in layers:
        if name not in modules:
            raise UsageError(f"{model.name} has no module {name!r}: it has {', '.join(filter(None, modules))}")

    def keep(name: str, output: Any) -> None:
        tensor = output if isinstance(output, torch.Tensor) else output[0]
        places = {4: (2, 3), 3: (1,)}.get(tensor.ndim)
        seen[name].append(tensor if places is None else tensor.mean(places))

    hooks = [
        modules[name].register_forward_hook(lambda _module, _given, output, name=name: keep(name, output))
        for name in layers
    ]
    try:
        model.predict(data)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts).float().numpy() for name, parts in seen.items()}
