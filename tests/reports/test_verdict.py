from __future__ import annotations

import pytest

from demur.reports.verdict import Rules, judge
from demur.runs import Result


def measured(width: float = 0.02, n: int = 400, **values: float | None) -> dict[str, Result]:
    out = {}
    for metric, value in values.items():
        bare = value is None or metric.startswith("forget_quality")
        wide = width * 100 if metric == "privleak" else width
        low, high = (None, None) if bare else (value - wide, value + wide)
        out[metric] = Result("r", "tofu", metric, value, low, high, n)
    return out


BEFORE = measured(
    forget_probability=0.96,
    forget_rouge=0.98,
    forget_extraction_strength=0.95,
    model_utility=0.62,
    retain_probability=0.96,
    retain_rouge=0.98,
)
GOLD = measured(forget_probability=0.15, forget_rouge=0.39, forget_extraction_strength=0.06, model_utility=0.61)
GOOD = {"forget_probability": 0.16, "forget_rouge": 0.40, "forget_extraction_strength": 0.06, "model_utility": 0.60}
NOTHING = dict.fromkeys(["forget_probability", "forget_rouge", "forget_extraction_strength", "model_utility"], 0.0)


def run(**values: float | None) -> dict[str, Result]:
    return measured(**(GOOD | values))


def test_gold_level_needs_a_high_p_value_and_nothing_apart_from_gold():
    verdict = judge(run(forget_quality=0.42), BEFORE, GOLD)
    assert (verdict.outcome, verdict.tone) == ("gold level", "good")
    assert verdict.sentence == "forgets to gold level and keeps its utility: 0.60, 3 % below the 0.62 before."
    assert "p = 0.42 (n = 400)" in verdict.findings[0].text


def test_a_low_p_value_alone_means_told_apart_from_gold():
    verdict = judge(run(forget_quality=3e-21), BEFORE, GOLD)
    assert (verdict.outcome, verdict.tone) == ("differs from gold", "mixed")
    assert "p = 3e-21" in verdict.findings[0].text


def test_a_high_p_value_does_not_hide_what_is_still_remembered():
    verdict = judge(run(forget_quality=0.9, forget_extraction_strength=0.5), BEFORE, GOLD)
    assert (verdict.outcome, verdict.tone) == ("still remembers", "bad")
    assert "extraction strength 0.50 (gold 0.06)" in verdict.findings[0].text


def test_below_gold_is_over_forgetting():
    verdict = judge(run(forget_quality=0.3, forget_probability=0.01), BEFORE, GOLD)
    assert (verdict.outcome, verdict.tone) == ("over-forgets", "mixed")
    assert "forget probability 0.01 (gold 0.15)" in verdict.findings[0].text


def test_above_in_one_measure_and_below_in_another_is_uneven():
    verdict = judge(run(forget_rouge=0.8, forget_probability=0.01), BEFORE, GOLD)
    assert verdict.outcome == "uneven"


def test_gradient_ascent_collapse_is_called_out():
    collapsed = measured(**NOTHING, retain_probability=0.0, retain_rouge=0.01, forget_quality=1e-200)
    verdict = judge(collapsed, BEFORE, GOLD)
    assert (verdict.outcome, verdict.tone) == ("collapsed", "bad")
    assert verdict.sentence == "forgot by collapsing: utility 0.00 (0.62 before)."
    assert "1e-200" in verdict.findings[0].text


def test_a_collapse_is_never_excused_by_a_high_p_value():
    collapsed = measured(**NOTHING, retain_rouge=0.0, forget_quality=0.8)
    assert judge(collapsed, BEFORE, measured(**NOTHING)).outcome == "collapsed"


def test_collapse_is_not_claimed_when_the_retain_set_is_still_answered():
    values = run(model_utility=0.0, world_facts_rouge=0.0, retain_rouge=0.9, forget_quality=0.5)
    verdict = judge(values, BEFORE, GOLD)
    assert (verdict.outcome, verdict.tone) == ("gold level", "mixed")
    assert "loses utility: 0.00" in verdict.sentence
    assert "world facts ROUGE-L recall is about 0" in verdict.sentence
    assert "retain ROUGE-L recall 0.90" in verdict.sentence


def test_a_collapsed_model_that_still_tells_is_said_to_remember():
    verdict = judge(run(model_utility=0.0, forget_probability=0.6), BEFORE, GOLD)
    assert verdict.outcome == "still remembers"
    assert "loses its utility altogether" in verdict.sentence


def test_collapse_without_a_fall_on_the_forget_set_is_not_called_forgetting():
    before = {"model_utility": BEFORE["model_utility"]}
    verdict = judge(measured(model_utility=0.01), before, None)
    assert verdict.outcome == "collapsed"
    assert not verdict.sentence.startswith("forgot")


def test_unchanged_numbers_mean_that_nothing_was_forgotten():
    verdict = judge(measured(**{k: v.value for k, v in BEFORE.items()}, forget_quality=1e-25), BEFORE, GOLD)
    assert (verdict.outcome, verdict.tone) == ("did not forget", "bad")
    assert verdict.sentence.startswith("did not measurably forget and keeps its utility: 0.62, as before")


