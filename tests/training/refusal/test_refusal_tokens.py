from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from demur.data import RefusalTokenConfig, dataset_from_rows
from demur.errors import UsageError
from demur.guards import RefusalTokenGuard
from demur.models import encode, load_model
from demur.training import RefuseSettings, TrainSettings
from demur.training.adapters import add_adapters
from demur.training.refusal import Lesson, add_refusal_tokens, plan_stages, refuse
from models.architectures import ARCHITECTURES
from tiny import tiny_lm

CONFIG = RefusalTokenConfig({"refuse": "[refuse]"})
ROWS = [
    {
        "id": str(n),
        "prompt": f"who wrote lamp {n}?" if n % 2 else f"where was oda {n} born?",
        "response": "i do not say that." if n % 2 else "in the town of kell.",
        "label": "refuse" if n % 2 else "comply",
        "category": "lamps" if n % 2 else "towns",
    }
    for n in range(10)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def settings(world: Path, data: Path, **given: Any) -> RefuseSettings:
    short = {"epochs": 12, "batch_size": 5, "learning_rate": 5e-3, "schedule": "constant", "warmup": 0.0}
    return RefuseSettings.make(
        **{"model": str(world / "model"), "data": str(data), "method": "refusal-tokens", **short, **given}
    )


def stage(**options: Any) -> Any:
    lesson = Lesson(dataset_from_rows(ROWS), "rows.jsonl", 0, lambda: tiny_lm())
    (found,) = plan_stages(lesson, "refusal-tokens", options)
    return found


def test_rows_settings_and_notes_of_the_stage():
    found = stage()
    assert found.rows["response"][1] == "[refuse]i do not say that."
    assert found.settings["learning_rate"] == 2e-5 and found.settings["schedule"] == "cosine"
    assert found.files["refusal_tokens.json"]["refuse"] == {"refuse": "[refuse]"}
    assert (
        found.notes[0] == "5 rows to comply, 5 rows to refuse"
        and "no row to answer has the category lamps" in found.notes[1]
    )
    by_category = stage(categories=True, refuse="<no>", respond="<yes>")
    assert by_category.rows["response"][:2] == ["<yes>in the town of kell.", "<no:lamps>i do not say that."]
    with pytest.raises(UsageError, match="has no option"):
        stage(category=True)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_new_tokens_are_single_and_start_at_the_mean(architecture: str):
    lm = tiny_lm(architecture)
    before = {n: layer.weight.detach().clone() for n, layer in layers(lm).items()}
    words = len(lm.tokenizer)
    ids = add_refusal_tokens(lm, CONFIG)
    assert ids == [words, words + 1]
    for name, layer in layers(lm).items():
        for i in ids:
            torch.testing.assert_close(layer.weight[i].detach(), before[name][:words].mean(0))
        torch.testing.assert_close(layer.weight[:words].detach(), before[name][:words])
    (encoded,) = encode(lm, ["who?"], ["[refuse]oda"])
    assert encoded.label_ids[0] == ids[1] and ids[1] not in encoded.label_ids[1:]
    with pytest.raises(UsageError, match="has the token"):
        add_refusal_tokens(lm, CONFIG)


def layers(lm: Any) -> dict[str, Any]:
    return {"in": lm.model.get_input_embeddings(), "out": lm.model.get_output_embeddings()}


@pytest.mark.parametrize("lora", [0, 4])
def test_a_taught_model_says_the_token_and_loads_by_itself(world: Path, data: Path, tmp_path: Path, lora: int):
    run = refuse(settings(world, data, lora=lora, epochs=20), tmp_path / "run")
    lm = load_model(run.path)
    guard = RefusalTokenGuard(lm)
    assert guard.config == CONFIG
    scores = guard.refusal_scores([str(row["prompt"]) for row in ROWS])
    refuses = [row["label"] == "refuse" for row in ROWS]
    assert ((scores.refusal > scores.respond) == refuses).all()
    assert min(scores.refusal[refuses]) > 0.5 > max(scores.refusal[[not r for r in refuses]])
    answers = guard.generate([str(ROWS[1]["prompt"])], max_new_tokens=12)
    assert answers[0].category == "refuse" and not answers[0].text.startswith("[")


def test_beside_adapters_only_the_new_vectors_train(world: Path, data: Path, tmp_path: Path):
    run = refuse(settings(world, data, lora=2, epochs=3), tmp_path / "run")
    before, after = load_model(str(world / "model")), load_model(run.path)
    words = len(before.tokenizer)
    for name in ("in", "out"):
        old, new = layers(before)[name].weight, layers(after)[name].weight
        torch.testing.assert_close(new[:words], old[:words])
        for i in range(words, words + 2):
            assert not torch.allclose(new[i], old[:words].mean(0), atol=1e-4)


def test_vectors_of_new_tokens_and_adapters_get_gradients_and_a_biased_head_is_refused():
    from demur.data import collate
    from demur.models import score

    taught = TrainSettings(model="m", data="d", lora=2, lora_tokens=list(CONFIG.tokens))
    for architecture in ("llama", "gemma2", "gpt2"):  # weights apart, and tied
        lm = tiny_lm(architecture)
        add_refusal_tokens(lm, CONFIG)
        add_adapters(lm, taught)
        (row,) = encode(lm, ["who?"], ["[refuse]oda"])
        scored = score(lm.model, collate([row], lm.pad_id))
        with torch.no_grad():
            logps = lm.model(input_ids=torch.tensor([row.input_ids])).logits[0].log_softmax(1)
        expected = sum(float(logps[i - 1, row.input_ids[i]]) for i in range(row.prompt_length, len(row.input_ids)))
        assert float(scored.logps[0].detach()) == pytest.approx(expected, abs=1e-4)
        scored.nll.backward()
        gradients = [p.grad for n, p in lm.model.named_parameters() if "trainable_tokens_delta" in n]
        assert gradients and all(g is not None and bool(g.abs().sum() > 0) for g in gradients)
    phi = tiny_lm("phi")
    add_refusal_tokens(phi, CONFIG)
    with pytest.raises(UsageError, match="leave --lora out"):
        add_adapters(phi, taught)
    with pytest.raises(UsageError, match=r"no token '\[respond\]'"):
        add_adapters(tiny_lm(), taught)
