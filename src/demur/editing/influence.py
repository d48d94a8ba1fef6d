"""Influence unlearning: one Newton step to where training without the forget rows would have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from demur.editing.registry import PROBABILISTIC, editor
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["Curvature", "conjugate_gradients", "influence", "influence_direction", "running_wood_fisher"]

Curvature = Literal["fisher", "hessian"]
Losses = Callable[[Tensor, Tensor], Tensor]
"""(parameters,) weights and (rows,) row numbers to (rows,) losses."""


def influence_direction(
    losses: Losses,
    weights: Tensor,
    forget: Tensor,
    retain: Tensor,
    *,
    around: Tensor | None = None,
    curvature: Curvature = "fisher",
    damping: float = 1.0,
    iterations: int = 50,
    tolerance: float = 1e-5,
    batch_size: int = 64,
) -> Tensor:
    """Where the weights would go if the forget rows had not been trained on: (Ĥ + λ)⁻¹ (g_f - g_r).

    g_f = Σ_forget ∇ℓ / N and g_r = N_f/(N N_r) Σ_retain ∇ℓ: their difference is what removing the rows adds to the
    gradient. For a loss that is quadratic in the weights, with the Hessian around the retain rows and λ its L2
    penalty, this is the way to the exact solution without them.

    Args:
        losses: of single rows.
        weights: (parameters,) where training ended.
        forget: (N_f,) row numbers.
        retain: (N_r,) row numbers.
        around: rows where the curvature is measured; the retain rows by default.
        curvature: Ĥ as the mean outer product of single gradients ("fisher"), or as the second derivative ("hessian").
        damping: λ > 0.
        iterations, tolerance: of the conjugate gradients.
        batch_size: rows at once, a matter of memory.

    Returns:
        (parameters,) the direction; added to the weights as it is, it is a full Newton step.
    """
    around = retain if around is None else around

    def total(given: Tensor, rows: Tensor, scale: Tensor | None = None) -> Tensor:
        each = losses(given, rows)
        return (each if scale is None else each * scale).sum()

    slope = torch.func.grad(total)

    def of_fisher(vector: Tensor, rows: Tensor) -> Tensor:
        along = torch.func.jvp(lambda given: losses(given, rows), (weights,), (vector,))[1]
        return slope(weights, rows, along)

    def of_hessian(vector: Tensor, rows: Tensor) -> Tensor:
        return torch.func.jvp(lambda given: slope(given, rows), (weights,), (vector,))[1]

    def product(vector: Tensor) -> Tensor:
        of = of_fisher if curvature == "fisher" else of_hessian
        parts = (of(vector, part) for part in around.split(batch_size))
        return sum(parts, torch.zeros_like(vector)) / len(around) + damping * vector

    removed = _removed(losses, weights, forget, retain, batch_size)
    return conjugate_gradients(product, removed, iterations=iterations, tolerance=tolerance)


def _removed(losses: Losses, weights: Tensor, forget: Tensor, retain: Tensor, batch_size: int) -> Tensor:
    """g_f - g_r."""
    slope = torch.func.grad(lambda given, rows: losses(given, rows).sum())

    def gradient(rows: Tensor) -> Tensor:
        return sum((slope(weights, part) for part in rows.split(batch_size)), torch.zeros_like(weights))

    count = len(forget) + len(retain)
    return gradient(forget) / count - gradient(retain) * (len(forget) / (count * len(retain)))


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], vector: Tensor, *, iterations: int = 50, tolerance: float = 1e-5
) -> Tensor:
    """x with A x = v, of a symmetric positive definite A that is known by its products.

    Args:
        product: x → A x.
        vector: (n,) v.
        iterations: at most so many products.
        tolerance: stops when ‖v - A x‖ ≤ tolerance ‖v‖.

    Returns:
        (n,) x; where A has a direction of no positive curvature, what was found before it.
    """
    found, rest = torch.zeros_like(vector), vector.clone()
    way, size = rest.clone(), rest.dot(rest)
    enough = tolerance**2 * size
    for _ in range(iterations):
        if size <= enough:
            break
        changed = product(way)
        bend = way.dot(changed)
        if bend <= 0:
            break
        found = found + size / bend * way
        rest = rest - size / bend * changed
        before, size = size, rest.dot(rest)
        way = rest + size / before * way
    return found


def running_wood_fisher(gradients: Iterable[Tensor], vector: Tensor, samples: int = 1000) -> Tensor:
    """What SalUn's code calls WoodFisher: one running vector in place of a product with the inverse for each gradient.

    Not an inverse: kept to reproduce published numbers. The first gradient only starts the running vector.

    Args:
        gradients: (n,) each, of single rows.
        vector: (n,) v.
        samples: the constant in the denominator.

    Returns:
        (n,) what stands for F⁻¹ v.
    """
    result, running = vector.clone(), None
    for gradient in gradients:
        if running is None:
            running = gradient.clone()
            continue
        overlap = running.dot(gradient)
        result = result - result.dot(gradient) / (samples + overlap) * running
        running = running - overlap / (samples + overlap) * running
    return result


@editor("influence", paper="2304.04934", kinds=PROBABILISTIC)
def influence(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    alpha: float = 0.2,
    samples: int = 1000,
    curvature: Curvature = "fisher",
    damping: float = 1.0,
    iterations: int = 50,
    batch_size: int = 64,
    compat: Literal["salun"] | None = None,
) -> Classifier:
    """Influence unlearning: θ + α (F̂ + λ)⁻¹ (g_f - g_r), in evaluation mode, without a loop of training.

    Args:
        model: the trained model.
        forget, retain: the two parts of the training set.
        seed: which retain rows tell the curvature.
        alpha: length of the step; 1 is Newton's. Published searches go from 1 to 20, for damping 1 is far more than
            the curvature of a trained network.
        samples: how many retain rows tell the curvature.
        curvature, damping, iterations, batch_size: see `influence_direction`.
        compat: "salun" replaces the inverse by that code's running vector over the first `samples` + 2 retain rows,
            without damping.

    Returns:
        A changed copy; `facts` say how far the weights went, as a share of their length.

    Raises:
        UsageError: an option is unknown, or damping is not positive.
    """
    if curvature not in ("fisher", "hessian") or compat not in (None, "salun") or not damping > 0:
        raise UsageError(
            "influence needs curvature fisher or hessian, damping above 0, and compat salun or none, "
            f"not {curvature!r}, {damping} and {compat!r}"
        )
    edited = model.copied()
    data, kept = retain.joined(forget), torch.arange(len(retain))
    left = torch.arange(len(retain), len(data))
    names, sizes = zip(*((name, p.shape) for name, p in edited.module.named_parameters()), strict=True)
    weights = parameters_to_vector(edited.module.parameters()).detach()

    def losses(given: Tensor, rows: Tensor) -> Tensor:
        parts = given.split([size.numel() for size in sizes])
        named = {name: part.view(size) for name, part, size in zip(names, parts, sizes, strict=True)}
        inputs, labels = data.batch(rows)
        return F.cross_entropy(edited.logits_with(named, inputs), labels, reduction="none")

    with edited.evaluating():
        if compat == "salun":
            single = torch.func.grad(lambda given, row: losses(given, row[None]).sum())
            some = torch.func.vmap(single, (None, 0))
            gradients = (one for part in kept[: samples + 2].split(batch_size) for one in some(weights, part))
            removed = _removed(losses, weights, left, kept, batch_size)
            direction = running_wood_fisher(gradients, removed, samples)
        else:
            drawn = torch.as_tensor(np.random.default_rng([seed, 21]).permutation(len(retain))[:samples])
            direction = influence_direction(
                losses,
                weights,
                left,
                kept,
                around=drawn,
                curvature=curvature,
                damping=damping,
                iterations=iterations,
                batch_size=batch_size,
            )
    vector_to_parameters(weights + alpha * direction, edited.module.parameters())
    edited.facts["step"] = float(alpha * direction.norm() / weights.norm())
    return edited
