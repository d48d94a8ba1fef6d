"""Attributions: how much of each answer comes from each training row, kept in a file or as two factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demur.errors import UsageError
from demur.files import atomic_write
from demur.models.descent import tell
from demur.processes import Progress

__all__ = ["Attribution", "Factors"]

_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Attribution:
    """β: by how much a training row, when it is there, raises an output for a target.

    Attributes:
        beta: (rows, targets, outputs); a memory map where it came from a file.
        rows: (rows,) ids of the training rows.
        targets: (targets,) ids of the rows whose outputs are told.
    """

    beta: NDArray[np.float32]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.beta.ndim != 3 or self.beta.shape[:2] != (len(self.rows), len(self.targets)):
            raise UsageError(
                f"an attribution of {len(self.rows)} rows to {len(self.targets)} targets needs a value for each and "
                f"for each output, not {self.beta.shape}"
            )

    def removed(self, forget: Tensor | Sequence[int], targets: Tensor | Sequence[int]) -> Tensor:
        """Σ β over rows that go: what to subtract from the outputs when they go.

        Args:
            forget: ids of the training rows that go, each once.
            targets: ids of rows.

        Returns:
            (targets, outputs).

        Raises:
            UsageError: an id is unknown, or a forget row stands there twice.
        """
        columns = _places(self.targets, targets, "target")
        total = np.zeros((len(columns), self.beta.shape[2]), dtype=np.float64)
        for row in _places(self.rows, forget, "forget row", once=True):
            total += self.beta[row][columns]
        return torch.from_numpy(total).float()

    def save(self, path: str | Path) -> Path:
        """Write β to a `.npy` file and the ids beside it."""
        _write(Path(path), self.rows, self.targets, self.beta.shape, [self.beta])
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Attribution:
        """An attribution in a file, as a memory map.

        Raises:
            UsageError: there is none, or its ids are missing.
        """
        path = Path(path)
        try:
            beta = np.load(path, mmap_mode="r", allow_pickle=False)
            with np.load(_ids(path), allow_pickle=False) as ids:
                return cls(beta, ids["rows"], ids["targets"])
        except (OSError, ValueError, KeyError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise UsageError(f"no attribution at {path} with its ids at {_ids(path)}: {problem}") from error


@dataclass(frozen=True)
class Factors:
    """An attribution as a product: β[i, t, c] = left_i · right_tc, without a number for each pair.

    Attributes:
        left: (rows, width).
        right: (targets, outputs, width).
        rows, targets: ids, as in `Attribution`.
    """

    left: Tensor
    right: Tensor
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]

    def dense(self) -> Attribution:
        """All pairs in memory."""
        return Attribution(torch.einsum("iw,tcw->itc", self.left, self.right).numpy(), self.rows, self.targets)

    def save(self, path: str | Path, progress: Progress = tell) -> Path:
        """Write all pairs to a `.npy` file block by block, so that the memory does not grow with their number.

        Args:
            path: of the file; the ids are written beside it.
            progress: called with the rows done.
        """
        targets, outputs, width = self.right.shape
        flat = self.right.reshape(-1, width).T
        step = max(1, _BLOCK_BYTES // (4 * max(flat.shape[1], 1)))
        room = torch.empty(min(step, len(self.left)), flat.shape[1])

        def blocks() -> Any:
            for start in range(0, len(self.left), step):
                part = self.left[start : start + step]
                yield torch.mm(part, flat, out=room[: len(part)]).numpy()
                progress(start + len(part), len(self.left), "attribution")

        _write(Path(path), self.rows, self.targets, (len(self.left), targets, outputs), blocks())
        return Path(path)


def _write(path: Path, rows: NDArray[np.int64], targets: NDArray[np.int64], shape: Any, blocks: Any) -> None:
    """Rows of β in order, then the ids: a file that is not the ids' own never lies beside them."""
    if path.suffix != ".npy":
        raise UsageError(f"an attribution is kept in a .npy file, not in {path.name}")
    _ids(path).unlink(missing_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        # Written, not mapped: the pages of a map count as memory for as long as it is open.
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype="<f4").data)
    with atomic_write(_ids(path)) as temporary, temporary.open("wb") as file:
        np.savez(file, rows=rows, targets=targets)


def _ids(path: Path) -> Path:
    return path.with_suffix(".ids.npz")


def _places(known: NDArray[np.int64], wanted: Tensor | Sequence[int], what: str, once: bool = False) -> NDArray[Any]:
    """Where the wanted ids stand."""
    ids = np.asarray(wanted, dtype=np.int64)
    values, counts = np.unique(ids, return_counts=True)
    missing = np.setdiff1d(values, known)
    if len(missing):
        raise UsageError(f"the attribution does not tell of {what} {missing[0]}")
    if once and (counts > 1).any():
        raise UsageError(f"{what} {values[counts > 1][0]} is given twice")
    order = np.argsort(known)
    return np.asarray(order[np.searchsorted(known, ids, sorter=order)])
