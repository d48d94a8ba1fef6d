from __future__ import annotations

import pytest

from demur.audits.suites import SUITES, find_suite
from demur.audits.tofu_run import run_tofu
from demur.errors import UnknownNameError


def test_suites_are_found_by_name() -> None:
    assert find_suite("tofu") is run_tofu is SUITES["tofu"]
    with pytest.raises(UnknownNameError, match="did you mean tofu"):
        find_suite("toffu")
