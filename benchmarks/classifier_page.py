"""The page and the plots of `benchmarks.classifier_methods`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIXED = ("before", "retrained", "retrained again")
SHOWN = {
    "unlearning_accuracy": "UA",
    "retain_accuracy": "RA",
    "test_accuracy": "TA",
    "unlearning_accuracy_test": "UA, test",
    "mia_nonmember_rate": "MIA, non-members",
    "mia_member_rate": "MIA, members",
    "average_gap": "average gap",
    "tug_of_war": "ToW",
    "zero_retrain_forgetting": "ZRF",
    "agreement_forget": "agreement",
    "relearn_steps": "relearning",
    "anamnesis_index": "AIN",
    "unlearning_seconds": "seconds",
}
TITLES = {
    "class": "A class",
    "random": "A tenth of the rows at random",
    "group": "A part of a class",
}
FORGOTTEN = 0.1  # UA this near to the retrained model's counts as forgotten in the plot
HEAD = """# Results of the methods for classifiers

Made by `python -m benchmarks.classifier_methods`; do not edit. [What the methods and the metrics
are](classifiers.md).

A residual network of 20,000 weights is trained on scikit-learn's digits (1,200 rows, 597 for testing) and made to
forget. Each cell is the mean over seeds {seeds} with the smallest and the largest; the 95 % intervals of every single
cell stand in `benchmarks/results/classifier_methods.json`. The seeds decide rows, weights and what is forgotten:
class 3, 4, 5; other tenths; of class 3, 4, 5 the one of three k-means clusters of its pictures that lies farthest
from the others.

*retrained* never saw the forget rows, *retrained again* is another such model: their distance is what cannot be asked
of a method. UA: share of forget rows that come out wrong. RA, TA: share of retain and test rows that come out right.
MIA: share of the forget rows that an attack on confidence takes for non-members, and one on entropy for members.
Average gap: mean distance to *retrained* in UA, RA, TA and MIA (non-members), 0 is ideal; ToW: 1 is ideal. Agreement:
forget rows on which the model and *retrained* name the same class. Relearning: steps of training on all rows until
nine tenths of the accuracy on the forget rows are back; AIN: the same as a share of the retrained model's, well below
1 the knowledge was only hidden. Seconds: the method alone, on one thread.

`dmm` predicts from 100 models that saw random halves of the rows, none of which lacks a whole class, and `om` from ten
that were retrained.

