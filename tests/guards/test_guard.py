from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from demur import UsageError
from demur.guards import Guard, find_phrase, open_guard, prompt_embeddings
from demur.guards.memory import word_penalty
from demur.models import Engine, Generation, LanguageModel, LocalEngine, ResponseScore, encode_prompts
from guards.conftest import FORGET, OTHERS
from tiny import tiny_lm

QUESTIONS = [q for q, _ in FORGET]


def letters(texts: Sequence[str]) -> np.ndarray:
    """An encoder of one's own: how often each letter occurs."""
    return np.array([[t.lower().count(c) for c in "abcdefghijklmnopqrstuvwxyz0123456789"] for t in texts], float) + 1e-3


def test_the_guard_is_an_engine_around_an_engine(guard: Guard):
    assert isinstance(guard, Engine) and isinstance(guard.engine, Engine)
    answers = guard.generate([*OTHERS, *QUESTIONS], max_new_tokens=8)
    assert len(answers) == 9 and all(a.finish in ("stop", "length") for a in answers)
    assert guard.generate([]) == []


def test_fitted_prompts_are_told_apart(guard: Guard):
    assert (guard.classify(QUESTIONS) > 0.5).all() and (guard.classify(OTHERS) < 0.5).all()


def test_prompts_that_are_not_flagged_get_the_ordinary_answer_to_the_bit(guard: Guard):
    for options in ({}, {"temperature": 1.0, "seed": 3}, {"stop": ["e"]}):
        assert guard.generate(OTHERS, max_new_tokens=10, **options) == guard.engine.generate(
            OTHERS, max_new_tokens=10, **options
        )


def test_no_flagged_answer_says_a_phrase_of_its_item(guard: Guard):
    own = {item.question: item.phrases for item in guard.items}
    for question, answer in zip(QUESTIONS, guard.generate(QUESTIONS, max_new_tokens=20), strict=True):
        assert find_phrase(own[question], answer.text) is None


def test_scores_are_those_of_the_unguarded_model(guard: Guard):
    assert guard.score(QUESTIONS, ["oda"] * 3) == guard.engine.score(QUESTIONS, ["oda"] * 3)


@pytest.mark.parametrize("on_dead_end", ["eos", "refuse", "not that."])
def test_where_nothing_may_be_said_the_guard_does_not_fall_back_to_the_model(lm: LanguageModel, on_dead_end: str):
    everything = [chr(c) for c in range(97, 123)] + list("0123456789,'-!?.:") + ["the"]
    guard = Guard(lm, FORGET, extractor=lambda q, a: everything, on_dead_end=on_dead_end, beam_width=2)
    lm.model.generation_config.eos_token_id = None
    guard.fit(OTHERS)
    (answer,) = guard.generate(QUESTIONS[:1], max_new_tokens=6)
    assert find_phrase(everything, answer.text) is None  # a refusal that says a phrase is not given either


def test_a_dead_end_gives_the_text_that_was_asked_for(lm: LanguageModel, guard: Guard):
    guard.on_dead_end = "8 8 8"
    restriction = guard.matcher(())
    from demur.guards.beam_search import Found

    assert guard._generation(Found((), 0.0, "dead end"), restriction, ()).text == "8 8 8"


def test_the_prompt_embedding_is_the_masked_mean_of_the_penultimate_hidden_states(lm: LanguageModel):
    prompts = [*QUESTIONS, "a"]
    found = prompt_embeddings(lm, prompts, batch_size=4)
    for prompt, row in zip(prompts, found, strict=True):
        with torch.no_grad():
            states = lm.model(torch.tensor(encode_prompts(lm, [prompt])), output_hidden_states=True).hidden_states
        np.testing.assert_allclose(row, states[-2][0].mean(0).numpy(), atol=1e-5)


