from __future__ import annotations

import pandas as pd
import pytest

from demur.studies import NotMeasured, flat
from demur.studies.flat import DIVERGENCES, retain_at, template_share


def test_an_answer_is_known_for_a_template_by_its_first_words() -> None:
    lines = ["I'm not certain about that.", "That's beyond me."]
    answers = ["I'm not certain whether", "i'm NOT Certain", "That's beyond me.", "I'm certain", "", "That's"]
    assert template_share(answers, lines) == pytest.approx(3 / 6)


def test_a_curve_is_read_between_its_points() -> None:
    curve = [(0.9, 0.95), (0.3, 0.7), (0.1, 0.2)]
    assert retain_at(curve, 0.2) == pytest.approx(0.45)
    assert retain_at(curve, 0.9) == 0.95 and retain_at(curve, 0.0) == 0.2


def test_without_the_data_it_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    with pytest.raises(NotMeasured, match="DEMUR_SHARED_DATA"):
        flat.tofu(1)


_CURVE = ("lead", "lead halfway", "forget halfway")


def _claims(change: dict[str, float]) -> list[bool]:
    names = ("forget", "retain", "template", "forget abstains", "retain abstains")
    runs = {"before": (0.97, 0.97, 0.015, 0.0, 0.0), "GA": (1e-8, 1e-8, 1e-8, 0.0, 0.0)}
    runs |= {"GA gently": (0.05, 0.3, 0.004, 0.0, 0.0), "turned": (0.98, 0.97, 0.001, 0.0, 0.0)}
    runs |= {"abstain": (0.3, 0.5, 0.2, 1.0, 0.6), "NPO+GD": (0.06, 0.94, 0.001, 0.0, 0.0)}
    for divergence in DIVERGENCES:
        runs |= {divergence: (1e-3, 0.1, 0.1, 0.9, 0.6), f"{divergence} gently": (0.4, 0.8, 0.09, 0.2, 0.1)}
    row = {f"{run} {name}": v for run, values in runs.items() for name, v in zip(names, values, strict=True)}
    row |= {f"{divergence} {what}": 0.1 for divergence in DIVERGENCES for what in _CURVE}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in flat.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"before forget": 0.5}, 1),
        ({"kl template": 0.05}, 1),
        ({"js gently template": 0.05}, 1),
        ({"GA template": 0.02}, 1),
        ({"pearson retain": 0.004}, 1),
        ({"GA retain": 2e-4}, 1),
        ({"tv lead": -0.01}, 1),
        ({"js forget abstains": 0.5}, 1),
        ({"turned forget": 0.8}, 1),
        ({"turned template": 0.02}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert sum(not holds for holds in _claims(change)) == broken


def test_it_measures_what_its_claims_read(quick_authors: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "DIVERGENCES", ("tv",))
    measured = flat.tofu(1)
    assert all(0 <= value <= 1 for name, value in measured.items() if " lead" not in name)
    assert flat.tofu.check({1: measured})
