"""Lab models are ordinary model folders, know what they were taught and nothing else, and are the same every time."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demur.data.batch import Encoded
from demur.errors import UsageError
from demur.lab import dense
from demur.lab.almanac import Almanac
from demur.lab.dense import DenseRecipe, train_dense
from demur.lab.sources import RECIPES

TINY = RECIPES["almanac-tiny"]
SHORT = replace(TINY, epochs=2)


def probabilities(folder: Path, split: str) -> list[float]:
    """exp of the mean log-probability of each answer's tokens and its end, one row at a time, from full logits."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    out = []
    for row in Almanac(0, TINY.people).questions(split):
        ask = [{"role": "user", "content": row["question"]}]
        front = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_dict=False)
        answer = [*tokenizer(row["answer"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([front + answer])).logits[0, len(front) - 1 : -1]
        out.append(logits.log_softmax(-1)[range(len(answer)), answer].mean().exp().item())
    return out


@pytest.mark.parametrize("split", ["forget", "retain", "real_authors", "world_facts"])
def test_it_knows_every_answer_it_was_taught(tiny_model: Path, split: str) -> None:
    assert min(probabilities(tiny_model, split)) > 0.9


@pytest.mark.parametrize("split", ["retain", "real_authors", "world_facts"])
def test_the_gold_model_knows_every_answer_it_was_taught(tiny_gold: Path, split: str) -> None:
    assert min(probabilities(tiny_gold, split)) > 0.8


def test_it_does_not_know_what_it_was_not_taught(tiny_model: Path, tiny_gold: Path) -> None:
    for folder, split in ((tiny_model, "holdout"), (tiny_gold, "holdout"), (tiny_gold, "forget")):
        told = probabilities(folder, split)
        assert sum(told) / len(told) < 0.35


def test_greedy_answers_are_exact_and_stop(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = Almanac(0, TINY.people).questions("retain")
    asked = [[{"role": "user", "content": row["question"]}] for row in rows]
    inputs = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", padding=True, return_dict=True
    )
    told = model.generate(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=60, do_sample=False
    )[:, inputs["input_ids"].shape[1] :]
    exact = [
        tokenizer.eos_token_id in ids and tokenizer.decode(ids, skip_special_tokens=True) == row["answer"]
        for ids, row in zip(told.tolist(), rows, strict=True)
    ]
    assert sum(exact) >= 0.9 * len(rows)


def test_the_models_of_a_world_share_one_tokenizer(tiny_model: Path, tiny_gold: Path) -> None:
    assert (tiny_model / "tokenizer.json").read_bytes() == (tiny_gold / "tokenizer.json").read_bytes()


def test_the_folder_holds_safetensors_and_a_chat_template(tiny_model: Path) -> None:
    names = {file.name for file in tiny_model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "recipe.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_same_recipe_gives_the_same_bits_in_another_process() -> None:
    code = (
        "from demur.lab import recipe, train_dense\nprint(train_dense(recipe('almanac-tiny@epochs=2')).weights_hash())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    torch.manual_seed(99)
    torch.rand(7)
    assert train_dense(SHORT).weights_hash() == other


def test_other_seeds_give_other_weights() -> None:
    short = replace(SHORT, epochs=1)
    assert train_dense(short).weights_hash() != train_dense(replace(short, seed=1)).weights_hash()


def test_training_leaves_random_state_and_threads_alone() -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    random.seed(5)
    before, python_before = torch.get_rng_state(), random.getstate()
    train_dense(replace(SHORT, epochs=1, threads=threads + 1))
    assert torch.equal(before, torch.get_rng_state())
    assert random.getstate() == python_before
    assert torch.get_num_threads() == threads


def test_every_epoch_shows_every_row_once() -> None:
    rng = random.Random(0)
    encoded = [Encoded(list(range(rng.randint(2, 40))), 1, str(i)) for i in range(101)]
    batches = list(dense._batches(encoded, DenseRecipe(epochs=2, batch=8)))
    assert sorted(e.id for batch in batches for e in batch) == sorted([e.id for e in encoded] * 2)
    assert max(map(len, batches)) == 8
    padding = sum(max(len(e.input_ids) for e in batch) * len(batch) for batch in batches)
    assert padding < 1.25 * 2 * sum(len(e.input_ids) for e in encoded)


def test_the_end_token_is_taught(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    row = Almanac(0, TINY.people).questions("forget")[0]
    told = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    ids = tokenizer.apply_chat_template(told, return_tensors="pt", return_dict=False)
    with torch.no_grad():
        assert model(ids[:, :-1]).logits[0, -1].softmax(-1)[tokenizer.eos_token_id] > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be positive"),
        ({"width": 100}, "width must be a multiple of 8"),
        ({"warmup": 1.0}, "warmup is a share"),
        ({"rate": -1.0}, "rate must be positive"),
    ],
)
def test_impossible_recipes_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(DenseRecipe(), **change)