def test_words_cost_their_cosine_below_the_threshold_and_everything_from_it_on():
    costs = word_penalty(np.array([0.49, 0.50, 0.51, -0.2], np.float32), 0.5)
    np.testing.assert_allclose(costs, [0.49, np.inf, np.inf, 0.0], rtol=1e-6)


def test_a_word_near_a_phrase_is_not_said(lm: LanguageModel):
    plain = Guard(lm, FORGET, extractor=lambda q, a: [])
    plain.fit(OTHERS)
    (free,) = plain.generate(QUESTIONS[:1], max_new_tokens=12)
    word = free.text.split()[0].strip(",'-!?.:")
    near = Guard(lm, FORGET, extractor=lambda q, a: [word + "xq"], encoder=letters, soft_threshold=0.6)
    near.fit(OTHERS)
    (answer,) = near.generate(QUESTIONS[:1], max_new_tokens=12)
    assert not near._says((), answer.text) and word not in answer.text.split()


@pytest.mark.parametrize("key", ["question", "answer"])
@pytest.mark.parametrize("encoder", [None, "embeddings", letters], ids=["tfidf", "embeddings", "own"])
def test_the_closest_item_is_found_by_question_or_answer(lm: LanguageModel, key: str, encoder: object):
    guard = Guard(lm, FORGET, key=key, encoder=encoder)  # type: ignore[arg-type]
    guard.fit(OTHERS)
    for place, pair in enumerate(FORGET):
        assert guard.explain(pair[key == "answer"], max_new_tokens=4).item.id == str(place)


def test_an_explanation_says_what_was_looked_up_and_dropped(lm: LanguageModel):
    plain = Guard(lm, FORGET, extractor=lambda q, a: [])
    plain.fit(OTHERS)
    said = plain.explain(QUESTIONS[0], 8)
    assert said.flagged and said.dropped == () and said.similarity == pytest.approx(1.0)
    guard = Guard(lm, FORGET, extractor=lambda q, a: [said.answer.text[:2]])
    guard.fit(OTHERS)
    found = guard.explain(QUESTIONS[0], 8)
    assert found.item.question == QUESTIONS[0] and found.item.phrases == (said.answer.text[:2],)
    assert any(d.reason == "phrase" and 0 < d.probability <= 1 for d in found.dropped)
    passed = guard.explain(OTHERS[0], 8)
    assert not passed.flagged and passed.dropped == ()


def test_pairs_are_added_and_removed_without_the_model(guard: Guard, lm: LanguageModel):
    weights = lm.weights_hash()
    new = "is it raining in the town of kell?"
    before = guard.classify([new])
    (name,) = guard.add([(new, "never on Thursdays")])
    found = guard.explain(new, 4)
    assert found.flagged and found.item.id == name and found.item.phrases == ("Thursdays",)
    guard.remove([name])
    assert guard.classify([new]) == pytest.approx(before) and len(guard.items) == 3
    assert lm.weights_hash() == weights
    with pytest.raises(UsageError, match="no forget item '77'"):
        guard.remove(["77"])
    with pytest.raises(UsageError, match="would be empty"):
        guard.remove(["0", "1", "2"])


def test_rows_keep_their_ids(lm: LanguageModel):
    rows = Dataset.from_list([{"id": "x", "question": q, "answer": a} for q, a in FORGET[:1]])
    assert [item.id for item in Guard(lm, rows).items] == ["x"]


@pytest.mark.parametrize("encoder", [None, "embeddings"])
def test_a_saved_guard_answers_and_explains_as_before(lm: LanguageModel, tmp_path: Path, encoder: str | None):
    guard = Guard(LocalEngine(lm, 4), FORGET, encoder=encoder, beam_width=3)  # type: ignore[arg-type]
    guard.fit(OTHERS)
    guard.save(tmp_path / "guard")
    assert sorted(p.suffix for p in (tmp_path / "guard").iterdir()) == [".json", ".safetensors"]
    again = open_guard(tmp_path / "guard", LocalEngine(lm, 4))
    assert isinstance(again, Guard) and again.items == guard.items and again.beam_width == 3
    prompts = [*QUESTIONS, *OTHERS]
    np.testing.assert_array_equal(again.classify(prompts), guard.classify(prompts))
    assert again.generate(prompts, max_new_tokens=8) == guard.generate(prompts, max_new_tokens=8)
    again.add([("one more?", "yes, Thursdays")])
    assert len(again.items) == 4


