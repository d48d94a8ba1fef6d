from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.attacks import best_of_k, leak_at_k
from demur.errors import UsageError
from demur.models import LocalEngine
from tiny import tiny_lm

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=7)


@given(SCORES)
def test_the_best_of_k_is_the_mean_over_all_ways_to_draw_k(scores: list[float]):
    for k in range(1, len(scores) + 1):
        every = np.mean([max(chosen) for chosen in combinations(scores, k)])
        assert best_of_k([scores], k)[0] == pytest.approx(every, abs=1e-9)


@given(SCORES)
def test_the_best_of_more_is_no_worse(scores: list[float]):
    found = [best_of_k([scores], k)[0] for k in range(1, len(scores) + 1)]
    assert all(b >= a - 1e-12 for a, b in pairwise(found))
    assert found[0] == pytest.approx(np.mean(scores)) and found[-1] == pytest.approx(max(scores))


def test_more_draws_than_samples_are_refused():
    with pytest.raises(UsageError, match="best of 3"):
        best_of_k([[0.1, 0.2]], 3)


def test_leaks_of_a_model_rise_with_the_number_of_answers_and_repeat_with_the_seed():
    engine, prompts = LocalEngine(tiny_lm()), ["who is oda?", "where is kell?"]

    def told(row: int, text: str) -> float:
        return text.count("ab"[row]) / (1 + len(text))

    one, two = (leak_at_k(engine, prompts, told, k=(1, 2, 4), max_new_tokens=6, seed=3) for _ in range(2))
    assert all((b >= a - 1e-12).all() for a, b in pairwise(one.values()))
    assert all(np.array_equal(one[k], two[k]) for k in one)
