"""DPO with fine-tuning on the chosen response: worked numbers, limits, and TRL's loss of the same name."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from demur.objectives import dpo_loss, dpo_sft, dpo_sft_loss
from models.architectures import ARCHITECTURES
from tiny import tiny_tokenizer

POLICY, REFERENCE = (-12.0, -15.0), (-13.0, -14.0)


def worked(**options: float) -> float:
    values = [torch.tensor([value]) for value in (*POLICY, *REFERENCE)]
    return float(dpo_sft_loss(*values, torch.tensor([10]), **options))


def test_it_has_its_worked_values() -> None:
    assert worked(sft_weight=0.0) == pytest.approx(0.598139, abs=1e-6)
    assert worked() == pytest.approx(1.798139, abs=1e-6)
    assert worked(sft_weight=10.0) == pytest.approx(12.598139, abs=1e-5)  # what a sum over ten tokens would be


def test_without_the_second_term_it_is_dpo() -> None:
    values = [torch.randn(5, generator=torch.Generator().manual_seed(i)) - 9 for i in range(4)]
    assert torch.equal(dpo_sft_loss(*values, torch.arange(1, 6), sft_weight=0.0), dpo_loss(*values))


def test_at_its_reference_the_first_term_is_ln_2() -> None:
    logps = torch.tensor([-3.0, -8.0])
    loss = dpo_sft_loss(logps, 2 * logps, logps, 2 * logps, torch.tensor([2, 4]), beta=0.7, sft_weight=0.0)
    assert float(loss) == pytest.approx(math.log(2), abs=1e-6)


def test_where_chosen_and_rejected_are_the_same_only_fine_tuning_pulls() -> None:
    logps = torch.tensor([-3.0, -8.0], requires_grad=True)
    stored = torch.tensor([-4.0, -6.0])
    lengths = torch.tensor([2, 4])
    (slope,) = torch.autograd.grad(dpo_sft_loss(logps, logps, stored, stored, lengths), logps)
    torch.testing.assert_close(slope, -1.0 / (2 * lengths))


def test_sequences_count_alike_however_long_they_are() -> None:
    chosen = torch.tensor([-4.0, -90.0])
    loss = dpo_sft_loss(chosen, chosen, chosen, chosen, torch.tensor([4, 30]))
    assert float(loss) == pytest.approx(math.log(2) + (1.0 + 3.0) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "problem"), [({"beta": 0.0}, "beta"), ({"sft_weight": -1.0}, "sft_weight"), ({}, "shapes differ")]
)
def test_options_and_shapes_that_make_no_sense_are_refused(options: dict[str, float], problem: str) -> None:
    one = torch.zeros(2)
    lengths = torch.ones(2 if options else 3)
    with pytest.raises(ValueError, match=problem):
        dpo_sft_loss(one, one, one, one, lengths, **options)


def test_it_equals_trls_at_equal_lengths(tmp_path: Path) -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    from demur.data.batch import IGNORE, Batch
    from demur.models import score

    rows = datasets.Dataset.from_list([{"prompt": "who?", "chosen": " oda marsh", "rejected": " the town"}] * 2)
    model, base = ARCHITECTURES["llama"](), ARCHITECTURES["llama"]()
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path),
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.6],
        beta=0.3,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        bf16=False,
    )
    trainer = trl.DPOTrainer(
        model=model, ref_model=base, args=arguments, train_dataset=rows, processing_class=tiny_tokenizer()
    )
    with torch.no_grad():  # the policy leaves its reference
        model.model.layers[0].mlp.down_proj.weight.mul_(1.3)
    inputs = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(model, inputs)
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORE)
    sides = [
        Batch(inputs["input_ids"][r], inputs["attention_mask"][r], labels[r], ["0", "1"])
        for r in (slice(0, 2), slice(2, 4))
    ]
    with torch.no_grad():
        stored = [score(base, side) for side in sides]
    won, lost = (score(model, side, reference=known) for side, known in zip(sides, stored, strict=True))
    torch.testing.assert_close(dpo_sft(won, lost, beta=0.3, sft_weight=0.6), expected, atol=1e-6, rtol=1e-6)


def test_the_registered_form_reads_logps_lengths_and_references() -> None:
    def side(logps: float, stored: float) -> SimpleNamespace:
        known = SimpleNamespace(logps=torch.tensor([stored]))
        return SimpleNamespace(logps=torch.tensor([logps]), lengths=torch.tensor([10]), reference=known)

    won, lost = (side(p, r) for p, r in zip(POLICY, REFERENCE, strict=True))
    assert float(dpo_sft(won, lost)) == pytest.approx(1.798139, abs=1e-6)