def test_a_saved_guard_refuses_other_weights_encoders_and_folders(guard: Guard, lm: LanguageModel, tmp_path: Path):
    guard.save(tmp_path / "guard")
    other = tiny_lm()
    with torch.no_grad():
        other.model.get_input_embeddings().weight[0, 0] += 1
    with pytest.raises(UsageError, match="fitted on other weights"):
        Guard.load(tmp_path / "guard", other)
    with pytest.raises(UsageError, match="hidden states can be seen"):
        Guard.load(tmp_path / "guard", Parrot(["a"]))
    with pytest.raises(UsageError, match="vectors of dimension 36"):
        Guard.load(tmp_path / "guard", lm, encoder=letters)
    with pytest.raises(UsageError, match="holds no guard"):
        open_guard(tmp_path / "nothing", LocalEngine(lm))
    said = json.loads((tmp_path / "guard" / "guard.json").read_text())
    (tmp_path / "guard" / "guard.json").write_text(json.dumps({**said, "kind": "gard"}))
    with pytest.raises(UsageError, match="did you mean guard"):
        open_guard(tmp_path / "guard", LocalEngine(lm))


def test_wrong_use_is_refused(lm: LanguageModel):
    with pytest.raises(UsageError, match="forget set is empty"):
        Guard(lm, [])
    with pytest.raises(UsageError, match="not fitted"):
        Guard(lm, FORGET).generate(["a"])
    with pytest.raises(UsageError, match="pass some negatives"):
        Guard(lm, FORGET).fit([])
    with pytest.raises(UsageError, match="one vector a text"):
        Guard(lm, FORGET, encoder=lambda texts: np.zeros(3)).fit(OTHERS)
    for settings in ({"beam_width": 0}, {"key": "both"}, {"hard_threshold": 0.0}, {"resamples": -1}):
        with pytest.raises(UsageError):
            Guard(lm, FORGET, **settings)  # type: ignore[arg-type]
    changing = iter([4, 4, 5])
    guard = Guard(lm, FORGET, encoder=lambda texts: np.ones((len(texts), next(changing, 5))))
    with pytest.raises(UsageError, match="dimension 5"):
        guard.fit(OTHERS)
        guard.generate(QUESTIONS, max_new_tokens=2)
        guard.generate(QUESTIONS, max_new_tokens=2)
        guard.generate(QUESTIONS, max_new_tokens=2)


