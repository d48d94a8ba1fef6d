from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from demur.audits.parity import (
    demographic_parity_difference,
    paired_refusal_test,
    parity_gap,
    swap_test,
    target_gap,
)
from demur.errors import UsageError
from demur.intervals import bootstrap

GUILDS = ["dyers", "masons", "coopers", "smiths"]


def answers(rates: dict[str, float], n: int = 100) -> tuple[list[int], list[str]]:
    made = {group: [1] * round(rate * n) + [0] * (n - round(rate * n)) for group, rate in rates.items()}
    return [v for values in made.values() for v in values], [g for g, values in made.items() for _ in values]


def test_the_difference_of_two_rates() -> None:
    assert demographic_parity_difference(*answers({"dyers": 0.70, "masons": 0.97})) == pytest.approx(0.27)


def test_of_several_groups_the_largest_difference_or_the_target_s_counts() -> None:
    answered, group = answers({"dyers": 0.5, "masons": 1.0, "coopers": 0.9})
    assert demographic_parity_difference(answered, group) == pytest.approx(0.5)
    assert demographic_parity_difference(answered, group, "target_vs_rest", "dyers") == pytest.approx(0.45)
    assert demographic_parity_difference(answered, group, "target_vs_rest", "coopers") == pytest.approx(0.15)
    assert demographic_parity_difference(answered, group, "target_vs_rest") == pytest.approx(0.45)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=6, max_size=60))
def test_it_equals_fairlearn_s_definition(rows: list[tuple[bool, str]]) -> None:
    group = [g for _, g in rows]
    if len(set(group)) < 2:
        return
    rates = {g: np.mean([a for a, own in rows if own == g]) for g in set(group)}  # selection rate by group
    assert demographic_parity_difference([a for a, _ in rows], group) == pytest.approx(
        max(rates.values()) - min(rates.values())
    )


@pytest.mark.parametrize(
    ("given_", "word"),
    [
        (([1, 0], ["a"]), "one group an answer"),
        (([1, 0], ["a", "a"]), "at least two groups"),
        (([1, 0], ["a", "b"], "mean"), "max or target_vs_rest"),
        (([1, 0], ["a", "b"], "target_vs_rest", "c"), "the groups are a, b"),
    ],
    ids=str,
)
def test_what_it_cannot_compare_is_refused(given_: tuple, word: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError, match=word):
        demographic_parity_difference(*given_)


def test_mcnemar_s_exact_p() -> None:
    test = paired_refusal_test([1] * 20 + [0] * 80, [0] * 100)
    assert test.p == pytest.approx(1.907e-6, rel=1e-3)
    assert (test.first_only, test.second_only, test.n) == (20, 0, 100)
    assert paired_refusal_test([1] * 50, [1] * 50).p == 1.0


@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 10))
def test_it_is_the_two_sided_binomial_test_of_discordant_pairs(up: int, down: int, same: int) -> None:
    first, second = [1] * up + [0] * down + [1] * same, [0] * up + [1] * down + [1] * same
    tail = 2 * binom.cdf(min(up, down), up + down, 0.5)
    assert paired_refusal_test(first, second).p == pytest.approx(min(1.0, tail), abs=1e-12)


def test_the_swap_finds_the_group_without_being_told() -> None:
    refused = np.zeros((100, 4))
    refused[:30, 2] = 1
    found = swap_test(refused)
    assert found.group == 2
    assert (found.test.first_only, found.test.second_only) == (30, 0)
    assert found.test.p == pytest.approx(4 * 2 * 0.5**30)  # corrected for four groups
    assert swap_test(refused, 2).test.p == pytest.approx(2 * 0.5**30)
    assert swap_test(refused, 0).test.p == 1.0  # one refused group does not make the others look favoured


def test_a_template_that_every_group_is_refused_on_is_no_bias() -> None:
    refused = np.ones((100, 4))
    assert swap_test(refused).test.p == 1.0
    assert parity_gap(refused[None])[0] == 0.0


def test_a_split_vote_of_the_others_says_nothing() -> None:
    assert swap_test(np.array([[1.0, 1.0, 0.0]] * 10), 0).test.n == 0


def test_of_two_groups_the_one_that_is_refused_more_is_named() -> None:
    refused = np.zeros((40, 2))
    refused[:20, 1] = 1
    assert swap_test(refused).group == 1


def test_gaps_of_resampled_tables() -> None:
    table = np.array([[1, 0, 0], [1, 0, np.nan], [0, 0, 0], [1, 1, 0]], dtype=float)
    assert parity_gap(table[None])[0] == pytest.approx(0.75)
    assert target_gap(table[None], 0)[0] == pytest.approx(0.75 - 1 / 7)
    low, high = bootstrap(parity_gap, table, seed=1)
    assert 0 <= low <= 0.75 <= high <= 1


@pytest.mark.parametrize("biased", [False, True])
def test_a_hundred_templates_have_the_standard_error_of_their_rates(biased: bool) -> None:
    rng = np.random.default_rng(0)
    rates = (0.70, 0.93) if biased else (0.9, 0.9)
    refused = np.stack([rng.random(100) > rate for rate in rates], axis=1).astype(float)
    low, high = bootstrap(lambda draws: target_gap(draws, 0), refused, seed=0)
    expected = 2 * 1.96 * np.sqrt(sum(rate * (1 - rate) / 100 for rate in rates))
    if biased:
        assert high - low == pytest.approx(expected, rel=0.3)
        assert low > 0
    else:
        assert low < 0.03
