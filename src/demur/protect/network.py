"""The same first-order deletions for torch modules: damped curvature, and two backward passes for the slope in x."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jvp, vjp, vmap

from demur.errors import DemurError, UsageError
from demur.protect.linear import signs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]
    Rows = NDArray[np.intp]

__all__ = ["Network", "NetworkDeletion", "logistic_loss", "train_network"]

_DENSE = 2000  # parameters up to which the curvature is kept as a matrix
_CG_STEPS, _CG_TOLERANCE = 500, 1e-8


def logistic_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """(n,) log(1 + exp(−y f)) of (n,) scores and labels −1 and +1; cross entropy, where the score is a log-odds."""
    return nn.functional.softplus(-labels * scores)


@dataclass
class Network:
    """A torch module and what it was trained to minimise: the mean loss + ridge/2 ‖θ‖².

    Attributes:
        module: gives (m,) or (m, 1) scores, or (m, 2) logits whose difference is the score.
        loss: (n,) scores and (n,) labels −1 and +1 to (n,) losses.
        ridge: λ on all weights that `last_layer` leaves in play.
        curvature: "gauss-newton", which is never negative, or "hessian", which is exact at a minimum.
        last_layer: let deletions move the last linear layer alone.
        retrain: takes (n,) weights of the rows, 0 for those deleted, and gives a module; by default the present one is
            trained on by L-BFGS.
    """

    module: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor] = logistic_loss
    ridge: float = 0.0
    curvature: str = "gauss-newton"
    last_layer: bool = False
    retrain: Callable[[Tensor], nn.Module] | None = None


def train_network(
    X: ArrayLike, y: ArrayLike, widths: Sequence[int] = (10, 10), ridge: float = 3e-3, seed: int = 0, steps: int = 120
) -> Network:
    """Train a small network of tanh layers, to be trained again from the same first weights.

    Args:
        X: (n, features).
        y: (n,) labels of two values; the larger is the favourable one.
        widths: of the hidden layers.
        ridge: λ on all weights.
        seed: decides the first weights.
        steps: of L-BFGS over all rows.
    """
    points, labels = torch.as_tensor(np.asarray(X, float)), torch.as_tensor(signs(y))
    sizes = [points.shape[1], *widths, 1]
    known: dict[bytes, nn.Module] = {}

    def train(weights: Tensor) -> nn.Module:
        key = weights.numpy().tobytes()
        if key in known:  # rows that go for several people at once
            return known[key]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b).double(), nn.Tanh())]
        module = nn.Sequential(*layers[:-1])
        optimizer = torch.optim.LBFGS(
            module.parameters(), max_iter=steps, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            decay = torch.stack([(weight**2).sum() for weight in module.parameters()]).sum()
            loss = (weights * logistic_loss(module(points)[:, 0], labels)).mean() + ridge / 2 * decay
            loss.backward()
            return loss

        optimizer.step(closure)
        known[key] = module
        return module

    return Network(train(torch.ones(len(points), dtype=torch.float64)), ridge=ridge, retrain=train)


class NetworkDeletion:
    """A network's score and the first-order effect on it of every training row.

    Args:
        network: the module with its loss.
        X: (n, features) its training rows.
        y: (n,) their labels.
        damping: added to the curvature's diagonal; training that stopped early needs some, 1e-3 to 1e-2.

    Raises:
        UsageError: the module gives something else than scores or two logits, or the curvature is singular or not
            positive.
    """

    linear = False

    def __init__(self, network: Network, X: ArrayLike, y: ArrayLike, damping: float = 0.0) -> None:
        if network.curvature not in ("gauss-newton", "hessian"):
            raise UsageError(f"curvature {network.curvature!r}: give gauss-newton or hessian")
        self.network, self.damping = network, damping
        self.module = copy.deepcopy(network.module).double().eval().requires_grad_(False)
        self.X = torch.as_tensor(np.asarray(X, float))
        self.y = torch.as_tensor(signs(y))
        self.rows = len(self.X)
        named = dict(self.module.named_parameters())
        chosen = _last_layer(self.module) if network.last_layer else list(named)
        self._shapes = {name: named[name].shape for name in chosen}
        self._weights = [named[name].requires_grad_(True) for name in chosen]
        self._theta = torch.cat([weight.detach().reshape(-1) for weight in self._weights])
        with torch.no_grad():
            found = _score(self.module(self.X[:2]))
        if found.shape != (min(2, self.rows),):
            raise UsageError("the module must give one score or two logits for each row")
        pull = vmap(grad(lambda theta, x, label: network.loss(self._f(theta, x[None]), label[None])[0]), (None, 0, 0))
        self._gradients = pull(self._theta, self.X, self.y)
        self._factor = self._factored() if len(self._theta) <= _DENSE else None
        if self._factor is None and damping + network.ridge <= 0:
            raise UsageError("the curvature of so many weights is singular: pass damping=1e-2")

    def scores(self, points: ArrayLike) -> Array:
        """(m,) scores of (m, features) points."""
        with torch.no_grad():
            return _score(self.module(torch.as_tensor(np.asarray(points, float)))).numpy()

    def gradient(self, x: Array) -> Array:
        """(features,) derivative of the score."""
        point = torch.tensor(x, requires_grad=True)
        return torch.autograd.grad(_score(self.module(point[None]))[0], point)[0].numpy()

    def influence(self, x: Array) -> Array:
        """(n,) a_i(x), by one solve with the curvature."""
        slope = torch.cat([part.reshape(-1) for part in self._slopes(torch.tensor(x))])
        return (self._gradients @ self._solve(slope)).numpy()

    def influence_gradient(self, x: Array, rows: Rows) -> Array:
        """(features,) derivative of Σ a_i(x) over some rows: ∇_x ⟨∇_θ f(x), H⁻¹ Σ g_i⟩, by a second backward pass."""
        if not len(rows):
            return np.zeros(len(x))
        moved = self._named(self._solve(self._gradients[torch.as_tensor(rows.copy())].sum(0))).values()
        point = torch.tensor(x, requires_grad=True)
        along = sum((slope * to).sum() for slope, to in zip(self._slopes(point, True), moved, strict=True))
        return torch.autograd.grad(along, point, materialize_grads=True)[0].numpy()  # type: ignore[arg-type]

    def _slopes(self, point: Tensor, graph: bool = False) -> tuple[Tensor, ...]:
        """∇_θ f at a point, part by part; plain autograd, since torch.func takes milliseconds to set up."""
        score = _score(self.module(point[None]))[0]
        return torch.autograd.grad(score, self._weights, create_graph=graph, materialize_grads=True)

    def without(self, rows: Sequence[int] | Rows) -> Callable[[ArrayLike], Array]:
        """The score function after training again without some rows."""
        weights = torch.ones(self.rows, dtype=torch.float64)
        weights[torch.as_tensor(np.asarray(rows, np.intp).copy())] = 0
        if self.network.retrain is not None:
            module = copy.deepcopy(self.network.retrain(weights)).double().eval()
        else:
            module = self._trained_on(weights)

        def scores(points: ArrayLike) -> Array:
            with torch.no_grad():
                return _score(module(torch.as_tensor(np.asarray(points, float)))).numpy()

        return scores

    def _f(self, theta: Tensor, points: Tensor) -> Tensor:
        return _score(functional_call(self.module, self._named(theta), (points,)))

    def _named(self, theta: Tensor) -> dict[str, Tensor]:
        parts = theta.split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def _objective(self, theta: Tensor, weights: Tensor) -> Tensor:
        losses = self.network.loss(self._f(theta, self.X), self.y)
        return (weights * losses).sum() / self.rows + self.network.ridge / 2 * theta @ theta

    def _second(self) -> Tensor:
        """(n,) second derivative of each row's loss in its score."""
        scores = self._f(self._theta, self.X)
        return vmap(grad(grad(lambda s, label: self.network.loss(s[None], label[None])[0])))(scores, self.y)

    def _factored(self) -> Tensor:
        if self.network.curvature == "hessian":
            ones = torch.ones(self.rows, dtype=torch.float64)
            matrix = hessian(lambda theta: self._objective(theta, ones))(self._theta)
        else:
            slopes = vmap(grad(lambda theta, x: self._f(theta, x[None])[0]), (None, 0))(self._theta, self.X)
            matrix = (slopes.T * self._second()) @ slopes / self.rows
            matrix.diagonal().add_(self.network.ridge)
        matrix.diagonal().add_(self.damping)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        edge = factor.diagonal()
        if failed or edge.min() ** 2 <= 1e-12 * edge.max() ** 2:
            raise UsageError("the curvature is singular or not positive: pass damping=1e-2, or train longer")
        return factor

    def _solve(self, right: Tensor) -> Tensor:
        if self._factor is not None:
            return torch.cholesky_solve(right[:, None], self._factor)[:, 0]
        return _conjugate_gradients(self._curved, right)

    def _curved(self, vector: Tensor) -> Tensor:
        """The curvature times a vector, without ever being a matrix."""
        added = (self.damping + self.network.ridge) * vector
        if self.network.curvature == "hessian":
            ones = torch.ones(self.rows, dtype=torch.float64)
            slope = grad(lambda theta: self._objective(theta, ones))
            return jvp(slope, (self._theta,), (vector,))[1] + self.damping * vector
        back = vjp(lambda theta: self._f(theta, self.X), self._theta)[1]
        ahead = jvp(lambda theta: self._f(theta, self.X), (self._theta,), (vector,))[1]
        return back(self._second() * ahead / self.rows)[0] + added

    def _trained_on(self, weights: Tensor) -> nn.Module:
        theta = self._theta.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            [theta], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-13, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self._objective(theta, weights)
            loss.backward()
            return loss

        optimizer.step(closure)
        module = copy.deepcopy(self.module)
        module.load_state_dict({**module.state_dict(), **self._named(theta.detach())})
        return module


def _score(out: Tensor) -> Tensor:
    if out.ndim == 2 and out.shape[1] == 2:
        return out[:, 1] - out[:, 0]
    return out[:, 0] if out.ndim == 2 and out.shape[1] == 1 else out


def _last_layer(module: nn.Module) -> list[str]:
    layers = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UsageError("the module has no linear layer: set last_layer=False")
    prefix = f"{layers[-1]}." if layers[-1] else ""
    return [name for name, _ in module.named_parameters() if name.startswith(prefix)]


def _conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    x, rest = torch.zeros_like(right), right.clone()
    way, size = rest.clone(), rest @ rest
    goal = _CG_TOLERANCE**2 * size
    for _ in range(_CG_STEPS):
        if size <= goal:
            return x
        bent = product(way)
        along = way @ bent
        if along <= 0:
            raise UsageError("the curvature is not positive: pass more damping, or curvature='gauss-newton'")
        x, rest = x + size / along * way, rest - size / along * bent
        size, before = rest @ rest, size
        way = rest + size / before * way
    raise DemurError(f"conjugate gradients did not settle in {_CG_STEPS} steps: pass more damping")