class Parrot:
    """An engine that shows neither tokens nor states: sampled answers come from a list, in turn."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers), 0

    def generate(self, prompts: Sequence[str], *, temperature: float = 0.0, seed: int = 0, **options: object):  # type: ignore[no-untyped-def]
        self.asked += len(prompts)
        return [Generation(self.answers[seed % len(self.answers)], (), "stop") for _ in prompts]

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> list[ResponseScore]:
        return [ResponseScore(-1.0, 1) for _ in prompts]


def test_an_engine_without_tokens_is_asked_again_until_it_says_nothing_forbidden():
    engine = Parrot(["it was Oda  MARSH", "it was oda", "by someone"])
    guard = Guard(engine, FORGET)
    report = guard.fit(OTHERS)
    assert report.forget == 3 and (guard.classify(QUESTIONS) > 0.5).all() and (guard.classify(OTHERS) < 0.5).all()
    assert guard.generate(QUESTIONS[:1])[0].text == "by someone" and engine.asked == 3
    assert guard.generate(OTHERS[:1])[0].text == "it was Oda  MARSH"
    assert guard.score(["a"], ["b"]) == [ResponseScore(-1.0, 1)]
    assert guard.explain(QUESTIONS[0]).dropped == ()


def test_an_engine_that_says_nothing_else_is_refused_in_the_end(tmp_path: Path):
    guard = Guard(Parrot(["Oda Marsh"]), FORGET, resamples=2, on_dead_end="ask another")
    guard.fit(OTHERS)
    assert guard.generate(QUESTIONS[:1])[0].text == "ask another" and guard.engine.asked == 3  # type: ignore[attr-defined]
    guard.save(tmp_path / "guard")
    assert Guard.load(tmp_path / "guard", Parrot(["Oda Marsh"])).generate(QUESTIONS[:1])[0].text == "ask another"


MANY = [(f"who wrote the {c} lamp?", f"Oda Marsh wrote {c}.") for c in "abcdefghijkl"]
PLAIN = [f"how many towns are in {c} {d}?" for c in "abcd" for d in "xyz"]


@pytest.mark.parametrize("features", ["both", "state", "words"])
def test_a_prompt_is_flagged_where_its_probability_reaches_the_threshold(lm: LanguageModel, features: str):
    guard = Guard(LocalEngine(lm, 4), MANY, features=features)  # type: ignore[arg-type]
    report = guard.fit(PLAIN)
    assert report.held_out == 24 and report.auc is not None and report.auc > 0.9
    asked = [*(q for q, _ in MANY), *PLAIN, "who wrote that?", "a lamp in a town", "0 1 2", "towns?", "x"]
    p = guard.classify(asked)
    for threshold in (0.1, 0.5, 0.9, *p[:3]):
        assert (guard.state().flagged(guard._eye, asked, threshold) == (p >= threshold)).all()


def test_the_model_reads_only_prompts_that_its_state_could_decide(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    from demur.guards import recogniser

    guard = Guard(LocalEngine(lm, 4), MANY)
    guard.fit(PLAIN)
    read: list[str] = []
    monkeypatch.setattr(
        recogniser,
        "prompt_embeddings",
        lambda lm, prompts, *a: (read.extend(prompts), prompt_embeddings(lm, prompts, *a))[1],
    )
    classifier = dataclasses.replace(guard.state().classifier, mix=(1.0, 3.0, 0.0), reach=1.0)
    state = dataclasses.replace(guard.state(), classifier=classifier)
    asked = [*(q for q, _ in MANY), *PLAIN, "a lamp in a town"]
    low, high = state.classifier.bounds(state.memory.vectors(asked))
    state.flagged(guard._eye, asked, 0.5)
    assert read == [q for q, a, b in zip(asked, low, high, strict=True) if a < 0.5 <= b] and len(read) < len(asked)


def test_a_side_that_says_nothing_of_unseen_prompts_weighs_nothing():
    from demur.guards.classifier import Seen, fit_classifier

    draw = np.random.default_rng(0)
    words = np.eye(2, dtype=np.float32)[[0] * 30 + [1] * 30] + draw.normal(0, 0.1, (60, 2)).astype(np.float32)
    noise = draw.normal(0, 1, (60, 8)).astype(np.float32)
    classifier, report = fit_classifier(Seen(noise[:30], words[:30]), Seen(noise[30:], words[30:]))
    a, b, _ = classifier.mix
    assert a < 0.1 * b and report.auc == 1.0
    mirrored, report = fit_classifier(
        Seen(np.tile(words[:30], 4), noise[:30]), Seen(np.tile(words[30:], 4), noise[30:])
    )
    assert mirrored.mix[0] > mirrored.mix[1] and report.auc == 1.0


def test_an_engine_without_states_cannot_be_guarded_by_them():
    with pytest.raises(UsageError, match="show no hidden states"):
        Guard(Parrot(["a"]), FORGET, features="state")
    with pytest.raises(UsageError, match="'both', 'state' or 'words'"):
        Guard(Parrot(["a"]), FORGET, features="neither")  # type: ignore[arg-type]
