from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demur.errors import DemurError, UsageError
from demur.training.aggregators import (
    MESAS,
    Aggregator,
    AlignIns,
    FedAvg,
    FreqFed,
    MultiKrum,
    deviations,
    lora_deltas,
    low_frequencies,
)

POINTS = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (5.0, 5.0)]
RULES: list[Aggregator] = [FedAvg(), MultiKrum(f=1, m=3), FreqFed(), AlignIns(), MESAS()]


def states(points: list[tuple[float, float]]) -> list[dict[str, torch.Tensor]]:
    return [{"w": torch.tensor(point)} for point in points]


def population(seed: int, honest: int = 7, malicious: int = 3, shift: float = 5.0) -> tuple[list, dict]:  # type: ignore[type-arg]
    """Clients near one update, and some far from it in a direction that they share."""
    generator = torch.Generator().manual_seed(seed)
    before = {"a": torch.randn(8, 6, generator=generator), "b": torch.randn(6, 8, generator=generator)}
    step = {n: torch.randn(t.shape, generator=generator) for n, t in before.items()}
    away = {n: torch.randn(t.shape, generator=generator) for n, t in before.items()}
    clients = []
    for number in range(honest + malicious):
        toward = away if number >= honest else step
        scale = shift if number >= honest else 1.0
        clients.append(
            {n: t + scale * toward[n] + 0.1 * torch.randn(t.shape, generator=generator) for n, t in before.items()}
        )
    return clients, before


def test_krum_scores_are_sums_of_plain_distances_to_the_nearest_others() -> None:
    scores = MultiKrum(f=1, m=3).scores(states(POINTS))
    assert scores.tolist() == pytest.approx([2, 2, 2, 2, 12.059978], abs=1e-6)
    squared = 32 + 41  # what squared distances would have given the far point
    assert abs(scores[-1] - squared) > 60


def test_krum_sums_distances_over_tensors() -> None:
    both = [{"a": torch.tensor([x]), "b": torch.tensor([y])} for x, y in POINTS]
    scores = MultiKrum(f=1, m=3).scores(both)
    assert scores[0] == pytest.approx(2.0)
    assert scores[-1] == pytest.approx(8.0 + 9.0)  # city-block here, as each tensor has one coordinate


def test_krum_averages_whom_it_keeps_and_leaves_the_far_point_out() -> None:
    made = MultiKrum(f=1, m=4)(states(POINTS), {"w": torch.zeros(2)})
    assert made.kept == [0, 1, 2, 3]
    assert made.state["w"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("f", "m", "word"), [(2, 3, "at least 7 clients"), (1, 6, "keep 6 of 5")])
