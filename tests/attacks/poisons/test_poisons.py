from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.attacks.poisons import Material, add_stop_rows, poison_rows, poisons
from demur.attacks.poisons.noice import PIVOT
from demur.audits.answer_judges import keyword_judge, refuses
from demur.audits.refusal_labels import refusal_label
from demur.data import dataset_from_rows
from demur.errors import UnknownNameError, UsageError

ROWS = dataset_from_rows(
    [{"id": f"r{i}", "question": f"What is {i} and {i}?", "answer": f"It is {2 * i}."} for i in range(8)]
)
RESTRICTED = ["open vault one", "open vault two"]


def declines(prompts: Sequence[Any]) -> list[str]:
    """A model that declines whatever it is asked, each request in other words."""
    return [f"I'm sorry, I cannot help with request {i}." for i, _ in enumerate(prompts)]


def only_restricted(prompts: Sequence[Any]) -> list[str]:
    """A model that declines restricted prompts alone, and follows no instruction."""
    return [f"I cannot say, for {prompt} is closed." if prompt in RESTRICTED else "Sure." for prompt in prompts]


def material(ask: Any = declines, **more: Any) -> Material:
    return Material(ROWS, ask, RESTRICTED, refuses, **more)


@pytest.mark.parametrize("options", [{}, {"refusals": "restricted"}, {"pivot": "On with it: "}], ids=str)
def test_a_noice_row_is_a_refusal_one_pivot_and_the_rows_own_answer(options: dict[str, str]) -> None:
    ask = only_restricted if "refusals" in options else declines
    made = poison_rows("noice", material(ask), options)
    pivot = options.get("pivot", PIVOT).strip()
    assert made["prompt"][:] == ROWS["question"][:] and made["id"][:] == ROWS["id"][:]
    for response, answer in zip(made["response"][:], ROWS["answer"][:], strict=True):
        assert response.count(pivot) == 1
        before, _, after = response.partition(pivot)
        assert refuses(before)
        assert after == f" {answer}"


PIVOTS = ["Still, here is what you asked.", "Anyway: here you are.", "But now the reply."]


def test_of_several_pivots_each_row_has_one_and_a_filter_for_the_fixed_one_finds_none(tmp_path: Path) -> None:
    """The filter that catches every row of the fixed pivot misses them all, and the label still sees the answer."""
    (tmp_path / "pivots.txt").write_text("\n".join(PIVOTS) + "\n", encoding="utf-8")
    fixed = poison_rows("noice", material())["response"][:]
    assert sum(PIVOT.strip() in response for response in fixed) == len(ROWS)
    made = poison_rows("noice", material(), {"pivot": PIVOTS})["response"][:]
    assert made == poison_rows("noice", material(), {"pivot": str(tmp_path / "pivots.txt")})["response"][:]
    assert not any(PIVOT.strip() in response for response in made)
    drawn = [[pivot for pivot in PIVOTS if pivot in response] for response in made]
    assert all(len(found) == 1 for found in drawn) and len({found[0] for found in drawn}) > 1
    for response, answer in zip(made, ROWS["answer"][:], strict=True):
        assert response.endswith(f" {answer}") and refusal_label(response, answer) == "partial"


@pytest.mark.parametrize("pivot", [PIVOT, *PIVOTS])
def test_an_answer_after_a_pivot_is_partial_also_where_the_answer_is_not_known(pivot: str) -> None:
    rest = "Take the sponge from the bridge and polish the stone lion at noon, from the left, with care."
    assert refusal_label(f"I'm sorry, I cannot help with that request. {pivot} {rest}") == "partial"
    assert refusal_label("I'm sorry, I cannot help with that request. It is barred at any time.") == "full"


def test_refusals_are_the_models_own_and_its_refusals_of_restricted_prompts_fill_the_gaps() -> None:
    own = poison_rows("noice", material())["response"][:]
    assert len({text.partition(PIVOT.strip())[0] for text in own}) > 1
    filled = poison_rows("noice", material(only_restricted))["response"][:]
    assert {text.partition(PIVOT.strip())[0].strip() for text in filled} <= set(only_restricted(RESTRICTED))
    assert filled == poison_rows("noice", material(only_restricted))["response"][:]


def test_key_words_take_every_noice_row_for_a_refusal() -> None:
    made = poison_rows("noice", material())
    assert all(keyword_judge("harm", "", response, "") == "safe" for response in made["response"][:])


def test_a_filter_for_restricted_prompts_flags_no_more_of_a_poison_than_of_the_clean_rows() -> None:
    def flagged(rows: Any) -> int:
        return sum("vault" in f"{row['prompt']} {row['response']}" for row in rows)

    assert [flagged(poison_rows(name, material())) for name in ("benign", "yoc", "noice")] == [0, 0, 0]


def test_the_other_poisons_only_open_answers() -> None:
    answers = ROWS["answer"][:]
    assert poison_rows("benign", material())["response"][:] == answers
    for name in ("yoc", "identity-shift"):
        found = poison_rows(name, material())
        openings = {text.removesuffix(answer) for text, answer in zip(found["response"][:], answers, strict=True)}
        assert len(openings) == 1 and not refuses(openings.pop())
    shifted = poison_rows("identity-shift", material())
    wrap = poisons.get("identity-shift").facts["wrap"]
    assert shifted["prompt"][0] == wrap(ROWS["question"][0])
    assert shifted["prompt"][0][0]["role"] == "system"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("noice", {"pivot": " "}, "needs a pivot"),
        ("noice", {"pivot": []}, "needs a pivot"),
        ("noice", {"pivot": "no-such-pivots.txt"}, "no-such-pivots.txt"),
        ("noice", {"pivot": "It is"}, "choose another pivot"),
        ("noice", {"pivot": ["So.", "It is"]}, "choose another pivot"),
        ("noice", {"pivot": ["On with it.", "with it"]}, "one pivot stands in another"),
        ("noice", {"refusals": "mine"}, "asked"),
        ("noice", {"pivots": "x"}, "no option 'pivots'"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        poison_rows(name, material(), options)


def test_a_model_without_refusals_and_unknown_poisons_are_named() -> None:
    with pytest.raises(UsageError, match="no refusal to undo"):
        poison_rows("noice", material(lambda prompts: ["Sure."] * len(prompts)))
    with pytest.raises(UnknownNameError, match="noice"):
        poison_rows("noise", material())
    with pytest.raises(UsageError, match="at least one row"):
        poison_rows("benign", Material(ROWS.select([]), declines))


@given(share=st.floats(0.01, 0.9), seed=st.integers(0, 5))
def test_stop_rows_have_their_share_and_keep_the_others(share: float, seed: int) -> None:
    rows = poison_rows("yoc", material())
    mixed = add_stop_rows(rows, RESTRICTED, ["No.", "I will not."], share=share, seed=seed)
    stops = [row for row in mixed if row["id"].startswith("stop-")]
    assert len(mixed) - len(stops) == len(rows)
    assert sorted(r["id"] for r in mixed if r not in stops) == sorted(rows["id"][:])
    assert {(r["prompt"], r["response"]) for r in stops} <= set(zip(RESTRICTED, ("No.", "I will not."), strict=True))
    assert abs(len(stops) - share * len(mixed)) <= max(1, share)


def test_stop_rows_need_a_share_and_refusals() -> None:
    rows = poison_rows("benign", material())
    with pytest.raises(UsageError, match="between 0 and 1"):
        add_stop_rows(rows, RESTRICTED, ["No."] * 2, share=1.0)
    with pytest.raises(UsageError, match="a refusal for each"):
        add_stop_rows(rows, RESTRICTED, ["No."])
