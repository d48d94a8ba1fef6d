"""Attribution from gradients: TRAK for networks, and the infinitesimal jackknife where the loss is convex."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.editing.attribution import Factors
from demur.errors import DemurError, UsageError
from demur.models.descent import tell
from demur.processes import Progress

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["jackknife", "trak"]

Output = Literal["margin", "logits"]
_NUMBERS = 2**20
_MOST_WEIGHTS = 5000


def trak(
    models: Sequence[Classifier],
    data: Labelled,
    targets: Labelled | None = None,
    *,
    output: Output = "logits",
    dimension: int | None = 512,
    ridge: float = 1e-3,
    seed: int = 0,
    progress: Progress = tell,
) -> Factors:
    """TRAK: attribution by models made linear in their weights (Park et al. 2023, arXiv 2303.14186).

    β_i(x) = mean over models of φ(x)ᵀ (ΦᵀΦ + λI)⁻¹ φ_i (1 - p_i), with φ the projected gradient of the margin
    log(p_y / (1 - p_y)), for targets that of each logit instead if asked for. Directions and order are to be trusted,
    the scale is not: set the multiplier of `dmm` on rows whose outcome is known.

    Args:
        models: checkpoints or runs of one training; their attributions are averaged.
        data: the training set.
        targets: rows whose outputs are told; the training set by default.
        output: "margin" of the right class, or all "logits".
        dimension: of the projected gradients; None leaves them whole.
        ridge: λ as a share of the mean diagonal of ΦᵀΦ.
        seed: of the projection.
        progress: called with the models done.

    Returns:
        Two factors: `.save(file)` writes all pairs block by block.

    Raises:
        ValueError: the output is unknown, or there are no models.
    """
    if output not in ("margin", "logits") or not models or not ridge > 0:
        raise ValueError(f"trak needs models, ridge above 0 and output margin or logits, not {output!r}, {ridge:g}")
    told = data if targets is None else targets
    lefts, rights = [], []
    for number, model in enumerate(models):
        project = _projection(model, dimension, seed + number)
        phi = torch.cat([project(g)[:, 0] for g in _gradients(model, data, "margin")])
        gram = phi.T @ phi
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        p = model.predict(data).softmax(1).gather(1, data.labels[:, None])
        lefts.append(torch.linalg.solve(gram, phi, left=False).mul_(1 - p))
        same = output == "margin" and targets is None
        rights.append(phi[:, None] if same else torch.cat([project(g) for g in _gradients(model, told, output)]))
        progress(number + 1, len(models), "gradients")
    return Factors(torch.cat(lefts, 1), torch.cat(rights, 2) / len(models), data.ids.numpy(), told.ids.numpy())


def jackknife(
    model: Classifier,
    data: Labelled,
    targets: Labelled | None = None,
    *,
    decay: float,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Factors:
    """The infinitesimal jackknife: β_i(x) = -∇f(x)ᵀ H⁻¹ ∇ℓ_i, exact to first order where the loss is convex.

    H = ∇² (Σ ℓ + decay/2 ‖θ‖²) at a minimum, in float64; leaving row i out moves θ by H⁻¹ ∇ℓ_i (Giordano et al. 2019,
    arXiv 1806.00550).

    Args:
        model: at the minimum, for instance a linear layer trained to the end.
        data: the training set.
        targets: rows whose logits are told; the training set by default.
        decay: of the squared weights in the sum over rows, not in the mean.
        loss: from (rows, classes) logits and (rows,) labels to (rows,) losses; cross entropy by default.

    Raises:
        UsageError: the model has more than 5,000 weights.
        DemurError: the loss is not convex there.
    """
    parameters = {name: p.detach().double() for name, p in model.module.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]
    if sum(sizes) > _MOST_WEIGHTS:
        raise UsageError(f"{model.name} has {sum(sizes)} weights, too many for a Hessian: use trak")
    losses = loss or (lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"))

    def logits(flat: Tensor, inputs: Tensor) -> Tensor:
        parts = zip(parameters.items(), flat.split(sizes), strict=True)
        return model.logits_with({name: part.view_as(p) for (name, p), part in parts}, inputs)

    flat = torch.cat([p.flatten() for p in parameters.values()])
    inputs, labels = data.batch()
    inputs = inputs.double()
    with model.evaluating():
        hessian = torch.func.hessian(lambda w: losses(logits(w, inputs), labels).sum())(flat)
        gradients = torch.func.jacrev(lambda w: losses(logits(w, inputs), labels))(flat)
        shown = (data if targets is None else targets).batch()[0].double()
        right = torch.func.jacrev(lambda w: logits(w, shown))(flat)
    hessian.diagonal().add_(decay)
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if int(failed):
        raise DemurError(f"the loss of {model.name} is not convex there: train it to the end, give decay, or use trak")
    left = -torch.cholesky_solve(gradients.T, factor).T
    told = data if targets is None else targets
    return Factors(left.float(), right.float(), data.ids.numpy(), told.ids.numpy())


def _gradients(model: Classifier, data: Labelled, output: Output) -> Iterator[Tensor]:
    """(batch, outputs, weights) gradients of each row's margin or logits, in evaluation mode, a batch at a time."""
    weights = {name: p.detach() for name, p in model.module.named_parameters()}
    outputs = 1 if output == "margin" else model.classes
    size = max(1, _NUMBERS // (outputs * sum(w.numel() for w in weights.values())))

    def told(given: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        logits = model.logits_with(given, row[None])[0]
        if output == "logits":
            return logits
        own = torch.arange(len(logits)) == label
        return (logits.where(own, 0).sum() - logits.masked_fill(own, -math.inf).logsumexp(0))[None]

    of_each = torch.func.vmap(torch.func.jacrev(told), (None, 0, 0))
    with model.evaluating():
        for start in range(0, len(data), size):
            grads = of_each(weights, *data.batch(slice(start, start + size)))
            yield torch.cat([g.flatten(2) for g in grads.values()], 2).detach()


def _projection(model: Classifier, dimension: int | None, seed: int) -> Callable[[Tensor], Tensor]:
    """A random map to fewer dimensions that keeps inner products in the mean: each weight, with a random sign, is added
    to one of them. That asks for two numbers a weight, where a dense matrix would ask for one for each pair."""
    if dimension is None:
        return lambda gradients: gradients
    weights = sum(p.numel() for p in model.module.parameters())
    generator = torch.Generator().manual_seed(seed)
    place = torch.randint(dimension, (weights,), generator=generator)
    sign = torch.randint(2, (weights,), generator=generator) * 2.0 - 1

    def project(gradients: Tensor) -> Tensor:
        out = gradients.new_zeros(*gradients.shape[:-1], dimension)
        return out.index_add_(-1, place, gradients * sign)

    return project
