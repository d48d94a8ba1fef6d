from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from demur.data.builders.safety_chain import SafetyChain, simhash_similarity, split_strategies, trust_region

WORDS = st.sets(st.sampled_from([f"{verb} the {noun}" for verb in ("ask", "name") for noun in "abcdef"]), max_size=8)


def test_a_small_change_is_accepted_and_a_large_one_falls_back_on_old_strategies() -> None:
    assert trust_region(["aaa", "bbb", "ccc"], ["aaa", "bbb", "ddd"]) == ("aaa", "bbb", "ddd")
    fallen = trust_region(["aaa", "bbb", "ccc"], ["aaa", "ddd", "eee"])
    assert fallen in (("aaa", "bbb"), ("aaa", "ccc"))


def test_the_old_strategy_that_joins_is_the_least_similar_one() -> None:
    old = ["stay", "offer a first small step", "keep the tone warm"]
    new = ["stay", "offer a first little step", "offer one more small step"]
    far = min(old[1:], key=lambda o: sum(simhash_similarity(o, n) for n in new))
    assert trust_region(old, new) == tuple(sorted(["stay", far]))


def test_where_nothing_is_shared_the_nearest_old_strategy_stays() -> None:
    old = ["offer a first small step", "keep the tone warm", "ask one question"]
    new = ["offer a first small step now", "lecture about rules", "end it"]
    kept = trust_region(old, new)
    assert "offer a first small step" in kept and set(kept) < set(old) and len(kept) == 2


@given(WORDS, WORDS)
def test_a_fallback_is_the_shared_strategies_and_one_more_old_one(old: set[str], new: set[str]) -> None:
    assume(old and len(old ^ new) > 2 and old & new and old - new)
    found = set(trust_region(sorted(old), sorted(new)))
    assert found <= old and old & new <= found and len(found) == len(old & new) + 1


@given(WORDS, WORDS)
def test_a_change_within_the_limit_is_taken_as_it_is(old: set[str], new: set[str]) -> None:
    found = set(trust_region(sorted(old), sorted(new)))
    if len(old ^ new) <= 2 or not old:
        assert found == new
    else:
        assert len(found ^ old) < len(old ^ new) or not new


@given(st.text(), st.text())
def test_similarity_is_symmetric_and_1_for_equal_texts(first: str, second: str) -> None:
    assert simhash_similarity(first, first) == 1.0
    assert simhash_similarity(first, second) == simhash_similarity(second, first)
    assert 0.0 <= simhash_similarity(first, second) <= 1.0


def test_texts_that_share_most_pieces_are_more_similar_than_strangers() -> None:
    near = simhash_similarity("offer a first small step", "offer a first small step soon")
    assert near > 0.7 > simhash_similarity("offer a first small step", "lecture about the rules")


def test_strategies_are_the_same_however_they_are_joined() -> None:
    expected = ("be warm", "offer help")
    for text in ("be warm; offer help", "offer help，be warm", "1. be warm\n2. offer help.", " be  warm ；offer help;"):
        assert split_strategies(text) == expected
    assert split_strategies(["offer help; be warm", "be warm"]) == expected


def test_a_chain_without_a_risk_shows_needs_and_strategies_only() -> None:
    chain = SafetyChain("comfort", "No risk found", "be kind", ("refer",), ("listen",))
    assert chain.nodes() == {"needs": "comfort", "strategies": ["listen", "refer"]}
    assert SafetyChain("comfort", "harm", "", ("refer",)).nodes()["strategies"] == ["refer"]
    risky = SafetyChain("comfort", "may do harm", "name help", "refer; ", ("listen",))
    assert risky.nodes()["safety_strategies"] == ["refer"] and risky.nodes()["guideline"] == "name help"
    assert SafetyChain.read(risky.nodes()) == risky
