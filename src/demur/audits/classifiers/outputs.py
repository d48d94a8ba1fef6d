"""How a forgetting classifier's outputs compare with those of one that was trained without the rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.editing.ensembles import margins
from demur.errors import UsageError

__all__ = [
    "activation_distance",
    "average_gap",
    "margins",
    "output_kl",
    "prediction_agreement",
    "tug_of_war",
    "zero_retrain_forgetting",
]


def tug_of_war(found: Mapping[str, float], wanted: Mapping[str, float]) -> float:
    """ToW = Π (1 - |a - a'|) over accuracy on forget, retain and test rows; 1 is perfect (arXiv 2406.01257).

    Args:
        found: "forget", "retain" and "test" accuracy of the edited model, in [0, 1].
        wanted: of the retrained one.

    Raises:
        UsageError: one of them is missing, or is no share.
    """
    for name in ("forget", "retain", "test"):
        for side in (found, wanted):
            if name not in side or not 0 <= side[name] <= 1:
                raise UsageError(f"tug of war needs the accuracy {name!r} as a share of 1 on both sides")
    return float(np.prod([1 - abs(found[name] - wanted[name]) for name in ("forget", "retain", "test")]))


def average_gap(found: Mapping[str, float], wanted: Mapping[str, float]) -> float:
    """Mean distance to the retrained model over the metrics that both have, in their unit.

    Raises:
        UsageError: the two do not have the same metrics.
    """
    if found.keys() != wanted.keys() or not found:
        raise UsageError(f"the metrics differ: {', '.join(found)} and {', '.join(wanted)}")
    return float(np.mean([abs(found[name] - wanted[name]) for name in found]))


def zero_retrain_forgetting(probabilities: Tensor, untrained: Tensor, compat: bool = False) -> float:
    """ZRF = 1 - mean Jensen-Shannon divergence to an untrained network's outputs (Chundawat et al. 2023).

    1 means that the model behaves on the rows as if drawn at random. Only the difference to a retrained model's says
    anything.

    Args:
        probabilities: (rows, classes) of the edited model.
        untrained: (rows, classes) of a randomly initialised network.
        compat: as commonly copied code computes it: the divergences the other way round, averaged over classes too.
    """
    middle = (probabilities + untrained) / 2
    parts = []
    for p in (probabilities, untrained):
        if compat:
            parts.append(torch.xlogy(middle, middle) - middle * p.log())
        else:
            parts.append(torch.xlogy(p, p) - torch.xlogy(p, middle))
    both = (parts[0] + parts[1]) / 2
    return float(1 - (both.mean() if compat else both.sum(1).mean()))


def activation_distance(probabilities: Tensor, retrained: Tensor) -> float:
    """Mean Euclidean distance between two models' (rows, classes) probabilities."""
    return float((probabilities - retrained).norm(dim=1).mean())


def prediction_agreement(logits: Tensor, retrained: Tensor) -> float:
    """Share of the rows on which two models' (rows, classes) logits name the same class."""
    return float((logits.argmax(1) == retrained.argmax(1)).double().mean())


def output_kl(logits: Tensor, retrained: Tensor) -> float:
    """Mean KL(retrained ‖ model) of the classes' probabilities in nats, of (rows, classes) logits."""
    return float(F.kl_div(logits.log_softmax(1), retrained.log_softmax(1), reduction="batchmean", log_target=True))
