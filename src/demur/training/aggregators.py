"""How a server makes one model of its clients': plain averaging, and four rules meant to leave poisoned clients out.

Each rule takes the clients' tensors and the global model's and says whom it kept. The four are those that Mamun et al.
2025 (arXiv 2508.20333) report as evaded: learning to refuse moves weights too little to stand out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from demur.errors import DemurError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MESAS", "Aggregate", "Aggregator", "AlignIns", "FedAvg", "FreqFed", "MultiKrum", "State", "lora_deltas"]

State = Mapping[str, Tensor]
"""Named tensors: a model's weights, or an adapter's."""


@dataclass(frozen=True)
class Aggregate:
    """What a rule made of a round.

    Attributes:
        state: the new global tensors.
        kept: numbers of the clients that went into it.
    """

    state: dict[str, Tensor]
    kept: list[int]


class Aggregator(Protocol):
    """A rule from the clients' states and the global one to the next global state."""

    def __call__(self, clients: Sequence[State], before: State) -> Aggregate:
        """Aggregate one round; raises UsageError where the rule does not apply to so few clients."""
        ...


def _mean(clients: Sequence[State], kept: Sequence[int]) -> Aggregate:
    if not kept:
        raise DemurError("the aggregator kept no client: its thresholds leave an empty cluster; widen them")
    state = {
        name: torch.stack([clients[i][name].double() for i in kept]).mean(0).to(clients[0][name].dtype)
        for name in clients[0]
    }
    return Aggregate(state, list(kept))


def _updates(clients: Sequence[State], before: State) -> Tensor:
    """(clients, coordinates) what each changed."""
    return torch.stack([torch.cat([(c[n] - before[n]).double().flatten() for n in before]) for c in clients])


def _check(clients: Sequence[State]) -> None:
    if not clients:
        raise UsageError("there are no clients to aggregate")
    if any(c.keys() != clients[0].keys() for c in clients):
        raise UsageError("the clients' tensors have different names: aggregate clients of one model")


class FedAvg:
    """The plain mean of all clients (McMahan et al. 2017, arXiv 1602.05629)."""

    def __call__(self, clients: Sequence[State], before: State) -> Aggregate:
        """Average every client."""
        _check(clients)
        return _mean(clients, range(len(clients)))


@dataclass(frozen=True)
class MultiKrum:
    """The m clients whose nearest neighbours are nearest (Blanchard et al. 2017, arXiv 1703.02757).

    A client's score is the sum of its distances to its n − f − 2 nearest others. The distance is the Euclidean one,
    summed over tensors and not squared, as in the code of arXiv 2508.20333; squared distances rank differently.

    Attributes:
        f: how many clients may be malicious; n ≥ 2f + 3 clients are needed.
        m: how many to keep.
    """

    f: int = 2
    m: int = 3

    def scores(self, clients: Sequence[State]) -> NDArray[np.float64]:
        """(clients,) Krum scores, lower is nearer to the rest.

        Raises:
            UsageError: there are fewer than 2f + 3 clients, or fewer than m.
        """
        _check(clients)
        n = len(clients)
        if self.f < 0 or n < 2 * self.f + 3:
            raise UsageError(f"Krum with f = {self.f} needs at least {2 * self.f + 3} clients (2f + 3), not {n}")
        if not 1 <= self.m <= n:
            raise UsageError(f"Krum cannot keep {self.m} of {n} clients")
        distances = torch.zeros(n, n, dtype=torch.float64)
        for name in clients[0]:
            flat = torch.stack([c[name].double().flatten() for c in clients])
            distances += torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
        ordered = distances.sort(dim=1).values
        nearest: NDArray[np.float64] = ordered[:, 1 : n - self.f - 1].sum(1).numpy()
        return nearest

    def __call__(self, clients: Sequence[State], before: State) -> Aggregate:
        """Average the m clients with the lowest scores; all of them where no score differs."""
        scores = self.scores(clients)
        if (scores == scores[0]).all():
            return _mean(clients, range(len(clients)))
        return _mean(clients, sorted(np.argsort(scores, kind="stable")[: self.m].tolist()))


