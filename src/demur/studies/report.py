"""The page of results, made from the stored results of the studies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from demur.errors import UsageError
from demur.studies.results import Claim, PartResult, StudyResult

__all__ = ["number", "read_results", "results_page", "seed_by_seed", "spread"]


def number(value: float) -> str:
    """A measurement in three significant digits."""
    return f"{value:.3g}"


def seed_by_seed(values: Mapping[int, float]) -> str:
    """Every seed's value, in the order of the seeds."""
    return " ".join(number(value) for _, value in sorted(values.items()))


def spread(values: Mapping[int, float]) -> str:
    """The least and the greatest value."""
    return "–".join(dict.fromkeys([number(min(values.values())), number(max(values.values()))]))


def read_results(folder: str | os.PathLike[str]) -> list[StudyResult]:
    """The results stored in `folder`, one `<slug>.json` a study, sorted by slug.

    Raises:
        UsageError: the folder is missing or empty, or a file in it is no study result.
    """
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        raise UsageError(f"{folder} holds no study results: write them with `demur studies run SLUG --json FILE`")
    results = []
    for file in files:
        try:
            results.append(StudyResult.model_validate_json(file.read_bytes()))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise UsageError(f"{file} is no study result: {where or 'file'}: {first['msg']}") from error
    return results


def _claim_row(claim: Claim) -> str:
    baselines = "<br>".join(f"{name}: {spread(values)}" for name, values in claim.baselines.items()) or "–"
    cells = [
        claim.text + (" *(ours)*" if claim.kind == "ours" else ""),
        seed_by_seed(claim.measured),
        claim.threshold,
        "yes" if claim.holds else "**no**",
        baselines,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _part_lines(part: PartResult) -> list[str]:
    seeds = ", ".join(map(str, part.seeds))
    lines = [f"### {part.name}: {part.verdict}", "", part.summary, ""]
    if part.problem is not None:
        return [*lines, f"{part.verdict.capitalize()}: {part.problem}.", ""]
    lines += [f"Seeds {seeds}; {max(part.seconds.values()):.0f} s for the slowest; code {part.code}.", ""]
    lines += ["| claim | measured, seed by seed | threshold | holds | beside it |", "| --- | --- | --- | --- | --- |"]
    return [*lines, *map(_claim_row, part.claims), ""]


def results_page(results: Sequence[StudyResult]) -> str:
    """The page `docs/results.md`, in Markdown.

    Args:
        results: one a study.
    """
    lines = [
        "# Results of the studies",
        "",
        "Made by `demur studies report` from `results/studies/*.json`; do not edit. A claim holds when every seed",
        "passes its threshold. Claims marked *(ours)* are not the paper's. [How to read and add a study](studies.md).",
        "",
        "| study | paper | verdict | claims that hold |",
        "| --- | --- | --- | --- |",
    ]
    for result in results:
        claims = [claim for part in result.parts for claim in part.claims]
        held = f"{sum(claim.holds for claim in claims)} of {len(claims)}"
        paper = f"[{result.paper}](https://arxiv.org/abs/{result.paper})"
        lines.append(f"| [{result.study}](#{result.study}) | {paper} | {result.verdict} | {held} |")
    lines.append("")
    for result in results:
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        lines += [f"## {result.study}", "", f"Again: `demur studies run {result.study}`. Made with {versions}.", ""]
        for part in result.parts:
            lines += _part_lines(part)
    return "\n".join(lines).rstrip() + "\n"
