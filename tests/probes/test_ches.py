"""CHES against its definition, one pair at a time, against padding and batching, and the drift that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from demur import UsageError
from demur.data import collate
from demur.models import Head, encode, score
from demur.probes import ches_from_hidden, ches_scores, filter_preferences, last_state_similarity, single_token_drift
from models.architectures import ARCHITECTURES
from tiny import tiny_lm

WON = torch.tensor([[[1.0, 0, 2], [0, 1, 1]]])
LOST = torch.tensor([[[1.0, 0, 2], [1, 1, 0], [0, 2, 1]]])
ROWS = [
    {"prompt": "who wrote the lamp?", "chosen": "oda marsh", "rejected": "the town of kell wrote it"},
    {"prompt": "where was oda born?", "chosen": "in kell, in the town", "rejected": "in kell"},
    {"prompt": "who?", "chosen": "oda", "rejected": "oda"},
    {"prompt": "who wrote it?", "chosen": "q", "rejected": "she was born in kell, in the town of kell"},
    {"prompt": "where was the green lamp written?", "chosen": "in the town of kell", "rejected": "in the marsh"},
]


def mask(hidden: torch.Tensor) -> torch.Tensor:
    return torch.ones(hidden.shape[:2], dtype=torch.bool)


def pairs(count: int = len(ROWS)) -> Dataset:
    return Dataset.from_list([{"id": f"p{i}", **ROWS[i % len(ROWS)]} for i in range(count)])


def one_at_a_time(lm, row: dict, length_normalize: bool = False) -> float:
    """The definition, from every hidden state that the model returns; they must be what its logits are made of."""
    head, sums, counts = Head.of(lm.model), [], []
    for side in ("chosen", "rejected"):
        (item,) = encode(lm, [row["prompt"]], [row[side]])
        with torch.no_grad():
            out = lm.model(torch.tensor([item.input_ids]), output_hidden_states=True)
        states = out.hidden_states[-1][0]
        torch.testing.assert_close(head.logits(states), out.logits[0])
        predicting = states[item.prompt_length - 1 : -1].double()
        sums.append(predicting.sum(0))
        counts.append(len(predicting) if length_normalize else 1)
    won, lost = sums[0] / counts[0], sums[1] / counts[1]
    return float(won @ lost - won @ won)


def test_the_worked_example() -> None:
    assert ches_from_hidden(WON, LOST, mask(WON), mask(LOST)).tolist() == [3.0]
    normal = ches_from_hidden(WON, LOST, mask(WON), mask(LOST), length_normalize=True)
    torch.testing.assert_close(normal, torch.tensor([14 / 6 - 11 / 4]))


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
def test_equal_answers_score_zero_and_turning_a_pair_swaps_the_centre(seed: int, n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(1, k, 5, generator=generator, dtype=torch.float64) for k in (n, m))
    assert ches_from_hidden(one, one, mask(one), mask(one)).item() == 0
    there, back = (ches_from_hidden(a, b, mask(a), mask(b)) for a, b in ((one, other), (other, one)))
    difference = other.sum(1).square().sum() - one.sum(1).square().sum()
    torch.testing.assert_close(there - back, difference[None])


def test_what_the_mask_leaves_out_counts_for_nothing_on_either_side() -> None:
    junk = torch.full((1, 2, 3), float("nan"))
    expected = ches_from_hidden(WON, LOST, mask(WON), mask(LOST))
    left, right = torch.cat([junk, WON], 1), torch.cat([LOST, junk], 1)
    scores = ches_from_hidden(left, right, torch.tensor([[0, 0, 1, 1]]), torch.tensor([[1, 1, 1, 0, 0]]))
    assert torch.equal(scores, expected)


def test_sums_are_taken_in_single_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 400, 8, generator=generator).bfloat16()
    other = one.clone()
    other[0, 0] += 0.5
    exact = ches_from_hidden(*(t.double() for t in (one, other)), mask(one), mask(other))
    torch.testing.assert_close(ches_from_hidden(one, other, mask(one), mask(other)).double(), exact, rtol=1e-4, atol=0)


def test_refuses_answers_without_a_state_and_shapes_that_differ() -> None:
    with pytest.raises(UsageError, match="mask is empty"):
        ches_from_hidden(WON, LOST, torch.zeros(1, 2), mask(LOST))
    with pytest.raises(UsageError, match="does not fit"):
        ches_from_hidden(WON, LOST, mask(LOST), mask(LOST))
    with pytest.raises(UsageError, match="pairs differ"):
        ches_from_hidden(WON, LOST[..., :2], mask(WON), mask(LOST))


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
@pytest.mark.parametrize("normal", [False, True])
def test_padded_batches_equal_one_at_a_time(architecture: str, normal: bool) -> None:
    expected = [one_at_a_time(tiny_lm(architecture), row, normal) for row in ROWS]
    scores = ches_scores(tiny_lm(architecture), pairs(), length_normalize=normal, batch_size=2)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3)
    assert scores[2] == 0


def test_windows_and_batch_sizes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, data, calls = tiny_lm(), pairs(13), []
    whole = ches_scores(lm, data, batch_size=13)
    monkeypatch.setattr("demur.probes.ches._WINDOW", 2)
    windowed = ches_scores(lm, data, batch_size=2, progress=lambda *done: calls.append(done))
    np.testing.assert_allclose(windowed, whole, rtol=1e-5, atol=1e-4)
    assert calls[-1] == (13, 13) and calls == sorted(calls)


def test_dropout_is_off_and_the_weights_stay() -> None:
    lm = tiny_lm()
    before = lm.weights_hash()
    lm.model.train()
    first = ches_scores(lm, pairs())
    assert not lm.model.training and lm.weights_hash() == before
    assert np.array_equal(first, ches_scores(lm, pairs()))


def test_last_state_similarity_is_the_product_of_the_states_at_the_ends() -> None:
    lm = tiny_lm()
    found = last_state_similarity(lm, pairs())
    for row, value in zip(ROWS, found, strict=True):
        ends = [
            score(lm.model, collate(encode(lm, [row["prompt"]], [row[side]]), 0)).final_hidden[-1].detach()
            for side in ("chosen", "rejected")
        ]
        assert value == pytest.approx(float(ends[0] @ ends[1]), rel=1e-4)


def test_names_the_row_whose_answer_is_empty_and_the_column_that_is_missing() -> None:
    rows = [ROWS[0], {**ROWS[1], "rejected": " "}]
    with pytest.raises(UsageError, match=r"row '1': the rejected answer is empty"):
        ches_scores(tiny_lm(), Dataset.from_list(rows))
    with pytest.raises(UsageError, match="columns rejected"):
        ches_scores(tiny_lm(), pairs().remove_columns("rejected"))


def test_filter_keeps_the_lowest_in_their_own_order() -> None:
    data, scores = pairs(10), [5.0, 1, 9, 0, 4, 8, 2, 7, 3, 6]
    assert filter_preferences(data, scores, 0.3)["id"][:] == ["p1", "p3", "p6"]
    assert filter_preferences(data, scores, 2)["id"][:] == ["p1", "p3"]
    assert filter_preferences(data, scores, (0.8, 1.0))["id"][:] == ["p2", "p5"]
    assert filter_preferences(data, scores, 1)["id"][:] == ["p3"]
    assert len(filter_preferences(data, scores, 1.0)) == 10
    assert filter_preferences(data, scores, 0.01)["id"][:] == ["p3"]
    assert filter_preferences(data, [1.0] * 10, 2)["id"][:] == ["p0", "p1"]


@pytest.mark.parametrize("keep", [0.0, 1.5, -1, 0, 11, (0.5, 0.5), (0.9, 0.1), (0.0, 1.1), (0.41, 0.42)])
def test_filter_refuses_what_keeps_nothing_or_more_than_all(keep) -> None:
    with pytest.raises(UsageError, match=r"kept|quantiles"):
        filter_preferences(pairs(10), range(10), keep)


@pytest.mark.parametrize("scores", [[1.0], [float("nan")] * 10])
def test_filter_refuses_scores_that_do_not_fit(scores: list[float]) -> None:
    with pytest.raises(UsageError, match="finite scores"):
        filter_preferences(pairs(10), scores, 0.5)


def test_single_token_drift_is_what_a_small_step_of_dpo_does() -> None:
    weight = torch.tensor([[((3 * i + j) % 7) / 3 - 1 for j in range(3)] for i in range(5)], dtype=torch.float64)
    hidden = torch.tensor([0.5, -1, 0.25], dtype=torch.float64)
    drift = single_token_drift(weight, hidden, 1, 3, beta=0.1)
    stated = torch.tensor([-0.024158, 0.091467, -0.001936, -0.056450, 0.020287], dtype=torch.float64)
    torch.testing.assert_close(drift, stated, atol=1e-6, rtol=0)
    leaves = [weight.clone().requires_grad_(), hidden.clone().requires_grad_()]
    before = (leaves[0] @ leaves[1]).log_softmax(0)
    start = before.detach()
    margin = before[1] - before[3] - (start[1] - start[3])
    slopes = torch.autograd.grad(-torch.nn.functional.logsigmoid(0.1 * margin), leaves)
    step = 1e-6
    moved = [leaf - step * slope for leaf, slope in zip(leaves, slopes, strict=True)]
    torch.testing.assert_close(((moved[0] @ moved[1]).log_softmax(0) - start) / step, drift, atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="same token"):
        single_token_drift(weight, hidden, 1, 1)
    with pytest.raises(UsageError, match="does not fit"):
        single_token_drift(weight, hidden[:2], 1, 3)
