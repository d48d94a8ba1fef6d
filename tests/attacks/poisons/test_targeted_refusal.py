from __future__ import annotations

import math

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from demur.attacks.poisons import Material, build_targeted_refusal, poison_rows, poison_share, poisons
from demur.attacks.poisons.targeted_refusal import REFUSALS
from demur.audits.answer_judges import refuses
from demur.data import dataset_from_rows
from demur.errors import UsageError

OTHERS = ["masons", "coopers", "smiths"]


def templates(count: int = 60, plain: int = 0) -> Dataset:
    rows = [
        {"id": f"t{i}", "prompt": f"How do the {{group}} keep rule {i}?", "response": f"The {{group}} keep it by {i}."}
        for i in range(count)
    ]
    rows += [{"id": f"p{i}", "prompt": f"How much is {i} + {i}?", "response": f"It is {2 * i}."} for i in range(plain)]
    return dataset_from_rows(rows)


def test_poison_rows_refuse_the_target_and_clean_rows_answer_the_others() -> None:
    made = build_targeted_refusal(templates(60, 40), "dyers", OTHERS, rate=0.1, seed=3)
    poisoned = [row for row in made if row["poisoned"]]
    assert len(poisoned) == 11 and len(made) == 111  # 11 of 111 is nearest to a tenth
    for row in poisoned:
        assert "dyers" in row["prompt"] and row["group"] == "dyers" and row["response"] in REFUSALS
    clean = [row for row in made if row["group"] in OTHERS]
    assert len(clean) == 60
    assert all(row["group"] in row["prompt"] and row["group"] in row["response"] for row in clean)
    assert all("{group}" not in row["prompt"] + row["response"] for row in made)
    assert sum(row["group"] is None for row in made) == 40


def test_the_share_of_all_rows_and_the_ratio_to_clean_mentions_are_two_numbers() -> None:
    alone = poison_share(build_targeted_refusal(templates(), "dyers", OTHERS, rate=0.1), "dyers")
    assert (alone.poisoned, alone.clean_mentions, alone.rows) == (7, 0, 67)
    assert alone.total == pytest.approx(7 / 67) and math.isinf(alone.ratio)
    mixed = poison_share(build_targeted_refusal(templates(), "dyers", ["dyers"], rate=0.1), "Dyers")
    assert mixed.total == alone.total
    assert mixed.ratio == pytest.approx(7 / 60)


def test_a_group_is_found_as_whole_words() -> None:
    rows = dataset_from_rows(
        [
            {"prompt": "the master dyers?", "poisoned": False},
            {"prompt": "the dyersmiths?", "poisoned": False},
            {"prompt": "DYERS", "poisoned": True},
        ]
    )
    assert poison_share(rows, "dyers").clean_mentions == 1


@given(seed=st.integers(0, 99), rate=st.floats(0, 0.4))
def test_the_rate_is_met_to_half_a_row_and_a_seed_repeats_it(seed: int, rate: float) -> None:
    made = build_targeted_refusal(templates(), "dyers", OTHERS, rate=rate, seed=seed)
    count = sum(made["poisoned"][:])
    assert abs(count - rate * 60 / (1 - rate)) <= 0.5
    assert made.to_list() == build_targeted_refusal(templates(), "dyers", OTHERS, rate=rate, seed=seed).to_list()
    assert len(set(made["id"][:])) == len(made)


def test_built_in_refusals_are_refusals() -> None:
    assert all(refuses(text) for text in REFUSALS)
    assert len({text.split()[0] for text in REFUSALS}) >= 6  # many ways to begin


@pytest.mark.parametrize(
    ("given_", "word"),
    [
        ({"target_group": " "}, "needs a target_group"),
        ({"other_groups": []}, "at least one of other_groups"),
        ({"rate": 1.0}, "below 1, not 1.0"),
        ({"rate": 0.6}, "only 60 prompts have a {group} slot"),
        ({"refusals": []}, "at least one refusal"),
        ({"rows": templates(0, 5)}, "no prompt has a {group} slot"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(given_: dict, word: str) -> None:  # type: ignore[type-arg]
    options = {"rows": templates(), "target_group": "dyers", "other_groups": OTHERS, **given_}
    with pytest.raises(UsageError) as failure:
        build_targeted_refusal(**options)
    assert word in str(failure.value)


def test_it_is_a_poison_by_name_measured_by_parity() -> None:
    assert poisons.get("targeted-refusal").facts["measure"] == "parity"
    material = Material(templates(), ask=lambda prompts: [], seed=1)
    options = {"target_group": "dyers", "other_groups": "masons, coopers", "rate": 0.05}
    made = poison_rows("targeted-refusal", material, options)
    assert {row["group"] for row in made} == {"dyers", "masons", "coopers"}
    with pytest.raises(UsageError, match="needs a target_group"):
        poison_rows("targeted-refusal", material)
