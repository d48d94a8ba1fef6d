"""The rows that an audit of a classifier looks at, and what one model says of them: each row is put to it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demur.audits.classifiers.relearning import Relearning, relearn
from demur.editing.finetune import fresh
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.data.labelled import ForgetSplit, Labelled
    from demur.models.classifier import Classifier

__all__ = ["Measured", "UnlearnSplits", "measure"]


@dataclass(frozen=True)
class UnlearnSplits:
    """Four sets of rows.

    Attributes:
        forget, retain: the two parts of the training set.
        test: rows never trained on; where whole classes are forgotten, of the classes that stay.
        forget_test: test rows of the forgotten classes.
    """

    forget: Labelled
    retain: Labelled
    test: Labelled
    forget_test: Labelled | None = None

    def __post_init__(self) -> None:
        for name in ("forget", "retain", "test"):
            if not len(getattr(self, name)):
                raise UsageError(f"an audit of a classifier needs {name} rows")
        # Sets from different files number their rows alike: the same row has the same inputs too.
        places = {int(number): place for place, number in enumerate(self.retain.ids)}
        pairs = [(mine, places[int(n)]) for mine, n in enumerate(self.forget.ids) if int(n) in places]
        if pairs and self.forget.inputs.shape[1:] == self.retain.inputs.shape[1:]:
            mine, theirs = (torch.tensor(side) for side in zip(*pairs, strict=True))
            same = (self.forget.inputs[mine] == self.retain.inputs[theirs]).flatten(1).all(1)
            if same.any():
                raise UsageError(f"row {int(self.forget.ids[mine[same]][0])} is to be forgotten and to be kept")

    @classmethod
    def of(cls, split: ForgetSplit, test: Labelled) -> UnlearnSplits:
        """The parts of a training set beside a test set, whose rows of forgotten classes are set apart."""
        gone = torch.isin(test.labels, _gone(split.forget, split.retain))
        kept = test.subset((~gone).nonzero()[:, 0])
        return cls(split.forget, split.retain, kept, test.subset(gone.nonzero()[:, 0]) if gone.any() else None)

    @property
    def by_name(self) -> dict[str, Labelled]:
        """The sets that there are."""
        sets = {"forget": self.forget, "retain": self.retain, "test": self.test}
        return sets if self.forget_test is None else {**sets, "forget_test": self.forget_test}

    @property
    def left(self) -> Tensor:
        """Classes that are forgotten as a whole and yet in `test`."""
        gone = _gone(self.forget, self.retain)
        return gone[torch.isin(gone, self.test.labels)]

    @property
    def whole_classes(self) -> bool:
        """Whether a class is forgotten as a whole."""
        return len(_gone(self.forget, self.retain)) > 0


def _gone(forget: Labelled, retain: Labelled) -> Tensor:
    found = forget.labels.unique()
    return found[~torch.isin(found, retain.labels)]


@dataclass(frozen=True)
class Measured:
    """What one model says.

    Attributes:
        name: of the model.
        logits: set → (rows, classes).
        untrained: (forget rows, classes) logits of the same architecture with weights as drawn.
        relearning: how it comes back to the forget rows; None where that was not asked.
        seconds: what it took to make it forget; None where that is not known.
    """

    name: str
    logits: Mapping[str, Tensor]
    untrained: Tensor
    relearning: Relearning | None = None
    seconds: float | None = None


def measure(
    model: Classifier,
    splits: UnlearnSplits,
    *,
    relearn_steps: int = 0,
    relearn_rate: float = 0.01,
    seed: int = 0,
    seconds: float | None = None,
) -> Measured:
    """Put every row to a model once.

    Args:
        model: left as it is.
        splits: the rows.
        relearn_steps: steps of training on all training rows, to see how soon the forget rows come back; 0 for none.
        relearn_rate: their learning rate.
        seed: of the untrained network and of relearning.
        seconds: what it took to make it forget; the model's own facts by default.
    """
    logits = {name: model.predict(rows) for name, rows in splits.by_name.items()}
    untrained = fresh(model, seed).predict(splits.forget)
    way = None
    if relearn_steps:
        everything = splits.retain.joined(splits.forget)
        way = relearn(model, everything, splits.forget, steps=relearn_steps, learning_rate=relearn_rate, seed=seed)
    return Measured(model.name, logits, untrained, way, model.facts.get("seconds") if seconds is None else seconds)
