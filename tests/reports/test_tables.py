from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.reports.evidence import Model
from demur.reports.tables import Cell, footnotes, full_table, headline_table, interval, number, p_value
from demur.runs import Result


def result(metric: str, value: float | None, n: int = 400, **facts) -> Result:
    return Result("r", "tofu", metric, value, facts.pop("low", None), facts.pop("high", None), n, **facts)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.62, "0.62"),
        (0.6249, "0.62"),
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (1.0, "1.00"),
        (0.0013, "0.0013"),
        (0.00013, "0.0001"),
        (0.000003, "3e-6"),
        (-0.25, "−0.25"),
        (12.34, "12.3"),
        (4000.0, "4000"),
        (1.2e9, "1.2e9"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_number_keeps_the_digits_that_carry_meaning(value, text):
    assert number(value) == text


def test_percent_and_log10_have_one_decimal():
    assert number(-99.83, "percent") == "−99.8"
    assert number(-0.01, "percent") == "0.0"
    assert number(-200.0, "log10") == "−200.0"


def test_interval_stands_in_brackets_after_the_value():
    assert interval(0.62, 0.58, 0.66) == "0.62 [0.58, 0.66]"
    assert interval(0.62, None, 0.66) == "0.62"
    assert interval(None, 0.58, 0.66) == "–"
    assert interval(0.03, 0.0036, 0.06) == "0.03 [0.00, 0.06]"
    assert interval(0.0013, 0.0009, 0.0017) == "0.0013 [0.0009, 0.0017]"


@pytest.mark.parametrize(
    ("p", "log10", "text"),
    [
        (0.42, None, "0.42"),
        (1.0, None, "1.00"),
        (0.0123, None, "0.012"),
        (0.0021, None, "0.0021"),
        (1.834066e-21, -20.74, "2e-21"),
        (1e-200, -200.0, "1e-200"),
        (0.0, -400.5, "3e-401"),
        (0.0, -400.01, "1e-400"),
        (0.0, None, "below 1e-300"),
        (0.0, -math.inf, "below 1e-300"),
        (None, -239.0, "1e-239"),
        (None, None, "–"),
    ],
)
def test_p_values_are_short_and_never_zero(p, log10, text):
    assert p_value(p, log10) == text


@given(st.floats(min_value=1e-300, max_value=0.0999))
def test_p_value_text_is_within_a_digit_of_the_value(p):
    assert float(p_value(p)) == pytest.approx(p, rel=0.51)


@given(st.floats(min_value=-1e6, max_value=1e6))
def test_number_text_reads_back_near_the_value(value):
    assert float(number(value).replace("−", "-")) == pytest.approx(value, rel=0.35, abs=0.0051)


def models(**runs: dict[str, Result]) -> list[Model]:
    return [Model(name, "run", results, [], True) for name, results in runs.items()]


def cell_of(model: Model, metric: str) -> Cell:
    table = headline_table([model])
    return table.rows[0].cells[[c.metric for c in table.columns].index(metric)]


def test_a_missing_number_says_so_with_a_reason_and_sorts_nowhere():
    lone = Model("npo", "run", {"model_utility": result("model_utility", 0.6)}, [], has_reference=False)
    cells = dict(
        zip([c.metric for c in headline_table([lone]).columns], headline_table([lone]).rows[0].cells, strict=True)
    )
    assert cells["model_utility"].value == "0.60"
    quality, leakage = cells["forget_quality"], cells["privleak"]
    assert (quality.value, quality.sort) == ("not measured", None)
    assert "--reference" in quality.reason
    assert "hold-out" in leakage.reason


def test_the_audits_own_note_is_the_reason():
    noted = Model(
        "npo", "run", {"privleak": result("privleak", None)}, [], True, {"privleak": "no hold-out rows were given"}
    )
    table = headline_table([noted])
    assert (
        table.rows[0].cells[[c.metric for c in table.columns].index("privleak")].reason == "no hold-out rows were given"
    )


def test_a_note_on_a_number_that_is_there_becomes_a_footnote():
    note = {"privleak": "measured against an AUC of 0.5", "forget_rouge": "unused"}
    pair = [Model(name, "run", {"privleak": result("privleak", 3.0)}, [], True, note) for name in ("a", "b")]
    assert footnotes(pair) == ["Privacy leakage: measured against an AUC of 0.5 (a, b)."]


def test_none_of_the_samples_scored_is_said():
    empty = Model("m", "run", {"forget_rouge": result("forget_rouge", None, 0, unscored=7)}, [], True)
    assert cell_of(empty, "forget_rouge").reason == "none of 7 could be scored"


def test_unscored_samples_are_counted_beside_n():
    partly = {"forget_rouge": result("forget_rouge", 0.4, 397, unscored=3, low=0.3, high=0.5)}
    shown = cell_of(Model("m", "run", partly, [], True), "forget_rouge")
    assert (shown.value, shown.detail, shown.n, shown.unscored) == ("0.40", "[0.30, 0.50]", 397, 3)


def test_p_values_sort_by_their_logarithm_even_when_they_underflow():
    def row(p, log10):
        both = {"forget_quality": result("forget_quality", p)}
        return both | ({} if log10 is None else {"forget_quality_log10": result("forget_quality_log10", log10)})

    table = headline_table(models(a=row(0.0, -400.0), b=row(1e-200, None), c=row(0.0, None)))
    a, b, c = (r.cells[0].sort for r in table.rows)
    assert c < a < b


def test_direction_comes_from_the_results_and_else_from_the_glossary():
    stated = headline_table(models(m={"forget_probability": result("forget_probability", 0.1, better="lower")}))
    silent = headline_table(models(m={"forget_probability": result("forget_probability", 0.1)}))
    place = [c.metric for c in stated.columns].index("forget_probability")
    assert (stated.columns[place].arrow, silent.columns[place].arrow) == ("↓", "≈ gold")


def test_the_full_table_holds_every_metric_once_even_unknown_ones():
    results = {name: result(name, 0.5) for name in ("forget_rouge", "mia_loss", "muse/verbmem", "model_utility")}
    blocks = full_table(models(m=results))
    assert sorted(row.column.metric for block in blocks for row in block.rows) == sorted(results)
