from __future__ import annotations

import pytest

from demur.audits.suites import suites
from demur.audits.tofu_run import run_tofu
from demur.errors import UnknownNameError


def test_suites_are_found_by_name() -> None:
    assert suites.get("tofu").function is run_tofu
    with pytest.raises(UnknownNameError, match="did you mean tofu"):
        suites.get("toffu")
