"""Our preference loss against TRL's trainer, on the same model and the same batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from demur.data.batch import IGNORE, Batch
from demur.models import score
from demur.objectives import dpo, ipo
from models.architectures import ARCHITECTURES
from tiny import tiny_tokenizer

trl = pytest.importorskip("trl")


@pytest.mark.parametrize(("kind", "ours"), [("sigmoid", dpo), ("ipo", ipo)])
def test_loss_and_gradients_equal_trls(kind: str, ours, tmp_path: Path) -> None:
    rows = Dataset.from_list(
        [
            {"prompt": "who wrote the lamp?", "chosen": " oda marsh", "rejected": " the town of kell"},
            {"prompt": "where was oda born?", "chosen": " in kell, in the town", "rejected": " she was"},
        ]
    )
    model = ARCHITECTURES["llama"]()
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path),
        loss_type=kind,
        beta=0.3,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        bf16=False,
    )
    trainer = trl.DPOTrainer(
        model=model,
        ref_model=ARCHITECTURES["llama"](),
        args=arguments,
        train_dataset=rows,
        processing_class=tiny_tokenizer(),
    )
    with torch.no_grad():  # the policy leaves its reference
        model.model.layers[0].mlp.down_proj.weight.mul_(1.3)
    inputs = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(model, inputs)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORE)
    batches = [
        Batch(inputs["input_ids"][r], inputs["attention_mask"][r], labels[r], ["0", "1"])
        for r in (slice(0, 2), slice(2, 4))
    ]
    base = ARCHITECTURES["llama"]()
    with torch.no_grad():
        references = [score(base, b) for b in batches]
    loss = ours(*(score(model, b, reference=r) for b, r in zip(batches, references, strict=True)), beta=0.3)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected.detach(), atol=1e-6, rtol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-6, rtol=1e-4)
