"""The part of a page about suites other than TOFU's: a table and a glossary for each, whatever it measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from demur.reports.evidence import MAIN_SUITE, Evidence, Model
from demur.reports.glossary import ARROWS, Description, describe
from demur.reports.tables import Column, Row, Table, cell, missing_reason

__all__ = ["SuiteSection", "main_models", "suite_sections"]

_TITLES = {
    "abstention": "Certainty and abstention",
    "classifier-unlearning": "Forgetting in a classifier",
    "corrective": "Only some of the bad rows are known",
    "continual": "Task after task",
    "coverage": "Coverage of repeated sampling",
    "forget": "Accuracy before and after",
    "refusal": "Refusals and over-refusals",
    "honesty": "Honesty and helpfulness",
    "parity": "Refusals by group",
    "poisoning": "Poisoning",
    "recourse": "Recourse under deletions",
    "removal": "Removal or suppression",
    "representation": "What the features still know",
    "muse": "MUSE",
    "wmdp": "Multiple choice",
    "safe-eraser": "SafeEraser",
    "worst-case": "The hardest rows to forget",
}


@dataclass(frozen=True)
class SuiteSection:
    """One suite's numbers.

    Attributes:
        name: the suite.
        title: its heading.
        models: labels of the columns.
        blocks: a table a group, one row a metric.
        glossary: label, arrow, definition and interval of each metric that has a definition.
    """

    name: str
    title: str
    models: Sequence[str]
    blocks: Sequence[Table]
    glossary: Sequence[tuple[str, str, str, str]]


def main_models(evidence: Evidence) -> list[Model]:
    """The models with the numbers of the TOFU suite alone; models without any are left out."""
    own = [replace(m, results={k: r for k, r in m.results.items() if "/" not in k}) for m in evidence.models]
    return [model for model in own if model.results]


def suite_sections(evidence: Evidence) -> list[SuiteSection]:
    """A section for every suite other than the main one that some run was audited with."""
    names = dict.fromkeys(k.partition("/")[0] for m in evidence.models for k in m.results if "/" in k)
    return [_section(name, evidence) for name in names if not name.startswith(MAIN_SUITE)]


def _section(suite: str, evidence: Evidence) -> SuiteSection:
    models = []
    for model in evidence.models:
        results = {k.partition("/")[2]: r for k, r in model.results.items() if k.partition("/")[0] == suite}
        if results:
            audits = [e for run in model.runs for e in run.events if e.get("suite") == suite]
            notes = {k: v for e in audits if e.get("role") == model.role for k, v in (e.get("notes") or {}).items()}
            models.append(replace(model, results=results, notes=notes))
    models.sort(key=lambda m: ("run", "before", "reference").index(m.role))
    metrics = list(dict.fromkeys(metric for m in models for metric in m.results))
    known = {metric: _known(suite, metric) for metric in metrics}
    groups = dict.fromkeys(known[metric].group for metric in metrics)
    blocks = []
    for group in groups:
        rows = [_row(m, known[m], models) for m in metrics if known[m].group == group]
        blocks.append(Table((), tuple(rows), group))
    glossary: dict[str, tuple[str, str, str, str]] = {}
    for metric in metrics:
        entry = known[metric]
        if entry.definition:
            column = _column(metric, entry, models)
            glossary.setdefault(entry.definition, (entry.label, column.arrow, entry.definition, entry.interval))
    return SuiteSection(suite, _TITLES.get(suite, suite), [m.label for m in models], blocks, list(glossary.values()))


def _known(suite: str, metric: str) -> Description:
    """The glossary entry under the suite's name, or else the metric's own."""
    named = describe(f"{suite}/{metric}")
    return named if named.definition else describe(metric)


def _row(metric: str, known: Description, models: Sequence[Model]) -> Row:
    cells = tuple(cell(m.results.get(metric), known, missing_reason(metric, m, models)) for m in models)
    return Row(known.label, "", cells, _column(metric, known, models))


def _column(metric: str, known: Description, models: Sequence[Model]) -> Column:
    stated = [m.results[metric].better for m in models if metric in m.results]
    arrow, direction = ARROWS[next((b for b in stated if b != "none"), known.better)]
    return Column(metric, known.label, arrow, direction, known.definition)
