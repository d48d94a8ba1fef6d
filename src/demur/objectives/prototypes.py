"""Class prototypes in feature space: learning new ones, and keeping old ones true without old samples."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Axis", "prototype_alignment", "relation_distillation"]

Axis = Literal["classes", "samples"]


def prototype_alignment(features: Tensor, prototypes: Tensor, labels: Tensor) -> Tensor:
    """Pull each class's prototype towards its features: mean of 1 - cos(f, p_y) (arXiv 2303.14771).

    Args:
        features: (samples, dimensions); no gradient flows into them.
        prototypes: (classes, dimensions).
        labels: (samples,) rows of `prototypes`.

    Returns:
        Scalar loss, differentiable in `prototypes`.

    Raises:
        ValueError: the dimensions differ, or a label has no prototype.
    """
    _check_dimensions(features, prototypes)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(prototypes):
        raise ValueError(f"labels must be rows of the {len(prototypes)} prototypes: count a task's classes from 0")
    return (1 - F.cosine_similarity(features.detach(), prototypes[labels], dim=1)).mean()


def relation_distillation(
    features: Tensor,
    prototypes: Tensor,
    teacher_features: Tensor,
    teacher_prototypes: Tensor,
    temperature: float = 1.0,
    axis: Axis = "classes",
) -> Tensor:
    """Keep how new samples relate to the prototypes of an old task (arXiv 2303.14771).

    L = mean over samples of KL(softmax(S'/T) ‖ softmax(S/T)) with scores S = f · p_c/‖p_c‖ and S' the teacher's.

    Args:
        features: (samples, dimensions) of the model in training, not normalised.
        prototypes: (classes, dimensions) of one old task, which go on training.
        teacher_features, teacher_prototypes: the same under the frozen model; no gradient flows into them.
        temperature: T > 0; what it does depends on the length of the features.
        axis: the softmax runs over the task's classes, as the paper's code has it, or over the samples of the batch;
            then the mean is over the prototypes.

    Returns:
        Scalar loss, differentiable in `features` and `prototypes`.

    Raises:
        ValueError: shapes differ, the temperature is not positive, or the axis is unknown.
    """
    _check_dimensions(features, prototypes)
    if teacher_features.shape != features.shape or teacher_prototypes.shape != prototypes.shape:
        raise ValueError("the teacher's features and prototypes must have the shapes of the model's")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if axis not in ("classes", "samples"):
        raise ValueError(f"axis must be classes or samples, not {axis!r}")
    dim = 1 if axis == "classes" else 0
    now = (features @ F.normalize(prototypes, dim=1).T / temperature).log_softmax(dim)
    then = (teacher_features @ F.normalize(teacher_prototypes, dim=1).T / temperature).detach().log_softmax(dim)
    return F.kl_div(now, then, reduction="sum", log_target=True) / now.shape[1 - dim]


def _check_dimensions(features: Tensor, prototypes: Tensor) -> None:
    if features.ndim != 2 or prototypes.ndim != 2 or features.shape[1] != prototypes.shape[1]:
        shapes = f"{tuple(features.shape)} and {tuple(prototypes.shape)}"
        raise ValueError(f"features and prototypes must be (rows, dimensions) of the same dimensions, not {shapes}")
