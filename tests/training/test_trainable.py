from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from demur import UsageError
from demur.training import ForgetSettings, forget
from demur.training.trainable import train_only
from models.architectures import ARCHITECTURES

Make = Callable[..., ForgetSettings]


def test_only_what_matches_changes(make_settings: Make, world: Path, tmp_path: Path) -> None:
    run = forget(
        make_settings(objective="graddiff", trainable=r"layers\.1\.mlp\.down_proj", epochs=1), tmp_path / "run"
    )
    before, after = (load_file(folder / "model.safetensors") for folder in (world / "model", run.model_path))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["model.layers.1.mlp.down_proj.weight"]


def test_of_adapters_only_those_that_match_change(make_settings: Make, tmp_path: Path) -> None:
    run = forget(make_settings(trainable="layers.1.mlp", lora=2, epochs=1), tmp_path / "run")
    trained = {
        n for n, t in load_file(run.model_path / "adapter_model.safetensors").items() if "lora_B" in n and t.any()
    }
    assert trained and all("layers.1.mlp" in name for name in trained)


def test_what_was_frozen_stays_frozen() -> None:
    model = ARCHITECTURES["llama"]()
    model.model.layers[0].requires_grad_(False)
    kept = train_only(model, "mlp")
    assert kept == [n for n, p in model.named_parameters() if p.requires_grad]
    assert all("layers.1.mlp" in name for name in kept) and len(kept) == 3


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("layers.7.mlp", r"--trainable 'layers.7.mlp' matches none of the \d+ parameters, such as model\."),
        ("layers.[", r"--trainable 'layers.\[' is no regular expression: "),
    ],
)
def test_a_pattern_that_names_nothing_is_refused(
    pattern: str, message: str, make_settings: Make, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        forget(make_settings(trainable=pattern), tmp_path / "run")
    assert not (tmp_path / "run").exists()
