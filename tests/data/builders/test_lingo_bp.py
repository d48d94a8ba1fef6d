"""Feedback on chains: with scripted editors and judges, no model anywhere."""

from __future__ import annotations

import json

import pytest

from demur.data import (
    LingoBP,
    SafetyChain,
    SafetyVerdict,
    TextEditor,
    UserVerdict,
    trajectories_to_preferences,
    trajectories_to_sft,
)
from demur.data.builders.lingo_bp import Edit
from demur.errors import DemurError, UsageError

CHAIN = SafetyChain("relief", "self-harm", "name people to turn to", ("refer",), ("listen", "explain"))


class Scripted:
    """Gives its replies in turn; the response is the chain's strategies."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.edits = list(replies), list[Edit]()

    def revise(self, edit: Edit) -> str:
        self.edits.append(edit)
        return self.replies.pop(0)

    def respond(self, query: str, chain: SafetyChain) -> tuple[str, str]:
        return f"about {query}", ", ".join(chain.strategies)


def fenced(**nodes) -> str:
    return f"Some thought.\n```json\n{{}}\n```\nBetter:\n```json\n{json.dumps(nodes)}\n```"


def liked(query: str, response: str) -> UserVerdict:
    return UserVerdict(1.0 if "comfort" in response else -0.2, ("be kinder",))


def safe(query: str, response: str) -> SafetyVerdict:
    return SafetyVerdict(1.0 if "refer" in response else 0.0)


def test_each_round_edits_the_chain_and_writes_the_response_anew() -> None:
    editor = Scripted(fenced(needs="comfort", usefulness_strategies="listen；comfort"), fenced(guideline="be brief"))
    found = LingoBP(editor, liked, safe, ("both", "both")).optimize("I am tired", CHAIN)
    assert [step.response for step in found.steps] == ["explain, listen, refer", *["comfort, listen, refer"] * 2]
    assert [step.satisfaction.score for step in found.steps] == [-0.2, 1.0, 1.0]
    assert found.steps[1].chain.needs == "comfort" and found.steps[2].chain.guideline == "be brief"
    assert editor.edits[0].response == "explain, listen, refer" and editor.edits[0].satisfaction.suggestions


def test_a_large_change_falls_back_and_without_a_trust_region_it_does_not() -> None:
    reply = fenced(usefulness_strategies=["listen", "sing", "dance"], safety_strategies=["refer"])
    near = LingoBP(Scripted(reply), liked, safe, ("both",)).optimize("q", CHAIN).steps[-1].chain
    assert near.usefulness_strategies == ("explain", "listen")
    far = LingoBP(Scripted(reply), liked, safe, ("both",), max_change=None).optimize("q", CHAIN).steps[-1].chain
    assert far.usefulness_strategies == ("dance", "listen", "sing")


def test_a_users_round_leaves_safety_as_it_is_and_does_not_see_it() -> None:
    editor = Scripted(fenced(needs="comfort", intent="none", guideline="", safety_strategies=[]))
    step = LingoBP(editor, liked, safe, ("user",)).optimize("q", CHAIN).steps[-1]
    assert step.chain.needs == "comfort"
    assert (step.chain.intent, step.chain.guideline, step.chain.safety_strategies) == (
        CHAIN.intent,
        CHAIN.guideline,
        CHAIN.safety_strategies,
    )
    assert editor.edits[0].safety is None and editor.edits[0].satisfaction is not None


def test_an_unreadable_reply_is_asked_for_again_three_times() -> None:
    editor = Scripted("nothing", "```json\n[1]\n```", fenced(needs="comfort"))
    assert LingoBP(editor, liked, safe, ("developer",)).optimize("q", CHAIN).steps[-1].chain.needs == "comfort"
    assert [edit.attempt for edit in editor.edits] == [0, 1, 2]
    with pytest.raises(DemurError, match=r"cannot be read .*use another editor"):
        LingoBP(Scripted(*["```json\n{broken\n```"] * 3), liked, safe).optimize("q", CHAIN)


def test_ten_unreadable_replies_in_all_are_enough() -> None:
    replies = ["no", "no", fenced(needs="a")] * 6
    with pytest.raises(DemurError):
        LingoBP(editor := Scripted(*replies), liked, safe, ("both",) * 6).optimize("q", CHAIN)
    assert [edit.attempt for edit in editor.edits] == [0, 1, 2] * 4 + [0, 1]


def test_it_stops_early_where_it_is_told_to() -> None:
    editor = Scripted(fenced(usefulness_strategies="listen, comfort"))
    found = LingoBP(editor, liked, safe, early_stop=True).optimize("q", CHAIN)
    assert len(found.steps) == 2


def test_trajectories_become_rows_of_their_pearl_points() -> None:
    better = LingoBP(
        Scripted(fenced(usefulness_strategies="listen, comfort"), fenced(safety_strategies=[])),
        liked,
        safe,
        ("both",) * 2,
    ).optimize("I am tired", CHAIN)
    assert better.steps[2].safety.risk == 1.0 and better.pearl() == better.steps[1]
    same = LingoBP(Scripted(fenced(needs="x")), liked, safe, ("both",)).optimize("other", CHAIN)
    unsafe = LingoBP(Scripted(), liked, safe, ()).optimize("third", SafetyChain("all"))
    rows = trajectories_to_sft([better, same, unsafe])
    assert rows["prompt"][:] == ["I am tired", "other"]
    assert rows["response"][0] == "<think>\nabout I am tired\n</think>\n\ncomfort, listen, refer"
    pairs = trajectories_to_preferences([better, same, unsafe])
    assert len(pairs) == 1 and pairs["rejected"][0].endswith("explain, listen, refer")
    assert pairs["chosen"][0] == rows["response"][0]
    with pytest.raises(UsageError, match="no pairs"):
        trajectories_to_preferences([same])
    with pytest.raises(UsageError, match="raise the tolerance"):
        trajectories_to_sft([unsafe])
    assert len(trajectories_to_sft([unsafe], tolerance=1.0)) == 1


def test_a_model_edits_by_text() -> None:
    asked: list[tuple[str, int]] = []

    def ask(prompt: str, seed: int) -> str:
        asked.append((prompt, seed))
        return "<think>it hurts</think>\nTalk to {query} someone." if "<think>" in prompt else fenced(needs="comfort")

    found = LingoBP(TextEditor(ask), liked, safe, ("both",)).optimize("I {chain} am tired", CHAIN)
    assert found.steps[0].thinking == "it hurts" and found.steps[0].response == "Talk to {query} someone."
    assert found.steps[1].chain.needs == "comfort"
    revise = asked[1][0]
    assert "I {chain} am tired" in revise and "name people to turn to" in revise and "be kinder" in revise
    assert "safety_strategies" in revise and "{verdicts}" not in revise


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="-1 to 1"):
        UserVerdict(1.2)
    with pytest.raises(UsageError, match="0 to 1"):
        SafetyVerdict(-0.1)
    with pytest.raises(UsageError, match="both, user or developer"):
        LingoBP(Scripted(), liked, safe, ("us",))
    with pytest.raises(UsageError, match="max_change"):
        LingoBP(Scripted(), liked, safe, max_change=-1)
