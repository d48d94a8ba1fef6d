from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from demur.errors import UsageError
from demur.guards import RefusalDial, RefusalScores, RefusalTokenConfig, choose_tokens
from demur.guards.refusal_scores import OWN

CONFIG = RefusalTokenConfig({"c1": "[c1]", "c2": "[c2]", "c3": "[c3]"})
ONE = RefusalTokenConfig({"refuse": "[refuse]"})
WORKED = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.0]])  # respond, c1, c2, c3, another token

logits = st.lists(st.integers(-60, 60).map(lambda tenths: tenths / 10), min_size=5, max_size=5)


def scores(rows: torch.Tensor, config: RefusalTokenConfig = CONFIG, temperature: float = 1.0) -> RefusalScores:
    return RefusalScores.from_logits(config, range(len(config.tokens)), rows, temperature)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [0.563021, 0.207124, 0.125627, 0.028031, 0.076197]),
        (2.0, [0.374545, 0.227173, 0.176922, 0.083572, 0.137787]),
    ],
)
def test_the_softmax_is_over_the_whole_vocabulary(temperature: float, expected: list[float]):
    found = scores(WORKED, temperature=temperature)
    assert [*np.exp(found.logps[0]), np.exp(found.others[0])] == pytest.approx(expected, abs=1e-6)
    assert found.other_ids[0] == 4 and found.other_logps[0] == pytest.approx(math.log(expected[-1]), abs=1e-5)


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        ({"c1": 0.2}, 1),
        ({"c1": 0.21}, 0),
        ({"c2": 0.0}, 0),  # c1 is likelier, and is not controlled: the model's own likeliest token, which answers
        ({"c2": 0.9}, 0),
        ({"c1": -1}, 0),
        (0.2, 1),
        (0.21, 0),
        ({}, 0),
    ],
    ids=str,
)
def test_only_the_likeliest_category_is_thresholded(threshold: float | dict[str, float], said: int):
    assert choose_tokens(scores(WORKED), RefusalDial(threshold)).tolist() == [said]


def test_a_bias_moves_a_probability_to_where_it_is_wanted():
    moved = scores(WORKED).biased({"c1": 1.342349})
    assert moved.refuse[0, 0] == pytest.approx(0.5, abs=1e-6)
    assert np.exp(moved.logps).sum() + np.exp(moved.others).sum() == pytest.approx(1.0)


@given(
    row=logits, bias=st.dictionaries(st.sampled_from(["respond", "c1", "c3"]), st.floats(-5, 5)), t=st.floats(0.3, 3)
)
def test_a_bias_after_the_pass_is_a_bias_on_the_logits(row: list[float], bias: dict[str, float], t: float):
    shifted = torch.tensor([row], dtype=torch.float64)
    for name, value in bias.items():
        shifted[0, ["respond", "c1", "c2", "c3"].index(name)] += value
    after = scores(torch.tensor([row], dtype=torch.float64), temperature=t).biased(bias)
    before = scores(shifted, temperature=t)
    for part in ("logps", "others", "other_logps"):
        np.testing.assert_allclose(getattr(after, part), getattr(before, part), atol=1e-9)


@given(rows=st.lists(logits, min_size=1, max_size=8))
def test_limits_of_one_threshold(rows: list[list[float]]):
    found = scores(torch.tensor(rows))
    top = 1 + found.top
    assert (choose_tokens(found, RefusalDial(0.0)) == top).all()
    assert (choose_tokens(found, RefusalDial(1.001)) == 0).all()
    single = np.array(rows, dtype=np.float32)
    compared = single[:, 1:4].max(1) >= single[:, 0]
    for t in (0.5, 1.0, 4.0):
        said = choose_tokens(scores(torch.tensor(rows), temperature=t), RefusalDial(temperature=t))
        assert (said == np.where(compared, top, 0)).all()


def released_rule(row: np.ndarray, controlled: set[int], threshold: float) -> int:
    """The rule as the released code has it: category tokens 1 to 3, the token of an answer 0."""
    p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
    category = 1 + int(p[1:4].argmax())
    own = int(p.argmax())
    if category not in controlled:
        return own
    return category if p[category] >= threshold else 0


@given(row=logits, controlled=st.sets(st.integers(1, 3)), threshold=st.floats(0, 1.2))
def test_the_rule_for_categories_is_the_released_one(row: list[float], controlled: set[int], threshold: float):
    found = scores(torch.tensor([row], dtype=torch.float64))
    assume(abs(found.refusal[0] - threshold) > 1e-9)
    dial = RefusalDial({f"c{c}": threshold for c in controlled})
    said = int(choose_tokens(found, dial)[0])
    assert (int(found.other_ids[0]) if said == OWN else said) == released_rule(np.array(row), controlled, threshold)


def test_full_vocabulary_and_the_two_tokens_alone_differ():
    found = scores(torch.tensor([[0.0, 0.1, 5.0]]), ONE)
    assert found.refusal[0] < 0.01 < 0.5 < math.exp(0.1) / (1 + math.exp(0.1))


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf, {"c1": -2}, True, "0.5"], ids=str)
def test_a_threshold_is_minus_one_or_from_zero_on(bad: object):
    with pytest.raises(UsageError, match="threshold must be -1"):
        RefusalDial(bad)  # type: ignore[arg-type]


def test_bad_dials_are_refused():
    with pytest.raises(UsageError, match="temperature"):
        RefusalDial(temperature=0.0)
    with pytest.raises(UsageError, match="finite"):
        RefusalDial(logit_bias={"c1": math.inf})
    with pytest.raises(UsageError, match="did you mean c1"):
        choose_tokens(scores(WORKED), RefusalDial({"c11": 0.5}))
    with pytest.raises(UsageError, match="score the prompts again"):
        choose_tokens(scores(WORKED), RefusalDial(temperature=2.0))
