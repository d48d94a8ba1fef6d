from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from demur.studies import Claim, PartResult, StudyResult

finite = st.floats(-1e6, 1e6)


def part(*, holds: bool = True, problem: str | None = None, failed: bool = False, claims: int = 1) -> PartResult:
    claim = Claim(text="x", measured={1: 1.0}, threshold="< 2" if holds else "> 2")
    return PartResult(name="p", summary="s", seeds=[1], claims=[claim] * claims, problem=problem, failed=failed)


@given(st.dictionaries(st.integers(0, 99), finite, min_size=1), finite)
def test_a_claim_holds_only_when_every_seed_passes(measured: dict[int, float], bound: float):
    for sign, passes in {"<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__}.items():
        claim = Claim(text="x", measured=measured, threshold=f"{sign} {bound!r}")
        assert claim.holds == all(passes(value, bound) for value in measured.values())


@pytest.mark.parametrize(("value", "holds"), [(0.0001, True), (0.2, True), (0.21, False), (0.00009, False)])
def test_a_threshold_may_have_two_ends(value: float, holds: bool):
    assert Claim(text="x", measured={1: value}, threshold=">= 1e-4 and <= 0.2").holds is holds


@pytest.mark.parametrize("threshold", ["", "small", "= 3", "< three", "< 1, > 0", "0.3"])
def test_an_unreadable_threshold_is_refused(threshold: str):
    with pytest.raises(ValidationError):
        Claim(text="x", measured={1: 1.0}, threshold=threshold)


@pytest.mark.parametrize("measured", [{}, {1: float("nan")}, {1: float("inf")}])
def test_nothing_measured_or_no_number_is_no_claim(measured: dict[int, float]):
    with pytest.raises(ValidationError):
        Claim(text="x", measured=measured, threshold="< 1")


def test_a_column_of_a_table_is_taken_as_it_is():
    column = pd.DataFrame.from_dict({1: {"a": 2}, 2: {"a": 4}}, orient="index")["a"] / 2
    assert Claim(text="x", measured=column, threshold="> 0", baselines={"b": column}).measured == {1: 1.0, 2: 2.0}


def test_holding_follows_from_the_numbers_and_not_from_what_a_file_says():
    record = Claim(text="x", measured={1: 5.0}, threshold="< 1").model_dump()
    assert record["holds"] is False
    assert Claim.model_validate({**record, "holds": True}).holds is False


def test_a_part_without_measurement_never_holds():
    assert part().verdict == "holds"
    assert part(holds=False).verdict == "does not hold"
    assert part(problem="no data").verdict == "not measured"
    assert part(claims=0).verdict == "not measured"
    assert part(problem="broke", failed=True).verdict == "failed"


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([part(), part()], "holds"),
        ([part(), part(problem="no data")], "not measured"),
        ([part(holds=False), part(problem="no data")], "does not hold"),
        ([part(holds=False), part(problem="x", failed=True)], "failed"),
    ],
)
def test_a_study_is_as_good_as_its_worst_part(parts: list[PartResult], verdict: str):
    assert StudyResult(study="s", paper="0000.00000", parts=parts).verdict == verdict


def test_a_result_survives_json():
    result = StudyResult(study="s", paper="0000.00000", parts=[part(), part(problem="no data")])
    assert StudyResult.model_validate_json(result.model_dump_json()) == result