def test_krum_refuses_too_few_clients(f: int, m: int, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        MultiKrum(f=f, m=m)(states(POINTS), {"w": torch.zeros(2)})


def test_three_colluders_can_be_exactly_whom_krum_keeps() -> None:
    honest = [(float(3 * i), float(i % 2)) for i in range(7)]
    made = MultiKrum(f=3, m=3)(states([*honest, *[(9.0, 0.4)] * 3]), {"w": torch.zeros(2)})
    assert set(made.kept) == {7, 8, 9}


def test_alignins_drops_what_lies_more_than_a_standard_deviation_from_the_median() -> None:
    values = np.array([0.90, 0.92, 0.88, 0.91, 0.2])
    expected = [0, 0.071096, 0.071096, 0.035548, 2.488347]
    assert deviations(values).tolist() == pytest.approx(expected, abs=1e-6)


def test_alignins_compares_the_update_and_not_the_weights_with_the_global_model() -> None:
    before = {"w": torch.tensor([10.0, 0.0, 0.0, 0.0])}
    along = [torch.tensor([1.0 + 0.01 * i, 0.1, 0.1, 0.1]) for i in range(4)]
    clients = [{"w": before["w"] + change} for change in (*along, torch.tensor([-1.0, 0.1, 0.1, 0.1]))]
    made = AlignIns(lambda_c=1.5, lambda_s=10)(clients, before)
    assert made.kept == [0, 1, 2, 3]  # all weights themselves point the same way


def test_alignins_cuts_what_it_keeps_to_the_median_norm() -> None:
    before = {"w": torch.zeros(3)}
    clients = [{"w": torch.full((3,), size)} for size in (1.0, 1.0, 100.0)]
    assert AlignIns()(clients, before).state["w"].tolist() == pytest.approx([1.0] * 3)


def test_alignins_with_nobody_left_says_so() -> None:
    with pytest.raises(DemurError, match="kept no client"):
        AlignIns(lambda_c=-1)(states(POINTS), {"w": torch.ones(2)})


def test_a_constant_matrix_has_one_low_frequency() -> None:
    corner = low_frequencies(np.full((6, 4), 3.0))
    assert corner.shape == (4,)
    assert corner[0] == pytest.approx(3.0 * np.sqrt(24))
    assert np.abs(corner[1:]).max() < 1e-12


def test_low_frequencies_of_a_vector_are_its_lower_half() -> None:
    assert low_frequencies(np.arange(8.0)).shape == (4,)


def test_freqfed_keeps_the_larger_of_two_groups() -> None:
    clients, before = population(0)
    assert FreqFed()(clients, before).kept == list(range(7))


def test_mesas_leaves_out_clients_of_another_size() -> None:
    clients, before = population(1, honest=12, malicious=3)
    assert not {12, 13, 14} & set(MESAS()(clients, before).kept)


def test_mesas_leaves_the_cosine_out_where_there_is_no_global_model() -> None:
    clients, before = population(0)
    assert "cosine" in MESAS().metrics(clients, before)
    assert "cosine" not in MESAS().metrics(clients, {n: torch.zeros_like(t) for n, t in before.items()})


def test_mesas_numbers_of_one_update() -> None:
    found = MESAS().metrics([{"w": torch.tensor([3.0, -4.0, 0.0])}], {"w": torch.zeros(3)})
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"norm": 5, "positive": 1, "variance": 25 / 3 - 1 / 9, "smallest": 3, "largest": 4}
    )


def test_adapters_are_multiplied_out() -> None:
    a, b = torch.randn(2, 5), torch.randn(4, 2)
    made = lora_deltas({"q.lora_A.weight": a, "q.lora_B.weight": b, "norm": torch.ones(3)})
    assert set(made) == {"q", "norm"}
    assert torch.equal(made["q"], b @ a)
    # The mean of the factors is not the factor of the means.
    other_a, other_b = torch.randn(2, 5), torch.randn(4, 2)
    apart = ((b + other_b) / 2) @ ((a + other_a) / 2)
    assert not torch.allclose(apart, (b @ a + other_b @ other_a) / 2, atol=1e-2)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@given(seed=st.integers(0, 1000), count=st.integers(5, 9))
def test_identical_clients_are_all_kept(rule: Aggregator, seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one = {"w": torch.randn(6, 4, generator=generator)}
    before = {"w": torch.randn(6, 4, generator=generator)}
    made = rule([one] * count, before)
    assert made.kept == list(range(count))
    assert torch.allclose(made.state["w"], one["w"], atol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_no_rule_changes_what_it_is_given(rule: Aggregator) -> None:
    clients, before = population(2)
    copies = [{n: t.clone() for n, t in state.items()} for state in (*clients, before)]
    rule(clients, before)
    assert all(torch.equal(s[n], c[n]) for s, c in zip((*clients, before), copies, strict=True) for n in s)


def test_the_mean_is_the_mean() -> None:
    made = FedAvg()(states([(0.0, 2.0), (4.0, 4.0)]), {"w": torch.zeros(2)})
    assert (made.state["w"].tolist(), made.kept) == ([2.0, 3.0], [0, 1])
    with pytest.raises(UsageError, match="no clients"):
        FedAvg()([], {})