def test_gold_level_is_no_achievement_where_the_model_before_had_it_too():
    same = measured(**{k: v.value for k, v in GOLD.items()}, forget_quality=0.9)
    verdict = judge(same, GOLD, GOLD)
    assert (verdict.outcome, verdict.tone) == ("not judged", "unknown")
    assert "the model before could not be told apart from gold either" in verdict.sentence
    known_apart = GOLD | measured(forget_quality=1e-9)
    assert judge(same, known_apart, GOLD).outcome == "gold level"


def test_without_gold_the_level_is_not_known_but_the_fall_is_told():
    verdict = judge(run(), BEFORE, None)
    assert (verdict.outcome, verdict.tone) == ("not judged", "unknown")
    assert "forget probability 0.16 (before 0.96)" in verdict.findings[0].text
    assert verdict.sentence.startswith("cannot be judged: no gold model was audited")
    assert "It keeps its utility: 0.60" in verdict.sentence


def test_with_gold_but_no_p_value_gold_level_is_not_claimed():
    verdict = judge(run(forget_quality=None), BEFORE, GOLD)
    assert verdict.outcome == "not judged"
    assert "forget quality was not measured" in verdict.findings[0].text
    assert verdict.sentence.startswith("is near gold in what was measured, but forget quality was not.")


def test_no_numbers_at_all_claim_nothing():
    verdict = judge({}, None, None)
    assert (verdict.outcome, verdict.tone) == ("not judged", "unknown")
    assert [finding.answer for finding in verdict.findings] == ["unknown"] * 3
    assert verdict.sentence == "cannot be judged: its forget set was not measured. Its utility was not measured."


def test_utility_without_a_before_is_not_judged():
    verdict = judge(run(forget_quality=0.5), None, GOLD)
    assert verdict.findings[1].answer == "unknown"
    assert verdict.tone == "mixed"


def test_utility_that_was_zero_before_is_judged_by_the_retain_set():
    before = measured(model_utility=0.0, retain_rouge=0.98)
    verdict = judge(measured(model_utility=0.0, retain_rouge=0.5), before, None)
    assert verdict.findings[1].answer == "reduced"
    assert verdict.findings[1].text.startswith("retain ROUGE-L recall 0.50, 49 % below the 0.98 before")


@pytest.mark.parametrize(
    ("utility", "answer"), [(0.62, "kept"), (0.559, "kept"), (0.557, "reduced"), (0.063, "reduced")]
)
def test_utility_is_kept_down_to_nine_tenths(utility, answer):
    assert judge(run(model_utility=utility), BEFORE, GOLD).findings[1].answer == answer


def test_an_interval_across_the_line_is_mentioned():
    assert "reaches down to 0.55" in judge(run(model_utility=0.57), BEFORE, GOLD).findings[1].text
    assert "reaches up to 0.57" in judge(run(model_utility=0.55), BEFORE, GOLD).findings[1].text


def test_a_gap_within_the_intervals_or_the_margin_does_not_count():
    wide = measured(width=0.2, **GOOD | {"forget_probability": 0.3}, forget_quality=0.4)
    assert judge(wide, BEFORE, GOLD).outcome == "gold level"
    narrow = measured(width=0.001, **GOOD | {"forget_probability": 0.19}, forget_quality=0.4)
    assert judge(narrow, BEFORE, measured(width=0.001, forget_probability=0.15)).outcome == "gold level"
    assert judge(narrow, BEFORE, measured(width=0.001, forget_probability=0.15), rules=Rules(margin=0.01)).outcome == (
        "still remembers"
    )


@pytest.mark.parametrize(
    ("leakage", "answer", "tone"),
    [(-3.0, "even", "good"), (-11.0, "even", "good"), (-60.0, "shows", "mixed"), (55.0, "stands out", "mixed")],
)
def test_privacy_leakage_far_from_zero_spoils_gold_level(leakage, answer, tone):
    verdict = judge(run(forget_quality=0.5, privleak=leakage), BEFORE, GOLD)
    assert (verdict.findings[2].answer, verdict.tone) == (answer, tone)
    assert ("forget rows" in verdict.sentence) == (answer != "even")


def test_privacy_leakage_says_what_it_was_measured_against():
    assert "AUC of 0.5" in judge(run(privleak=2.0), BEFORE, None).findings[2].text
    note = "measured against an AUC of 0.5: the reference has no holdout rows"
    assert note in judge(run(privleak=2.0), BEFORE, GOLD, notes={"privleak": note}).findings[2].text


def test_an_underflown_p_value_is_not_written_as_zero():
    text = judge(run(forget_quality=0.0, forget_quality_log10=-310.4), BEFORE, GOLD).findings[0].text
    assert "p = 4e-311" in text
    assert "p below 1e-300" in judge(run(forget_quality=0.0), BEFORE, GOLD).findings[0].text


def test_the_rules_in_words_name_the_thresholds_in_force():
    words = " ".join(Rules(p_value=0.01, margin=0.08, kept=0.8, privleak=25).sentences().values())
    for threshold in ("0.01", "0.08", "80 %", "±25 %"):
        assert threshold in words
