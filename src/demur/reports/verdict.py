"""What the numbers of a run say in words, by stated rules and nothing else.

A verdict answers three questions: is the forget set forgotten to the level of a model that never saw it, is the rest
kept, and can an outsider still tell that the rows were trained on. Each answer names the numbers it rests on. Where a
number is missing, the answer is that it is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from demur.reports.glossary import describe
from demur.reports.tables import interval, number, p_value
from demur.runs import Result

__all__ = ["DIRECT", "Finding", "Outcome", "Rules", "Tone", "Verdict", "judge"]

DIRECT = ("forget_probability", "forget_rouge", "forget_extraction_strength")
KEPT = ("retain_probability", "retain_rouge")
PARTS = tuple(
    f"{name}_{measure}"
    for name in ("retain", "real_authors", "world_facts")
    for measure in ("probability", "rouge", "truth_ratio")
)

Outcome = Literal[
    "collapsed",
    "did not forget",
    "still remembers",
    "over-forgets",
    "uneven",
    "differs from gold",
    "gold level",
    "not judged",
]
Tone = Literal["good", "mixed", "bad", "unknown"]
Measured = Mapping[str, Result]


@dataclass(frozen=True)
class Rules:
    """The thresholds of a verdict.

    Attributes:
        p_value: forget quality below this sets a run apart from the gold model.
        margin: a measure must differ from the gold model's by more than this to count, whatever the intervals say.
        kept: utility counts as kept from this share of the utility before.
        collapsed: utility at or under this share of the utility before is a collapse, if the retain set went too.
        half: a measure under this share of its value before counts as gone.
        privleak: privacy leakage within ± this many percent counts as none.
    """

    p_value: float = 0.05
    margin: float = 0.05
    kept: float = 0.90
    collapsed: float = 0.10
    half: float = 0.50
    privleak: float = 10.0

    def sentences(self) -> dict[str, str]:
        """The rules in words, by question."""
        return {
            "forgetting": (
                "A measure on the forget set (probability, ROUGE, extraction strength) lies above or below gold when "
                "its 95 % "
                f"interval and gold's do not meet and the values differ by more than {number(self.margin)}. "
                f"Gold level: none does, and forget quality is at least {self.p_value:g}. A p-value that high means "
                "that the "
                "test saw no difference, not that there is none; with few questions it sees little. The level is not "
                "known without a gold model, nor where the model before cannot be told from gold either."
            ),
            "utility": (
                f"Kept: at least {100 * self.kept:.0f} % of the value before. Collapsed: at most "
                f"{100 * self.collapsed:.0f} % of "
                f"it, with retain probability and ROUGE, where measured, under {100 * self.half:.0f} % of theirs. "
                "Measured by "
                "model utility; by retain ROUGE or probability where model utility is missing or was 0 before."
            ),
            "privacy": (
                f"Even: privacy leakage within ±{self.privleak:.0f} % or its interval reaches into that band. Below "
                "it: the forget "
                "rows still look trained on. Above it: they look less likely than rows never seen, which gives them "
                "away."
            ),
        }


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        topic: "forgetting", "utility" or "privacy".
        answer: the answer in a word.
        text: a clause with the numbers it rests on.
        evidence: the numbers one by one, in full.
    """

    topic: Literal["forgetting", "utility", "privacy"]
    answer: str
    text: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a run's numbers say.

    Attributes:
        outcome: in a word or three.
        tone: whether that is good news.
        sentence: a plain sentence or two that follow the run's name.
        findings: the three answers it is made of.
    """

    outcome: Outcome
    tone: Tone
    sentence: str
    findings: tuple[Finding, Finding, Finding]


def judge(
    run: Measured,
    before: Measured | None = None,
    reference: Measured | None = None,
    *,
    notes: Mapping[str, str] | None = None,
    rules: Rules | None = None,
) -> Verdict:
    """Judge a run by its numbers.

    Args:
        run: metric → result of the run's model.
        before: the same of the model it started from; None or empty where it was not audited.
        reference: the same of the gold model; None or empty where there is none.
        notes: metric → what the audit says of its number, for instance what privacy leakage was taken against.
        rules: the thresholds.

    Returns:
        The verdict. It claims nothing that the numbers given do not carry.
    """
    rules = rules or Rules()
    before, reference = before or {}, reference or {}
    forgetting = _forgetting(run, before, reference, rules)
    utility = _utility(run, before, rules)
    privacy = _privacy(run, bool(reference), (notes or {}).get("privleak", ""), rules)
    outcome, tone = _outcome(forgetting.answer, utility.answer, privacy.answer)
    findings = (forgetting, utility, privacy)
    fell = [m for m in DIRECT if _usable(m, run, before)]
    forgot = bool(fell) and all((_value(run, m) or 0.0) < rules.half * (_value(before, m) or 0.0) for m in fell)
    return Verdict(outcome, tone, _sentence(outcome, findings, forgot), findings)


def _value(results: Measured, metric: str) -> float | None:
    return results[metric].value if metric in results else None


def _written(result: Result) -> str:
    return interval(result.value, result.low, result.high, describe(result.metric).kind)


def _name(metric: str) -> str:
    label = describe(metric).label
    return label[:1].lower() + label[1:]


def _apart(one: Result, other: Result, margin: float) -> int:
    """1 where `one` lies above `other`, −1 below, 0 where they are not set apart."""
    if one.value is None or other.value is None or abs(one.value - other.value) <= margin:
        return 0
    low = one.value if one.low is None else one.low
    high = one.value if one.high is None else one.high
    if low > (other.value if other.high is None else other.high):
        return 1
    return -1 if high < (other.value if other.low is None else other.low) else 0


def _forgetting(run: Measured, before: Measured, reference: Measured, rules: Rules) -> Finding:
    direct = [m for m in DIRECT if _value(run, m) is not None]
    known = [m for m in direct if _value(before, m) is not None]
    compared = [m for m in direct if _value(reference, m) is not None]
    above = [m for m in compared if _apart(run[m], reference[m], rules.margin) > 0]
    below = [m for m in compared if _apart(run[m], reference[m], rules.margin) < 0]
    p, quality = _quality(run)

    if known and (above or not compared) and all(_apart(run[m], before[m], rules.margin) == 0 for m in known):
        answer, text = "unchanged", f"the forget set is as before, {_list(known, run, before, 'before')}"
    elif above or below:
        answer = "both" if above and below else "above" if above else "below"
        sides = [f"above gold in {_list(above, run, reference)}"] if above else []
        sides += [f"below gold in {_list(below, run, reference)}"] if below else []
        text = "; ".join([*sides, quality] if quality else sides)
    elif p is not None:
        answer, text = _by_quality(p, quality, bool(compared), rules)
    elif compared:
        answer = "near"
        text = f"no measure lies apart from gold, {_list(compared, run, reference)}; forget quality was not measured"
    elif known:
        answer = "unknown"
        told = _list(known, run, before, "before")
        text = f"{told}; as no gold model was audited, whether that is gold level is not known"
    else:
        answer, text = "unknown", "there is nothing to compare its numbers on the forget set with"

    if answer in ("gold", "near") and _like_gold(before, reference, rules):
        answer, text = "nothing to forget", f"{text}; neither is the model before told apart from it"
    evidence = [_line(m, run, before, reference) for m in direct]
    return Finding("forgetting", answer, text, tuple([*evidence, _capital(quality)] if quality else evidence))


def _like_gold(before: Measured, reference: Measured, rules: Rules) -> bool:
    """Whether even the model before cannot be told from gold: then a run that cannot either has shown nothing."""
    compared = [m for m in DIRECT if _value(before, m) is not None and _value(reference, m) is not None]
    p, _ = _quality(before)
    if not compared and p is None:
        return False
    apart = any(_apart(before[m], reference[m], rules.margin) for m in compared)
    return not apart and (p is None or p >= rules.p_value)


def _quality(run: Measured) -> tuple[float | None, str]:
    """Forget quality as a number and in words; None and "" where it was not measured."""
    p, exponent = _value(run, "forget_quality"), _value(run, "forget_quality_log10")
    if p is None and exponent is None:
        return None, ""
    held = run.get("forget_quality") or run["forget_quality_log10"]
    text = f"forget quality p = {p_value(p, exponent)} (n = {held.n})".replace("= below", "below")
    return (p if p is not None else 10.0 ** max(exponent or 0.0, -300.0)), text


def _by_quality(p: float, quality: str, compared: bool, rules: Rules) -> tuple[str, str]:
    if p >= rules.p_value:
        also = ", and no measure on the forget set lies apart from it" if compared else ""
        return "gold", f"{quality}: the test sees no difference from gold{also}"
    also = ", though no measure on the forget set lies apart from it" if compared else ""
    return "differs", f"{quality}: the test sets its truth ratios apart from gold{also}"


def _line(metric: str, run: Measured, before: Measured, reference: Measured) -> str:
    line = f"{describe(metric).label}: {_written(run[metric])}"
    line += f", before {_written(before[metric])}" if _value(before, metric) is not None else ""
    return line + (f", gold {_written(reference[metric])}" if _value(reference, metric) is not None else "")


def _list(metrics: list[str], run: Measured, other: Measured, name: str = "gold") -> str:
    shown = [f"{_name(m)} {number(_value(run, m))} ({name} {number(_value(other, m))})" for m in metrics]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def _usable(metric: str, run: Measured, before: Measured) -> bool:
    """Whether a metric can tell how much is left: measured on both, and not about 0 to begin with."""
    start = _value(before, metric)
    return _value(run, metric) is not None and start is not None and start > 0.01


def _utility(run: Measured, before: Measured, rules: Rules) -> Finding:
    measure = next(
        (m for m in ("model_utility", "retain_rouge", "retain_probability") if _usable(m, run, before)), None
    )
    if measure is None:
        return _utility_unknown(run, before)
    result, start = run[measure], before[measure].value
    value = result.value
    assert value is not None and start is not None
    shown = [measure, *(m for m in KEPT if m != measure and _usable(m, run, before))]
    evidence = tuple(_line(m, run, before, {}) for m in shown)
    share = value / start
    name = "" if measure == "model_utility" else f"{_name(measure)} "
    if share <= rules.collapsed:
        return _utility_gone(run, before, f"{name}{number(value)} ({number(start)} before)", evidence, rules)
    side = "below" if share < 1 else "above"
    text = f"{name}{number(value)}, {abs(100 * (share - 1)):.0f} % {side} the {number(start)} before"
    if round(100 * abs(share - 1)) == 0:
        text = f"{name}{number(value)}, as before"
    if share < rules.kept:
        if result.high is not None and result.high >= rules.kept * start:
            text += f" (its interval reaches up to {number(result.high)})"
        return Finding("utility", "reduced", text, evidence)
    if result.low is not None and result.low < rules.kept * start:
        text += f" (its interval reaches down to {number(result.low)})"
    return Finding("utility", "kept", text, evidence)


def _utility_unknown(run: Measured, before: Measured) -> Finding:
    value, start = _value(run, "model_utility"), _value(before, "model_utility")
    if value is None:
        return Finding("utility", "unknown", "its utility was not measured")
    why = "the model before was not audited" if start is None else f"it was {number(start)} before"
    text = f"whether utility was kept is not known: it is {number(value)}, and {why}"
    return Finding("utility", "unknown", text, (f"Model utility: {_written(run['model_utility'])}",))


def _utility_gone(run: Measured, before: Measured, text: str, evidence: tuple[str, ...], rules: Rules) -> Finding:
    """Utility is next to nothing: a collapse, unless the retain set is still answered (one part at 0 makes it 0)."""
    usable = [m for m in KEPT if _usable(m, run, before)]
    left = [m for m in usable if (_value(run, m) or 0.0) >= rules.half * (_value(before, m) or 0.0)]
    if not left:
        return Finding("utility", "collapsed", text, evidence)
    zero = [_name(m) for m in PARTS if m in run and run[m].value is not None and _value(run, m) <= 0.01]  # type: ignore[operator]
    pulled = f" as {' and '.join(zero)} {'is' if len(zero) == 1 else 'are'} about 0" if zero else ""
    return Finding("utility", "reduced", f"{text}{pulled}, yet {_list(left, run, before, 'before')} is left", evidence)


def _privacy(run: Measured, has_reference: bool, note: str, rules: Rules) -> Finding:
    value = _value(run, "privleak")
    if value is None:
        return Finding("privacy", "unknown", "not measured")
    result = run["privleak"]
    low = value if result.low is None else result.low
    high = value if result.high is None else result.high
    against = "" if has_reference else ", measured against an AUC of 0.5 for want of a gold model"
    against = f", {note}" if note else against
    shown = f"leakage {_written(result)} %{against}"
    evidence = (f"Privacy leakage: {_written(result)} %{against}",)
    if high < -rules.privleak:
        return Finding("privacy", "shows", f"the forget rows still look trained on: {shown}", evidence)
    if low > rules.privleak:
        return Finding("privacy", "stands out", f"the forget rows look less likely than unseen ones: {shown}", evidence)
    return Finding("privacy", "even", shown, evidence)


def _outcome(forgetting: str, utility: str, privacy: str) -> tuple[Outcome, Tone]:
    if forgetting == "unchanged":
        return "did not forget", "bad"
    if forgetting == "above":
        return "still remembers", "bad"
    if forgetting == "both":
        return "uneven", "bad"
    if utility == "collapsed":
        return "collapsed", "bad"
    if forgetting == "below":
        return "over-forgets", "mixed"
    if forgetting == "differs":
        return "differs from gold", "mixed"
    if forgetting == "gold":
        return "gold level", "good" if utility == "kept" and privacy in ("even", "unknown") else "mixed"
    return "not judged", "unknown"


_OPENINGS: dict[Outcome, str] = {
    "did not forget": "did not measurably forget",
    "still remembers": "still holds more of the forget set than gold",
    "uneven": "forgets unevenly, in part less and in part more than gold",
    "over-forgets": "forgets more than a model that never saw the forget set",
    "differs from gold": "can be told apart from gold",
    "gold level": "forgets to gold level",
}
_UTILITY = {"kept": "keeps its utility", "reduced": "loses utility", "collapsed": "loses its utility altogether"}


def _sentence(outcome: Outcome, findings: tuple[Finding, Finding, Finding], forgot: bool) -> str:
    forgetting, utility, privacy = findings
    if outcome == "collapsed":
        return f"{'forgot by collapsing' if forgot else 'collapsed'}: utility {utility.text}."
    if outcome == "not judged":
        sentence = f"{_unjudged(forgetting)} {_capital(_told(utility))}."
    else:
        joint = " and " if utility.answer in _UTILITY else "; "
        sentence = f"{_OPENINGS[outcome]}{joint}{_told(utility).removeprefix('it ')}."
    if privacy.answer == "shows":
        sentence += " Its forget rows still look trained on."
    if privacy.answer == "stands out":
        sentence += " Its forget rows look less likely than unseen ones, which gives them away."
    return sentence


def _unjudged(forgetting: Finding) -> str:
    if forgetting.answer == "near":
        return "is near gold in what was measured, but forget quality was not."
    if forgetting.answer == "nothing to forget":
        return "cannot be judged: the model before could not be told apart from gold either."
    if not forgetting.evidence:
        return "cannot be judged: its forget set was not measured."
    return "cannot be judged: no gold model was audited that shows how much a deletion leaves."


def _told(utility: Finding) -> str:
    return f"it {_UTILITY[utility.answer]}: {utility.text}" if utility.answer in _UTILITY else utility.text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