**How settings were chosen.** On seed 0, which is not in the tables, with the last fifth of the training rows in the
place of the test rows: of a few settings a method the one with the smallest average gap to a model retrained there.
No test row decided anything. What was chosen stands at the end. MNIST and CIFAR-10 take the settings of digits over,
so that a method that needs tuning shows it.
"""


def write_page(
    cells: Sequence[dict[str, Any]], settings: Mapping[str, Mapping[str, Any]], docs: Path = DOCS
) -> list[Path]:
    """Write the page and its plots.

    Args:
        cells: one a set, kind, seed and method, with `metrics` (name → value, low, high) or a `problem`.
        settings: kind → method → options.
        docs: the folder of the page.
    """
    from demur.files import atomic_write

    seeds = sorted({c["seed"] for c in cells if c["set"] == "digits"})
    parts = [HEAD.format(seeds=", ".join(map(str, seeds)))]
    plots = {}
    for kind, title in TITLES.items():
        own = [c for c in cells if c["set"] == "digits" and c["kind"] == kind]
        if not own:
            continue
        parts.append(f"## {title}\n\n{table(own)}\n")
        drawn = plot(own, kind)
        if drawn is not None:
            name, svg, caption = drawn
            plots[name] = svg
            parts.append(f"![Forgetting, utility and resistance](images/{name})\n\n{caption}\n")
    for name in dict.fromkeys(c["set"] for c in cells if c["set"] != "digits"):
        own = [c for c in cells if c["set"] == name]
        parts.append(f"## {name}: a class, one seed, settings taken over from digits\n\n{table(own)}\n")
    parts.append(f"## Settings\n\n{_settings(settings)}\n")
    parts.append(_missing(cells))
    written = {docs / "classifier-results.md": "\n".join(part for part in parts if part).rstrip() + "\n"}
    written |= {docs / "images" / name: svg + "\n" for name, svg in plots.items()}
    for file, text in written.items():
        with atomic_write(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(written)


def table(cells: Sequence[dict[str, Any]]) -> str:
    """Methods by metrics, in Markdown; the nearest to the retrained model first."""
    by_method = gathered(cells)
    shown = [m for m in SHOWN if any(m in found for found in by_method.values())]
    order = [m for m in FIXED if m in by_method]
    order += sorted(by_method.keys() - set(FIXED), key=lambda m: _mean(by_method[m]["average_gap"]))
    lines = ["| method | " + " | ".join(SHOWN[m] for m in shown) + " |", "| --- |" + " --- |" * len(shown)]
    for method in order:
        values = [by_method[method].get(metric, []) for metric in shown]
        cells_of = [_spread(own, metric == "relearn_steps") for metric, own in zip(shown, values, strict=True)]
        lines.append(f"| {method} | " + " | ".join(cells_of) + " |")
    return "\n".join(lines)


def gathered(cells: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Method → metric → a value a seed."""
    out: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        for metric, (value, _, _) in cell.get("metrics", {}).items():
            out.setdefault(cell["method"], {}).setdefault(metric, []).append(value)
    return out


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float], whole: bool) -> str:
    if not values:
        return "–"
    digits = 0 if whole or max(values) >= 10 else 2
    mean, low, high = (f"{x:.{digits}f}" for x in (_mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def plot(cells: Sequence[dict[str, Any]], kind: str) -> tuple[str, str, str] | None:
    """Utility across, resistance up, forgetting by shape: file name, SVG and caption; None where no method stands."""
    from demur.reports import Mark, Scale, scatter

    by_method = gathered(cells)
    up = "mia_nonmember_rate" if kind == "random" else "anamnesis_index"
    wanted = _mean(by_method["retrained"]["unlearning_accuracy"])
    marks = []
    for number, (method, found) in enumerate(sorted(by_method.items())):
        if up not in found or method == "before":
            continue
        utility, height = found["test_accuracy"], found[up]
        forgot = abs(_mean(found["unlearning_accuracy"]) - wanted) <= FORGOTTEN
        fixed = method in FIXED
        role = "reference" if fixed else "run" if forgot else "before"
        ends = (min(utility), max(utility), min(height), max(height))
        series = None if fixed or not forgot else number
        marks.append(Mark(method, _mean(utility), _mean(height), *ends, series=series, role=role))
    if len(marks) <= len(FIXED):
        return None
    label = "Taken for non-members (MIA)" if kind == "random" else "Relearning time beside retraining (AIN)"
    what = {"class": "a class", "random": "a tenth of the rows", "group": "a part of a class"}[kind]
    rule = _mean(by_method["retrained"][up])
    caption = (
        f"Forgetting {what}. Across: what is kept, test accuracy. Up: what resists, {label[0].lower()}{label[1:]}. "
        f"Filled: UA within {FORGOTTEN:g} of the retrained model's; rings: farther. Lines span the seeds."
    )
    top = sorted(mark.y for mark in marks)[-1]
    svg = scatter(
        marks,
        Scale.around("Test accuracy →", [m.x for m in marks], None, 1.0),
        Scale.around(label, [m.y for m in marks], 0.0, min(top, 3.0)),
        title=f"Forgetting, utility and resistance: {what}",
        description="; ".join(f"{m.label}: test accuracy {m.x:.2f}, {up.replace('_', ' ')} {m.y:.2f}" for m in marks),
        rules=[(rule, "retrained")],
        standalone=True,
    )
    return f"classifier-methods-{kind}.svg", svg, caption


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> str:
    names = sorted({method for own in settings.values() for method in own})
    lines = ["| method | " + " | ".join(settings) + " |", "| --- |" + " --- |" * len(settings)]
    for method in names:
        shown = []
        for own in settings.values():
            options = own.get(method) or {}
            shown.append(", ".join(f"{k} {json.dumps(v)}" for k, v in options.items()) or "defaults")
        lines.append(f"| {method} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _missing(cells: Sequence[dict[str, Any]]) -> str:
    problems: dict[str, str] = {}
    for cell in cells:
        if "problem" in cell:
            problems.setdefault(f"{cell['method']} ({cell['set']}, {cell['kind']})", cell["problem"])
    if not problems:
        return ""
    return "## Not in the tables\n\n" + "\n".join(f"- {where}: {why}" for where, why in problems.items()) + "\n"
