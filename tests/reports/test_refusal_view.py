from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from demur.guards import refusal_curve
from demur.reports import describe, read_runs, write_report
from demur.reports.refusal_view import draw_curves, refusal_views
from demur.runs import Result, RunFolder

SCORES = {"refuse": [0.9, 0.8, 0.4], "comply": [0.5, 0.2, 0.1]}


def refusal_run(root: Path, scored: bool = True, guard: str | None = None) -> RunFolder:
    """A small run folder as the suite leaves it."""
    folder = RunFolder.create(root / "tokens", {"command": "refuse", "model": "m", "method": "refusal-tokens"})
    results = []
    for role, rate, over in (("run", 0.67, 0.33), ("before", 0.0, 0.0)):
        for name, value in {"full_refusals": rate, "over_refusals": over, "full_refusals:gates": rate}.items():
            better = "lower" if name.startswith("over") else "higher"
            results.append(
                Result("tokens", "refusal", name, value, max(0, value - 0.1), value + 0.1, 3, role=role, better=better)  # type: ignore[arg-type]
            )
    folder.add_results(results)
    for kind, scores in SCORES.items():
        wrong = {"refuse": ["none", "partial", "full"], "comply": ["full", "none", "none"]}[kind]
        table = pd.DataFrame(
            {
                "role": "run",
                "prompt": [f"{kind} {i}?" for i in range(3)],
                "generation": [f"<b>{text}</b>" for text in wrong],
                "refusal": wrong,
                "token_score": scores if scored else np.nan,
            }
        )
        folder.write_samples(f"refusal_{kind}", pd.concat([table, table.assign(role="before", token_score=np.nan)]))
    folder.update_state(refusal={"source": "rows.jsonl", "guard": guard})
    return folder


def test_the_curve_and_the_measured_models_are_drawn(tmp_path: Path):
    (view,) = refusal_views(read_runs([refusal_run(tmp_path)]))
    ((svg, caption),) = view.figures
    area = refusal_curve([*SCORES["refuse"], *SCORES["comply"]], [True] * 3 + [False] * 3).auc
    assert f"every threshold: area {area:.2f}" in caption
    assert "this model refuses 0.67, over-refuses 0.33" in caption and "before refuses 0.00" in caption
    assert "threshold 0.50: refuses 0.67, over-refuses 0.33" in str(svg)


def test_what_went_wrong_is_shown_and_only_of_the_run_s_own_model(tmp_path: Path):
    (view,) = refusal_views(read_runs([refusal_run(tmp_path)]))
    assert [(prompt, problem) for prompt, _, problem in view.wrong] == [
        ("refuse 0?", "answered"),
        ("refuse 1?", "said no, then answered"),
        ("comply 0?", "refused"),
    ]


def test_a_page_has_the_section_with_its_text_escaped(tmp_path: Path):
    run = refusal_run(tmp_path, scored=False, guard="guards/dial")
    page = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="refusal"' in page and "Refusals and over-refusals" in page
    assert "The guard guards/dial answered." in page and "every threshold: area" not in page
    assert "&lt;b&gt;partial&lt;/b&gt;" in page and "<b>partial</b>" not in page
    assert "Refused (recall): gates" in page


@pytest.mark.parametrize(
    "metric",
    [
        "full_refusals",
        "over_refusals:look_alike",
        "partial_refusals",
        "refusal_precision",
        "refusal_f1",
        "refusal_token_auc",
    ],
)
def test_every_number_has_its_definition(metric: str):
    found = describe(f"refusal/{metric}")
    assert found.definition and found.group in ("Requests to refuse", "Requests to answer", "Both")
    assert found.label.endswith("look alike") == ("look_alike" in metric)


def test_long_curves_are_thinned_and_keep_their_ends():
    generator = np.random.default_rng(0)
    curve = refusal_curve(generator.random(2000), generator.random(2000) < 0.5)
    drawing, caption = draw_curves({"x": curve}, standalone=True)
    assert drawing.count("<title>x, threshold") <= 60
    assert "refuses 1.00, over-refuses 1.00" in drawing and "threshold ∞" in drawing and "area" in caption
