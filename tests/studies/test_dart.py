from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from demur.studies import dart


def test_the_oracle_is_right_as_often_as_it_is_said_to_be() -> None:
    for query, chance in (("38", 0.95), ("4071", 0.35), ("123456", 0.03)):
        answers = dart._teach([query] * 1000, 7)
        row = {"answer": str(sum(map(int, query)) % 10)}
        share = np.mean([dart._right(a, row) for a in answers])
        assert abs(share - chance) <= 4 * np.sqrt(chance * (1 - chance) / 1000)
        steps = [answer.split() for answer in answers]
        assert all(sorted(s[0] for s in taken) == sorted(query) for taken in steps)
        assert {taken[0][0] for taken in steps} == set(query)
    assert dart._teach(["38", "99", "38"], 1) == [
        *dart._teach(["38"], 1),
        *dart._teach(["99"], 1),
        dart._teach(["38", "38"], 1)[1],
    ]


def test_solving_reads_the_last_sum_of_a_greedy_answer() -> None:
    class Fixed(torch.nn.Module):
        """Writes both digits, each with the sum so far, then the end."""

        def forward(self, tokens: torch.Tensor) -> object:
            a, b = tokens[:, 1], tokens[:, 2]
            written = [a, dart.SUM + a, b, dart.SUM + (a + b) % 10, torch.full_like(a, dart.END)]
            logits = torch.nn.functional.one_hot(written[tokens.shape[1] - 4], dart.END + 1)[:, None].float()
            return type("Output", (), {"logits": logits})

    assert dart.solve(Fixed(), ["38", "99"]) == 1.0  # type: ignore[arg-type]


def _held(change: dict[str, float]) -> list[bool]:
    row: dict[str, float] = {"rank correlation": 0.99, "floor coverage": 0.9}
    for strategy, hard in zip(dart.STRATEGIES, (0.3, 0.8, 0.9, 0.2), strict=True):
        row |= {f"{strategy} hard": hard, f"{strategy} coverage": 1.0, f"{strategy} n=6": 60}
    row["rejection coverage"] = 0.9
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in dart.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"uniform hard": 0.45}, 1),
        ({"rejection hard": 0.75}, 2),
        ({"prop2diff coverage": 0.99}, 1),
        ({"rejection coverage": 1.0}, 1),
        ({"rank correlation": 0.9}, 1),
        ({"floor coverage": 1.0}, 1),
        ({"by pass rate hard": 0.8}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(change).count(False) == broken


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"QUERIES": 15, "EXAMPLES": 60, "TRIALS": 10, "TESTS": 4, "WIDTH": 16, "STEPS": 1, "BATCH": 8}
    for name, value in small.items():
        monkeypatch.setattr(dart, name, value)
    measured = dart.modular_sums(1)
    assert measured["uniform coverage"] == measured["prop2diff coverage"] == 1
    assert dart.modular_sums.check({1: measured})
