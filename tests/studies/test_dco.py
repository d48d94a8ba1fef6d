from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from demur.objectives import dco_loss
from demur.studies import dco


def test_slips_differ_from_the_loss_in_what_they_say_they_do() -> None:
    s = torch.tensor([-1.0, -3.0], requires_grad=True)
    (right,) = torch.autograd.grad(dco_loss(s, 8), s)
    (turned,) = torch.autograd.grad(dco.reversed_loss(s, 8), s)
    (attached,) = torch.autograd.grad(dco.attached_loss(s, 8), s)
    assert torch.equal(turned, -right) and not torch.allclose(attached, right, rtol=0.05)


def _held(change: dict[str, float]) -> list[bool]:
    row = {}
    for place, n in enumerate(dco.BUDGETS):
        late = {"pass@1": 0.3 - 0.06 * place, "pass@64": 0.55 + 0.12 * place, "confidence": 0.75 - 0.18 * place}
        row |= {f"N={n} late {name}": value for name, value in late.items()}
    row |= {
        "N=1 early pass@1": 0.14,
        "N=1 early pass@64": 0.86,
        "attached late pass@1": 0.1,
        "reversed late pass@1": 0.0,
    }
    row |= {
        "attached late pass@64": 0.88,
        "reversed late pass@64": 0.0,
        "N=4 late pass@64": 0.7,
        "N=16 late pass@64": 0.8,
    }
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in dco.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"N=1 early pass@64": 0.7}, 1),
        ({"N=1 early pass@1": 0.25}, 1),
        ({"N=64 late pass@64": 0.75}, 1),
        ({"N=64 late pass@1": 0.25}, 1),
        ({"N=16 late confidence": 0.6}, 1),
        ({"reversed late pass@64": 0.8}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(change).count(False) == broken


def test_it_measures_what_its_claims_read(shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("tinyshakespeare").parent))
    for name, value in {"POSITIONS": 256, "EPOCHS": 4, "WIDTH": 16}.items():
        monkeypatch.setattr(dco, name, value)
    measured = dco.next_character(1)
    assert all(0 <= value <= 1 for value in measured.values())
    assert measured["N=1 late pass@1"] <= measured["N=1 late pass@64"]
    assert dco.next_character.check({1: measured})