@dataclass(frozen=True)
class FreqFed:
    """The largest cluster of updates with like low frequencies (Fereidooni et al. 2023, arXiv 2312.04432).

    Each tensor's update goes through an orthonormal cosine transform, of which the low-frequency corner is kept, half
    of the shorter side wide. HDBSCAN clusters the clients by cosine distance.

    Attributes:
        min_cluster_size: smallest cluster.
    """

    min_cluster_size: int = 2

    def features(self, clients: Sequence[State], before: State) -> NDArray[np.float64]:
        """(clients, features) low-frequency coefficients of all tensors."""
        return np.stack(
            [np.concatenate([low_frequencies((c[n] - before[n]).numpy()) for n in before]) for c in clients]
        )

    def __call__(self, clients: Sequence[State], before: State) -> Aggregate:
        """Average the largest cluster, or all clients where there is none."""
        from sklearn.cluster import HDBSCAN

        _check(clients)
        if len(clients) <= self.min_cluster_size:
            return _mean(clients, range(len(clients)))
        found = self.features(clients, before)
        unit = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        distance = np.clip(1.0 - unit @ unit.T, 0.0, 2.0)
        np.fill_diagonal(distance, 0.0)
        clusterer = HDBSCAN(min_cluster_size=self.min_cluster_size, metric="precomputed", copy=True)
        labels = clusterer.fit_predict((distance + distance.T) / 2)
        counts = np.bincount(labels[labels >= 0]) if (labels >= 0).any() else None
        kept = range(len(clients)) if counts is None else np.flatnonzero(labels == counts.argmax()).tolist()
        return _mean(clients, kept)


def low_frequencies(tensor: NDArray[np.floating]) -> NDArray[np.float64]:
    """The corner of low frequencies of a tensor's orthonormal cosine transform, flat.

    Args:
        tensor: a matrix; a vector keeps its lower half, what has more axes is laid out as a matrix.
    """
    from scipy.fft import dctn

    values = np.asarray(tensor, dtype=np.float64)
    values = values.reshape(len(values), -1) if values.ndim > 2 else np.atleast_1d(values)
    side = min(values.shape) // 2
    corner: NDArray[np.float64] = dctn(values, norm="ortho")[(slice(side),) * values.ndim].ravel()
    return corner


@dataclass(frozen=True)
class AlignIns:
    """Clients whose direction and signs are not far from the median's (Xu et al. 2025, arXiv 2503.07978).

    An update's TDA is its cosine to the global model; its MPSA the share, among its largest coordinates, of signs that
    most clients have. A client stays if both lie within so many standard deviations of the median; what stays is cut to
    the median norm and averaged.

    Attributes:
        sparsity: share of coordinates that MPSA looks at.
        lambda_s, lambda_c: most standard deviations from the median for MPSA and for TDA.
    """

    sparsity: float = 0.3
    lambda_s: float = 1.0
    lambda_c: float = 1.0

    def __call__(self, clients: Sequence[State], before: State) -> Aggregate:
        """Add the mean of the kept and cut updates to the global model.

        Raises:
            DemurError: no client is left.
        """
        _check(clients)
        updates = _updates(clients, before)
        whole = torch.cat([before[n].double().flatten() for n in before])
        tda = torch.nn.functional.cosine_similarity(updates, whole[None], dim=1, eps=1e-6)
        majority = updates.sign().sum(0).sign()
        largest = updates.abs().topk(max(1, int(self.sparsity * updates.shape[1])), dim=1).indices
        mpsa = (updates.gather(1, largest).sign() == majority[largest]).double().mean(1)
        inside = (deviations(tda.numpy()) <= self.lambda_c) & (deviations(mpsa.numpy()) <= self.lambda_s)
        kept = np.flatnonzero(inside).tolist()
        if not kept:
            raise DemurError("AlignIns kept no client: raise lambda_s or lambda_c")
        chosen = updates[kept]
        norms = chosen.norm(dim=1)
        cut = chosen * (norms.median() / norms.clamp(min=1e-12)).clamp(max=1.0)[:, None]
        new, at = {}, 0
        for name, old in before.items():
            change = cut.mean(0)[at : at + old.numel()].view(old.shape)
            new[name], at = (old.double() + change).to(old.dtype), at + old.numel()
        return Aggregate(new, kept)


def deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) distance of each value from the median, in standard deviations of them all."""
    spread: NDArray[np.float64] = np.abs(values - np.median(values)) / (np.std(values) + 1e-12)
    return spread


@dataclass(frozen=True)
class MESAS:
    """Clients that no statistic sets apart (Krauß & Dmitrienko 2023, as coded for arXiv 2508.20333).

    Six numbers describe a client's update: norm, cosine distance to the global model, count of positive coordinates,
    variance, smallest non-zero and largest magnitude. For each, the deviations above and below the median are compared
    (Welch's t, Levene, Kolmogorov–Smirnov), and outliers of three standard deviations looked for; where one test
    speaks, the smaller of two clusters is dropped, and all begins again. Adapters are looked at as B·A.

    Attributes:
        level: of the tests.
    """

    level: float = 0.05

    def metrics(self, clients: Sequence[State], before: State) -> dict[str, NDArray[np.float64]]:
        """Name → (clients,); the cosine is left out where the global model is zero, as it would be the same for all."""
        _check(clients)
        whole = torch.cat([t.double().flatten() for t in lora_deltas(before).values()])
        rows = []
        for client in clients:
            change = torch.cat([t.double().flatten() for t in lora_deltas(client).values()]) - whole
            size = change.abs()
            cosine = change @ whole / (change.norm() * whole.norm() + 1e-12)
            rows.append(
                {
                    "norm": change.norm().item(),
                    "cosine": 1 - cosine.item(),
                    "positive": (change > 0).sum().item(),
                    "variance": change.var(correction=0).item(),
                    "smallest": size[size > 0].min().item() if (size > 0).any() else 0.0,
                    "largest": size.max().item(),
                }
            )
        named = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        if whole.norm() == 0:
            del named["cosine"]
        return named

    def suspicious(self, values: NDArray[np.float64]) -> bool:
        """Whether some test finds the values unevenly spread about their median."""
        import warnings

        from scipy.stats import ks_2samp, levene, ttest_ind

        median = np.median(values)
        above, below = values[values > median] - median, median - values[values < median]
        if min(len(above), len(below)) < 2:
            return False
        with warnings.catch_warnings():  # groups without spread have no p, and are no evidence
            warnings.simplefilter("ignore")
            found = (ttest_ind(above, below, equal_var=False), levene(above, below), ks_2samp(above, below))
        far = np.abs(values - median) > 3 * np.std(values)
        return bool(any(test.pvalue < self.level for test in found) or far.any())

    def __call__(self, clients: Sequence[State], before: State) -> Aggregate:
        """Average whoever is left when no test speaks any more."""
        from sklearn.cluster import AgglomerativeClustering

        named = self.metrics(clients, before)
        kept = np.arange(len(clients))
        while True:
            spoken = next((v for v in named.values() if self.suspicious(v[kept])), None)
            if spoken is None:
                return _mean(clients, kept.tolist())
            labels = AgglomerativeClustering(n_clusters=2).fit_predict(spoken[kept][:, None])
            kept = kept[labels == np.bincount(labels).argmax()]


def lora_deltas(state: State) -> dict[str, Tensor]:
    """An adapter's matrices multiplied out, B·A for each pair; tensors that are no such pair as they are.

    Args:
        state: names as PEFT gives them, `….lora_A.weight` beside `….lora_B.weight`, with an adapter's name or without.
    """
    out = {}
    for name, tensor in state.items():
        if ".lora_A." in name and name.replace(".lora_A.", ".lora_B.") in state:
            out[name.partition(".lora_A.")[0]] = state[name.replace(".lora_A.", ".lora_B.")] @ tensor
        elif not (".lora_B." in name and name.replace(".lora_B.", ".lora_A.") in state):
            out[name] = tensor
    return out
