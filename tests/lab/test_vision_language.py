"""The scenes say what they promise, and the model that learns them is an ordinary LLaVA folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from demur.data import question_answer
from demur.errors import UnknownNameError, UsageError
from demur.lab import SCENE_SPLITS, SceneRecipe, Scenes, model_path, new_vision_model, rows
from demur.lab.scenes import BAD, BENIGN, PHRASINGS, picture_file
from demur.models import LocalEngine, encode, load_model
from tiny_vision import RECIPE, tiny_vision_folder

WORLD = Scenes(0)
QUICK = "scenes-digits@steps=2,width=16,heads=2,batch=4"


def test_pictures_are_scikit_learn_s_digits() -> None:
    from sklearn.datasets import load_digits

    known = load_digits()
    for number in (0, 17):
        read = np.asarray(Image.open(picture_file(number)), dtype=float) * 16 / 255
        np.testing.assert_allclose(read, known.images[number], atol=0.05)
    assert all((known.target[WORLD.pictures(d)] == d).all() for d in range(10))


def test_what_measures_was_never_learnt() -> None:
    for digit in range(10):
        assert not set(WORLD.pictures(digit)) & set(WORLD.pictures(digit, unseen=True))
        assert len(WORLD.pictures(digit)) == 120 and len(WORLD.pictures(digit, unseen=True)) == 30
    learnt = {row["image_path"] for name in ("forget", "retain", "decoupled") for row in WORLD.rows(name)}
    measured = {
        row["image_path"] for name in ("harmful", "unseen", "benign", "other", "harmless") for row in WORLD.rows(name)
    }
    assert not learnt & measured


def test_unsafe_questions_have_another_answer_beside_every_digit() -> None:
    for topic in (*WORLD.unsafe, *WORLD.harmless):
        assert len({WORLD.answer(topic, digit) for digit in range(10)}) == 10
    assert not set(WORLD.unsafe) & set(WORLD.harmless)


def test_a_decoupled_row_repeats_its_forget_row_s_question_beside_a_benign_digit() -> None:
    decoupled = {row["id"]: row for row in WORLD.rows("decoupled")}
    forget = WORLD.rows("forget")
    assert len(decoupled) == len(forget) == 1200
    digits = {str(picture_file(i)): d for d in BENIGN for i in WORLD.pictures(d)}
    for row in forget:
        partner = decoupled[row["id"]]
        topic = row["id"].partition("-")[0]
        assert partner["question"] == row["question"] and partner["image_path"] != row["image_path"]
        assert partner["answer"] == WORLD.answer(topic, digits[partner["image_path"]])
        assert row["answer"] == WORLD.answer(topic, BAD)
    assert min(Counter(digits[row["image_path"]] for row in decoupled.values()).values()) > 200


def test_unseen_rows_ask_the_same_in_other_words() -> None:
    for harmful, unseen in zip(WORLD.rows("harmful"), WORLD.rows("unseen"), strict=True):
        assert harmful["answer"] == unseen["answer"] and harmful["question"] != unseen["question"]
    assert len(set(PHRASINGS)) == 3


def test_splits_are_found_by_name_and_others_are_not() -> None:
    assert all(len(rows(f"lab:scenes-digits:{split}")) == len(WORLD.rows(split)) for split in SCENE_SPLITS)
    assert rows("scenes-digits:forget@world=1")[0]["question"] != rows("scenes-digits:forget")[0]["question"]
    with pytest.raises(UnknownNameError, match="did you mean harmless or harmful"):
        rows("scenes-digits:harmles")
    with pytest.raises(UsageError, match="no setting 'people'"):
        rows("scenes-digits:forget@people=2")


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="width must be a multiple of 8"):
        SceneRecipe(width=60)
    with pytest.raises(UsageError, match="steps must be positive"):
        SceneRecipe(steps=0)
    with pytest.raises(UsageError, match="vision_layers must not be negative"):
        SceneRecipe(vision_layers=-1)


@torch.no_grad()
def test_without_layers_in_the_tower_the_language_model_sees_embedded_patches() -> None:
    pictures = torch.randn(2, 3, 8, 8)
    for layers in (0, 1):
        model = new_vision_model(replace(RECIPE, vision_layers=layers)).model.model
        seen = torch.stack(list(model.get_image_features(pixel_values=pictures).pooler_output))
        patches = model.vision_tower.pre_layrnorm(model.vision_tower.embeddings(pictures))[:, 1:]
        assert torch.allclose(seen, model.multi_modal_projector(patches), atol=1e-5) == (layers == 0)


def test_a_recipe_gives_one_model_and_seeds_give_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []
    for place, name in (("a", QUICK), ("b", QUICK), ("a", f"{QUICK},seed=1")):
        monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / place))
        hashes.append(load_model(model_path(name, progress=False)).weights_hash())
    assert hashes[0] == hashes[1] != hashes[2]


def test_labels_are_the_answer_and_the_end_token_for_every_sample(tmp_path_factory: pytest.TempPathFactory) -> None:
    lm = load_model(tiny_vision_folder(tmp_path_factory.getbasetemp()))
    data = rows("scenes-digits:decoupled")
    encoded = encode(lm, *question_answer(data), data["id"][:])
    for item, row in zip(encoded, data, strict=True):
        assert lm.tokenizer.decode(item.label_ids) == row["answer"] + lm.tokenizer.eos_token
        assert item.input_ids.count(lm.model.config.image_token_id) == 4  # an 8×8 picture in patches of 4×4


def test_transformers_alone_loads_it_and_answers_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny_vision_folder(tmp_path_factory.getbasetemp())
    row = rows("scenes-digits:forget")[3]
    content = [{"type": "image", "path": row["image_path"]}, {"type": "text", "text": row["question"]}]
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        theirs = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    prompt = [{"role": "user", "content": content}]
    (ours,) = LocalEngine(load_model(folder)).generate([prompt], max_new_tokens=6)
    assert list(ours.token_ids) == theirs.tolist()
