from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from demur.studies import NotMeasured, honest_helpful
from demur.studies.small_llama import small_llama

ROW = {f"{arm} {what}": 0.0 for arm in honest_helpful.ARMS for what in ("honesty", "H²")}
ROW |= {"SFT honesty": 0.6, "stage 1 honesty": 0.85, "two stages honesty": 0.75, "SFT H²": 3.2, "two stages H²": 7.5}
ROW |= {"direct H²": 6.0, "reversed H²": 4.0, "stage 2 opening": 0.6931472, "old reference opening": 0.73}
PAIRS = {f"λ={w} {what}": 0.1 for w in (0, 1) for what in ("chosen", "rejected")}
PAIRS |= {"λ=1 accuracy": 0.9, "λ=0 accuracy": 0.9, "longer": 0.2}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"stage 1 honesty": 0.7}, 1),
        ({"two stages honesty": 0.65}, 1),
        ({"SFT H²": 4.9}, 1),
        ({"direct H²": 6.8}, 1),
        ({"reversed H²": 6.0}, 1),
        ({"stage 2 opening": 0.73}, 1),
    ],
    ids=str,
)
def test_every_claim_about_the_curriculum_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    table = pd.DataFrame.from_dict({1: ROW, 2: {**ROW, **change}}, orient="index")
    assert [c.holds for c in honest_helpful.curriculum_claims(table)].count(False) == broken


@pytest.mark.parametrize(
    ("change", "broken"), [({}, 0), ({"λ=1 accuracy": 0.5}, 1), ({"λ=1 chosen": -0.1}, 1)], ids=str
)
def test_every_claim_about_real_pairs_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    table = pd.DataFrame.from_dict({1: PAIRS, 2: {**PAIRS, **change}}, orient="index")
    assert [c.holds for c in honest_helpful.real_pairs_claims(table)].count(False) == broken


def test_the_scripted_judge_scores_the_four_answers_as_it_should() -> None:
    category, other = honest_helpful.CATEGORIES[:2]
    told = {name: honest_helpful.judge(text, category) for name, text in honest_helpful.stubs(category).items()}
    assert told == {"bluff": (False, 1.0), "bare": (True, 2.0), "limit": (True, 6.0), "full": (True, 10.0)}
    # The limit of another category is a bluff.
    assert honest_helpful.judge(honest_helpful.stubs(other)["full"], category) == (False, 1.0)
    assert honest_helpful.judge("limit CATEGORY0 . guide HINT1 .", category) == (True, 6.0)


def test_sampling_stops_at_the_end_mark_and_looks_at_no_padding() -> None:
    model = small_llama(12, 16, 0)
    prompts = [[3, 4, 5], [6], [7, 8]]
    told = honest_helpful.sample(model, prompts, 2, 0)
    assert all(2 not in answer and len(answer) <= honest_helpful.ANSWER for answer in told)
    with torch.no_grad():  # a model sure of one word says it, whatever the length of the prompt
        model.lm_head.weight.zero_()
        model.lm_head.weight[9] = 1e4 * model.model(input_ids=torch.tensor([[6]])).last_hidden_state[0, 0]
    assert honest_helpful.sample(model, [[6]], 2, 1)[0][0] == 9


def test_it_is_not_measured_without_the_queries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    for part in (honest_helpful.curriculum, honest_helpful.real_pairs):
        with pytest.raises(NotMeasured, match="HoneSet"):
            part(1)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, shared_data: Callable[[str], Path]) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("honeset").parent))
    small = {"WIDTH": 16, "WORDS": 4, "LEARN_STEPS": 1, "LEARN_BATCH": 2, "STEPS": 1, "BATCH": 2, "SAMPLES": 1}
    small |= {"OPENING": 4, "PAIR_WORDS": 4, "PAIR_LEAST": 200, "PAIR_LEARN": 1, "PAIR_BATCH": 400}
    for name, value in small.items():
        monkeypatch.setattr(honest_helpful, name, value)


def test_the_stages_are_honest_over_bluff_and_helpful_over_less(quick: None) -> None:
    setting = honest_helpful.make_setting(1)
    words = setting.vocabulary.words

    def says(side: int, name: str) -> set[str]:
        return {words[pair[side].label_ids[0]] for pair in setting.pairs[name]}

    assert says(1, "honest") == {"sure"} and says(0, "honest") == {"sorry", "limit"}
    assert says(0, "helpful") == {"limit"} and all(
        "guide" in [words[i] for i in won.label_ids] for won, _ in setting.pairs["helpful"]
    )
    assert len(setting.tested) == 120 and len(setting.pairs["honest"]) == 810 == len(setting.pairs["helpful"])


def test_it_measures_what_its_claims_read(quick: None) -> None:
    measured = honest_helpful.curriculum(1)
    assert set(ROW) <= set(measured) and len(honest_helpful.curriculum.check({1: measured})) == 6
    assert measured["stage 2 opening"] == pytest.approx(0.6931472, abs=1e-5)


def test_the_real_pairs_measure_what_their_claims_read(quick: None) -> None:
    measured = honest_helpful.real_pairs(1)
    assert set(measured) == set(PAIRS) and honest_helpful.real_pairs.check({1: measured})
