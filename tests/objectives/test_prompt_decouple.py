from __future__ import annotations

import pytest
import torch

from demur.data import collate, question_answer
from demur.lab import rows
from demur.models import encode, joint_score, score
from demur.objectives import decoupled, idk, prompt_decouple_loss
from demur.training import Objective
from tiny_vision import tiny_vision


def test_without_weight_the_loss_is_the_base_method_s_own() -> None:
    base = torch.tensor(-1.25, requires_grad=True)
    assert prompt_decouple_loss(base, torch.tensor(float("nan")), 0.0) is base
    assert prompt_decouple_loss(base, torch.tensor(2.0), 0.5).item() == -0.25
    with pytest.raises(ValueError, match="negative"):
        prompt_decouple_loss(base, base, -1.0)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_ascent_and_decoupling_on_the_same_rows_cancel(weight: float) -> None:
    lm = tiny_vision()
    data = rows("scenes-digits:forget").select(range(4))
    batch = collate(encode(lm, *question_answer(data)), lm.pad_id)
    objective = Objective.make("ga", decouple_weight=weight)
    assert objective.roles == ("forget", "decoupled") and objective.reference_roles == ()
    loss, parts = objective(joint_score(lm.model, {"forget": batch, "decoupled": batch}, {}, lm.pad_id))
    loss.backward()
    largest = max(float(p.grad.abs().max()) for p in lm.model.parameters() if p.grad is not None)
    assert (largest < 1e-6) == (weight == 1.0)
    assert float(parts["decoupled"]) == pytest.approx(-float(parts["ga"]), rel=1e-6)


def test_the_whole_loss_is_a_weighted_sum_for_any_base() -> None:
    lm = tiny_vision()
    batches = {
        role: collate(encode(lm, *question_answer(rows(f"scenes-digits:{role}").select(range(3)))), lm.pad_id)
        for role in ("forget", "retain", "decoupled")
    }
    with torch.no_grad():
        alone = {role: score(lm.model, batch) for role, batch in batches.items()}
        alone["alternate"] = alone["forget"]
        for name in ("graddiff", "npo", "simnpo", "idk"):
            references = {"forget": alone["forget"]}
            known = {r: score(lm.model, b, reference=references.get(r)) for r, b in batches.items()}
            known["alternate"] = known["forget"]
            bare, _ = Objective.make(name, retain_weight=0.5)(known)
            whole, _ = Objective.make(name, retain_weight=0.5, decouple_weight=0.25)(known)
            assert float(whole) == pytest.approx(float(bare) + 0.25 * float(alone["decoupled"].nll), rel=1e-5)
        assert float(idk(alone["alternate"])) == float(alone["alternate"].nll)
        assert float(decoupled(alone["decoupled"])) == float(alone["decoupled"].nll)
