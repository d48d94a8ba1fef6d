from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demur import UsageError
from demur.models import hash_weights, load_model, resolve_model
from tiny import save_tiny, tiny_lm


def test_saved_model_loads_with_the_same_weights_and_in_eval_mode(tmp_path: Path) -> None:
    lm = load_model(save_tiny(tmp_path / "m"))
    assert lm.weights_hash() == tiny_lm().weights_hash()
    assert not lm.model.training and lm.template == "chat" and lm.context == 128


def test_weights_are_safetensors_and_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    assert (folder / "model.safetensors").is_file()
    (folder / "model.safetensors").unlink()
    torch.save(tiny_lm().model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="cannot load"):
        load_model(folder)


def test_adapter_folder_loads_on_its_base(tmp_path: Path) -> None:
    import peft

    base = save_tiny(tmp_path / "base")
    lm = load_model(base)
    torch.manual_seed(0)
    model = peft.get_peft_model(lm.model, peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(tmp_path / "adapter")
    lm.tokenizer.save_pretrained(tmp_path / "adapter")
    again = load_model(tmp_path / "adapter")
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        torch.testing.assert_close(again.model(ids).logits, model.eval()(ids).logits)


def test_model_without_chat_template_asks_for_the_plain_one(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(UsageError, match="has no chat template: pass --template plain"):
        load_model(folder)
    with pytest.raises(UsageError, match="has no chat template"):
        load_model(folder, template="chat")
    assert load_model(folder, template="plain").template == "plain"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/at/all", "no model at nowhere/at/all"),
        ("./missing", "no model at ./missing"),
        ("lba:almanac", "unknown model source 'lba' in 'lba:almanac': did you mean lab"),
    ],
)
def test_unknown_model_names_are_explained(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_model(name)


def test_folder_that_is_no_model_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a model folder: it has no config\.json"):
        load_model(tmp_path)


def test_hash_sees_every_bit_and_not_the_order() -> None:
    a = {"x": torch.arange(4.0), "y": torch.ones(2, 2)}
    assert hash_weights(a) == hash_weights(dict(reversed(a.items())))
    assert hash_weights(a) != hash_weights({**a, "x": torch.arange(4.0).nextafter(torch.tensor(9.0))})
    assert hash_weights(a) != hash_weights({**a, "y": torch.ones(4)})
    assert hash_weights(a) != hash_weights({**a, "y": torch.ones(2, 2, dtype=torch.int32)})
