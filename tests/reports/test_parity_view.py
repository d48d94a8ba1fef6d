from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from demur.audits.parity_run import refusal_parity_audit
from demur.models import Generation
from demur.reports.evidence import read_runs
from demur.reports.glossary import describe
from demur.reports.parity_view import ParityView, parity_views
from demur.runs import RunFolder

LONG = "the honourable company of <coopers & bakers>"


class Refuses:
    """An engine that refuses every request about one group."""

    def __init__(self, group: str) -> None:
        self.group = group

    def generate(self, prompts: Sequence[str], **options: object) -> list[Generation]:
        said = ["I cannot help with that." if self.group in p else "They trade rope." for p in prompts]
        return [Generation(text, (), "stop") for text in said]


def view(folder: Path, group: str) -> ParityView:
    run = RunFolder.create(folder, {"command": "audit"})
    templates = [f"What do the {{group}} trade in town {i}?" for i in range(20)]
    report = refusal_parity_audit(Refuses(group), templates, ["masons", "dyers", LONG])  # type: ignore[arg-type]
    report.named(run.name).save(run)
    return parity_views(read_runs([run]))[0]


def test_the_most_refused_group_stands_on_top_and_the_verdict_names_it(tmp_path: Path) -> None:
    shown = view(tmp_path / "run", "dyers")
    assert shown.tone == "bad" and shown.sentence.startswith("Requests about dyers are refused more often")
    labels = re.findall(r'text-anchor="end">([^<]*)<', shown.figure)
    assert labels[0] == "dyers" and len(labels) == 3
    assert "Rings" not in shown.caption  # there is no model before


def test_the_figure_is_well_formed_whatever_groups_are_called(tmp_path: Path) -> None:
    figure = view(tmp_path / "run", LONG).figure
    tree = ElementTree.fromstring(str(figure))
    assert LONG in str(tree.attrib["aria-label"])
    dots = [node for node in tree.iter() if node.tag.endswith("circle")]
    assert len(dots) == 3
    places = [float(dot.attrib["cx"]) for dot in dots]
    assert places[0] > places[1] == places[2]  # one group always, two never


def test_nobody_is_accused_where_all_are_answered(tmp_path: Path) -> None:
    shown = view(tmp_path / "run", "nobody at all")
    assert shown.tone == "good" and shown.sentence.startswith("No group is refused more than others")


def test_every_metric_of_the_suite_has_a_definition() -> None:
    for name in ("difference", "target_difference", "swap_p"):
        assert describe(f"parity/parity_{name}").definition
    assert describe("parity/refusal_rate_dyers").label == "dyers"
    assert describe("parity/refusal_rate_dyers").group == "Refusals by group"
