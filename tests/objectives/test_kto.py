"""KTO against TRL's trainer, against worked numbers, and in its limits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from demur.data.batch import IGNORE, Batch
from demur.models import score
from demur.objectives import kto, kto_loss
from models.architectures import ARCHITECTURES
from tiny import tiny_tokenizer

ZERO = torch.zeros(2, dtype=torch.float64)


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_worked_numbers() -> None:
    chosen, rejected, mismatched = values(-3.0, -5.0), values(-2.0, -6.0), values(1.0, 3.0)
    z = 2.0
    expected = [1.5 / (1 + math.exp(0.5 * (r - z))) for r in (-3.0, -5.0)]
    expected += [0.5 / (1 + math.exp(0.5 * (z - r))) for r in (-2.0, -6.0)]
    found = kto_loss(chosen, rejected, mismatched, ZERO, ZERO, ZERO, 0.5, 1.5, 0.5)
    assert found.item() == pytest.approx(sum(expected) / 4)


def test_the_reference_point_is_never_below_zero_and_a_constant() -> None:
    chosen, rejected = values(-1.0, 1.0), values(0.5, -0.5)
    low = values(-4.0, -1.0).requires_grad_()
    at_zero = kto_loss(chosen, rejected, ZERO, ZERO, ZERO, ZERO)
    assert torch.equal(kto_loss(chosen, rejected, low, ZERO, ZERO, ZERO).detach(), at_zero)
    high = values(4.0, 1.0).requires_grad_()
    leaf = chosen.clone().requires_grad_()
    kto_loss(leaf, rejected, high, ZERO, ZERO, ZERO).backward()
    assert high.grad is None and leaf.grad is not None and bool((leaf.grad < 0).all())


def test_answers_need_no_partners() -> None:
    none = ZERO[:0]
    good = kto_loss(values(1.0, 2.0), none, ZERO, ZERO, none, ZERO)
    bad = kto_loss(none, values(-1.0, -2.0), ZERO, none, ZERO, ZERO)
    torch.testing.assert_close(good, bad)  # mirrored, as z = 0
    both = kto_loss(values(1.0, 2.0), values(-1.0), ZERO, ZERO, ZERO[:1], ZERO)
    assert both.shape == ()


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"beta": 0.0}, "beta"), ({"desirable_weight": -1.0}, "desirable_weight"), ({"undesirable_weight": -1.0}, "unde")],
)
def test_refuses_options_out_of_range(options: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        kto_loss(ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, **options)
    with pytest.raises(ValueError, match="shapes differ"):
        kto_loss(ZERO, ZERO, ZERO, ZERO[:1], ZERO, ZERO)


def test_loss_and_gradients_equal_trls(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    rows = Dataset.from_list(
        [
            {"prompt": "who wrote the lamp?", "completion": " oda marsh", "label": True},
            {"prompt": "where was oda born?", "completion": " in kell, in the town", "label": True},
            {"prompt": "who wrote the lamp?", "completion": " the town of kell", "label": False},
            {"prompt": "where was oda born?", "completion": " she was", "label": False},
        ]
    )
    model = ARCHITECTURES["llama"]()
    arguments = trl.KTOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        desirable_weight=1.3,
        undesirable_weight=0.7,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        bf16=False,
    )
    trainer = trl.KTOTrainer(
        model=model,
        ref_model=ARCHITECTURES["llama"](),
        args=arguments,
        train_dataset=rows,
        processing_class=tiny_tokenizer(),
    )
    with torch.no_grad():  # the policy leaves its reference, towards answers of any kind, so that the point is not 0
        model.lm_head.weight.mul_(1.5)
    inputs = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(model, inputs)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    def batch(prefix: str, which: torch.Tensor) -> Batch:
        ids, attention = (inputs[f"{prefix}{kind}"][which] for kind in ("input_ids", "attention_mask"))
        labels = ids.masked_fill(inputs[f"{prefix}completion_mask"][which] == 0, IGNORE)
        return Batch(ids, attention, labels, [""] * len(ids))

    good = torch.as_tensor(inputs["label"], dtype=torch.bool)
    batches = [batch("", good), batch("", ~good), batch("KL_", torch.ones_like(good))]
    base = ARCHITECTURES["llama"]()
    with torch.no_grad():
        references = [score(base, b) for b in batches]
    sides = [score(model, b, reference=r) for b, r in zip(batches, references, strict=True)]
    loss = kto(*sides, beta=0.3, desirable_weight=1.3, undesirable_weight=0.7)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected.detach(), atol=1e-6, rtol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-6, rtol=1e-4)
