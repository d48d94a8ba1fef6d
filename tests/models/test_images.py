"""Pictures reach the model that scores and the one that answers, each beside its own question."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from demur.data import collate, question_answer
from demur.errors import UsageError
from demur.lab import rows
from demur.models import LanguageModel, LocalEngine, encode, encode_prompts, joint_score, load_model, score, token_stats
from demur.models.images import freeze_vision, seeing_modules
from tiny import tiny_lm
from tiny_vision import tiny_vision


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_vision()


@pytest.fixture(scope="module")
def mixed(lm: LanguageModel) -> list:
    """Two pictures with one question, another question, and one without a picture."""
    forget, decoupled = (rows(f"scenes-digits:{name}").select(range(3)) for name in ("forget", "decoupled"))
    prompts = [*question_answer(forget)[0], *question_answer(decoupled)[0][:1], "what of the weather?"]
    answers = [*forget["answer"], *decoupled["answer"][:1], "fine"]
    return encode(lm, prompts, answers)


def plain(lm: LanguageModel, item) -> torch.Tensor:
    """The labels' log-probabilities by transformers itself."""
    ids = torch.tensor([item.input_ids])
    pixels = {} if item.pixels is None else {"pixel_values": item.pixels()}
    logps = lm.model(input_ids=ids, **pixels).logits.log_softmax(-1)[0, item.prompt_length - 1 : -1]
    return logps.gather(1, ids[0, item.prompt_length :, None])[:, 0]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_are_those_of_transformers_with_and_without_pictures(lm: LanguageModel, mixed: list, side: str) -> None:
    scored = score(lm.model, collate(mixed, lm.pad_id, side))
    expected = torch.stack([plain(lm, item).sum() for item in mixed])
    torch.testing.assert_close(scored.logps, expected, rtol=1e-4, atol=1e-4)
    assert not torch.isclose(expected[0], plain(lm, mixed[3]).sum())


@torch.no_grad()
def test_joint_scoring_gives_every_row_its_own_picture(lm: LanguageModel, mixed: list) -> None:
    parts = {"a": mixed[:2], "b": mixed[4:], "c": mixed[2:4]}
    batches = {role: collate(part, lm.pad_id) for role, part in parts.items()}
    together = joint_score(lm.model, batches, {}, lm.pad_id)
    for role, batch in batches.items():
        torch.testing.assert_close(together[role].logps, score(lm.model, batch).logps, rtol=1e-4, atol=1e-4)


def test_one_question_beside_two_pictures_is_two_prompts_for_prefix_sharing(lm: LanguageModel) -> None:
    forget, decoupled = (rows(f"scenes-digits:{name}").select(range(1)) for name in ("forget", "decoupled"))
    (first,), (second,) = question_answer(forget)[0], question_answer(decoupled)[0]
    words = ["glamo nabel", "durt"]
    encoded = encode(lm, [first, first, second, second], words * 2)
    assert encoded[0].input_ids == encoded[2].input_ids and encoded[0].images != encoded[2].images
    shared = [s.logps for s in token_stats(lm, encoded)]
    with torch.no_grad():
        for found, item in zip(shared, encoded, strict=True):
            torch.testing.assert_close(torch.from_numpy(found).float(), plain(lm, item), rtol=1e-4, atol=1e-4)


def test_answers_depend_on_the_picture_and_not_on_the_batch(lm: LanguageModel) -> None:
    prompts = [*question_answer(rows("scenes-digits:benign").select(range(0, 60, 10)))[0], "what of the weather?"]
    whole = LocalEngine(lm, 8).generate(prompts, max_new_tokens=4, temperature=1.0)
    single = LocalEngine(lm, 1).generate(prompts[::-1], max_new_tokens=4, temperature=1.0)[::-1]
    assert [g.token_ids for g in whole] == [g.token_ids for g in single]
    assert len({g.token_ids for g in whole[:6]}) > 1


def test_a_model_without_an_image_tower_says_what_to_pass() -> None:
    prompt = question_answer(rows("scenes-digits:forget").select(range(1)))[0][0]
    for call in (lambda m: encode(m, [prompt], ["no"], ["row-7"]), lambda m: encode_prompts(m, [prompt])):
        with pytest.raises(UsageError, match="has no image tower: pass a vision-language model"):
            call(tiny_lm())


def test_pictures_need_the_chat_template(lm: LanguageModel) -> None:
    prompt = question_answer(rows("scenes-digits:forget").select(range(1)))[0][0]
    plainly = LanguageModel(lm.model, lm.tokenizer, "plain", images=lm.images)
    with pytest.raises(UsageError, match="--template chat"):
        encode(plainly, [prompt], ["no"])


def test_a_file_that_is_no_picture_is_named(lm: LanguageModel, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    prompt = [{"role": "user", "content": [{"type": "image", "path": str(broken)}, {"type": "text", "text": "hm?"}]}]
    with pytest.raises(UsageError, match=r"broken\.png as a picture"):
        encode(lm, [prompt], ["no"])


def test_a_picture_of_another_size_takes_the_model_s_own_number_of_tokens(lm: LanguageModel, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "wide.png")
    prompt = [{"role": "user", "content": [{"type": "image", "path": str(tmp_path / "wide.png")}]}]
    (item,) = encode(lm, [prompt], ["no"])
    assert item.input_ids.count(lm.model.config.image_token_id) == 4 and item.pixels().shape == (1, 3, 8, 8)


def test_adapters_leave_the_tower_alone_and_the_projector_unless_it_is_named() -> None:
    model = tiny_vision().model
    whole, tower = seeing_modules(model, projector=True), seeing_modules(model, projector=False)
    assert all("vision_tower" in name for name in tower) and tower
    assert {name.rpartition(".")[2] for name in set(whole) - set(tower)} == {"linear_1", "linear_2"}
    assert seeing_modules(tiny_lm().model, projector=True) == []
    freeze_vision(model)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all("vision_tower" in name for name in frozen)


def test_a_saved_adapter_of_a_vision_model_loads_with_its_processor(tmp_path: Path) -> None:
    import peft

    lm = tiny_vision()
    lm.save(tmp_path / "base")
    lm = load_model(tmp_path / "base")
    excluded = seeing_modules(lm.model, projector=True)
    config = peft.LoraConfig(target_modules="all-linear", exclude_modules=excluded, task_type="CAUSAL_LM")
    lm.model = peft.get_peft_model(lm.model, config)
    lm.model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    lm.save(tmp_path / "adapter")
    back = load_model(tmp_path / "adapter")
    assert back.images is not None and isinstance(back.model, peft.PeftModel)
