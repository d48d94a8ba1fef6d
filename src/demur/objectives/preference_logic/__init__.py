"""Preference losses as logic: from formulas to a loss, from a loss to formulas, and the order among them.

After Richardson et al. 2024, arXiv 2412.17696.
"""

from demur.objectives.preference_logic.compiler import Link, compile_loss, log_ratio, logic, logic_reference
from demur.objectives.preference_logic.decompiler import NotExpressibleError, decompile
from demur.objectives.preference_logic.formula import Formula, assignments, minimal, parse
from demur.objectives.preference_logic.structure import (
    ATOMS,
    KNOWN_LOSSES,
    PreferenceStructure,
    enumerate_structures,
    known_name,
    lattice,
)

__all__ = [
    "ATOMS",
    "KNOWN_LOSSES",
    "Formula",
    "Link",
    "NotExpressibleError",
    "PreferenceStructure",
    "assignments",
    "compile_loss",
    "decompile",
    "enumerate_structures",
    "known_name",
    "lattice",
    "log_ratio",
    "logic",
    "logic_reference",
    "minimal",
    "parse",
]
