from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from demur.editing.attribution import Attribution, Factors
from demur.errors import UsageError

ROWS, TARGETS = np.array([30, 10, 20]), np.array([7, 10, 20, 5])


@pytest.fixture
def factors() -> Factors:
    generator = torch.Generator().manual_seed(0)
    return Factors(
        torch.randn(3, 5, generator=generator), torch.randn(4, 2, 5, generator=generator), rows=ROWS, targets=TARGETS
    )


def test_what_is_removed_is_the_sum_over_the_rows_by_id(factors: Factors) -> None:
    beta = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    found = Attribution(beta, ROWS, TARGETS).removed([10, 30], torch.tensor([20, 7, 20]))
    assert torch.allclose(found, torch.from_numpy(beta[1, [2, 0, 2]] + beta[0, [2, 0, 2]]))


def test_a_product_written_in_blocks_is_the_product(
    factors: Factors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.editing.attribution._BLOCK_BYTES", 64)  # two rows of eight numbers
    done: list[float] = []
    factors.save(tmp_path / "beta.npy", progress=lambda at, total, note="": done.append(at))
    loaded, whole = Attribution.load(tmp_path / "beta.npy"), factors.dense()
    assert done == [2, 3]
    assert isinstance(loaded.beta, np.memmap)
    assert np.allclose(loaded.beta, whole.beta, atol=1e-6)
    assert np.allclose(whole.beta[2, 3], factors.right[3] @ factors.left[2], atol=1e-6)
    assert np.array_equal(loaded.rows, ROWS) and np.array_equal(loaded.targets, TARGETS)


def test_an_attribution_comes_back_from_its_file(factors: Factors, tmp_path: Path) -> None:
    whole = factors.dense()
    loaded = Attribution.load(whole.save(tmp_path / "beta.npy"))
    assert np.array_equal(loaded.beta, whole.beta)
    assert torch.equal(loaded.removed([20], [5]), whole.removed([20], [5]))


def test_ids_that_are_not_there_or_twice_are_refused(factors: Factors) -> None:
    whole = factors.dense()
    for forget, targets, said in (
        ([11], [7], "does not tell of forget row 11"),
        ([10], [8], "does not tell of target 8"),
        ([10, 10], [7], "forget row 10 is given twice"),
    ):
        with pytest.raises(UsageError, match=said):
            whole.removed(forget, targets)


def test_files_without_their_ids_or_of_another_shape_are_refused(factors: Factors, tmp_path: Path) -> None:
    file = factors.save(tmp_path / "beta.npy")
    np.save(file, np.zeros((3, 3, 2), dtype=np.float32))
    with pytest.raises(UsageError, match="3 rows to 4 targets"):
        Attribution.load(file)
    file.with_suffix(".ids.npz").unlink()
    with pytest.raises(UsageError, match="no attribution at"):
        Attribution.load(file)
    with pytest.raises(UsageError, match=r"kept in a \.npy file"):
        factors.save(tmp_path / "beta.bin")


def test_a_file_that_could_not_be_written_whole_leaves_none_that_looks_so(factors: Factors, tmp_path: Path) -> None:
    file = factors.save(tmp_path / "beta.npy")

    def stop(done: float, total: float, note: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        factors.save(file, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["beta.npy"]
    with pytest.raises(UsageError, match="no attribution at"):
        Attribution.load(file)
