from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli.command import demur
from demur.audits.request import AuditRequest, Shared
from demur.audits.suites import suites
from demur.editing.run import edit_run
from demur.editing.settings import EditSettings
from demur.errors import UsageError
from demur.reports import write_report
from demur.reports.classifier_view import classifier_views
from demur.reports.evidence import read_runs
from demur.runs import RunFolder

SUITE = "classifier-unlearning"
SHORT = {"relearn_steps": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Runs that forget the threes of 300 digits: by a step of ascent, and twice by a little retraining."""
    folder = tmp_path_factory.mktemp("runs")
    short = {"epochs": 2}
    methods = {"ga": ("ga", {"epochs": 1}, 0), "gold": ("retrain", short, 0), "again": ("retrain", short, 1)}
    out = {}
    for name, (method, options, seed) in methods.items():
        settings = EditSettings(
            task="image-classification",
            model="lab:digits-resnet@epochs=1",
            data="digits:train[0:300]",
            test="digits:test[0:200]",
            forget="class:3",
            method=method,
            options=options,
            seed=seed,
        )
        out[name] = str(edit_run(settings, folder / name).path)
    return out


def test_a_run_is_measured_on_its_own_rows_beside_a_retrained_model(world: dict[str, str]) -> None:
    request = AuditRequest(world["ga"], world["gold"], settings={**SHORT, "floor": world["again"]})
    folder, reports = suites.get(SUITE).function(request)
    assert [report.role for report in reports] == ["run", "before", "reference", "floor"]
    own = reports[0].summary
    forget = np.load(Path(world["ga"]) / "forget.npy")
    assert next(r.n for r in reports[0].results if r.metric == "unlearning_accuracy") == len(forget)
    stored = folder.results()
    stored = stored[stored["suite"] == SUITE]
    assert set(stored["role"]) == {"run", "before", "reference"}
    assert own["unlearning_seconds"] == pytest.approx(RunFolder(world["ga"]).state["facts"]["seconds"])
    earlier = folder.results()
    earlier = earlier[(earlier["suite"] == "forget") & (earlier["role"] == "run")].set_index("metric")["value"]
    assert own["retain_accuracy"] == pytest.approx(earlier["accuracy_retain"])
    assert own["test_accuracy"] == pytest.approx(earlier["accuracy_test"])
    assert own["unlearning_accuracy"] == pytest.approx(1 - earlier["accuracy_forget"])
    table = folder.samples("classifier_unlearning_metrics")
    kept = table[(table["role"] == "run") & (table["metric"] == "retain_accuracy")].iloc[0]
    assert kept["gap"] == pytest.approx(abs(kept["value"] - kept["reference"]))
    curve = folder.samples("classifier_unlearning_relearning")
    assert set(curve["role"]) == {"run", "before", "reference", "floor"} and set(curve["step"]) == set(range(5))


def test_runs_share_what_they_have_in_common(world: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from demur.audits.classifiers import suite

    seen: list[str] = []
    measure = suite.measure
    monkeypatch.setattr(suite, "measure", lambda model, *a, **k: seen.append(model.name) or measure(model, *a, **k))
    shared = Shared()
    for run in ("ga", "again"):
        request = AuditRequest(world[run], world["gold"], settings={"relearn_steps": 0}, shared=shared)
        suites.get(SUITE).function(request)
    assert len(seen) == 4  # two runs, one model before, one retrained


def test_what_cannot_be_measured_is_refused(world: dict[str, str], tmp_path: Path) -> None:
    def ask(target: str, **facts: object) -> None:
        suites.get(SUITE).function(AuditRequest(target, **facts))  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="has no set 'retain'"):
        ask(world["ga"], sources={"retain": "digits:train"})
    with pytest.raises(UsageError, match="no setting 'floors'"):
        ask(world["ga"], settings={"floors": "x"})
    with pytest.raises(UsageError, match="does not say its data rows: pass --rows data=SOURCE"):
        ask(world["ga"] + "/model", out=tmp_path / "out")
    sources = {"data": "digits:train[0:300]", "test": "digits:test[0:200]", "forget": "class:3"}
    with pytest.raises(UsageError, match="does not say how it forgot: ensembles need a run"):
        ask(world["ga"] + "/model", out=tmp_path / "out", sources=sources, settings={"ensembles": 4, **SHORT})


def test_the_suite_from_the_command_line_and_on_a_page(world: dict[str, str], tmp_path: Path) -> None:
    runs, gold = [world["ga"], world["again"]], world["gold"]
    steps = ["--option", "relearn_steps=3"]
    done = demur("audit", *runs, "--suite", SUITE, "--reference", gold, "--option", f"floor={world['again']}", *steps)
    assert done.code == 0, done.err
    for word in ("unlearning_accuracy", "mia_nonmember_rate", "anamnesis_index", "floor"):
        assert word in done.out.replace("\n", "")
    folders = [RunFolder(run) for run in runs]
    view = classifier_views(read_runs(folders))[0]
    assert list(view.models) == ["before", "this model", "retrained", "retrained again"]
    by_label = {row.label: row for row in view.rows}
    assert by_label["Average gap"].cells[2] == "–" and by_label["UA"].gap not in ("–", "")
    assert len(view.figures) == 1 and "retrained again from" in view.figures[0][0]
    page = write_report(folders, tmp_path / "report.html").read_text()
    assert "Forgetting in a classifier" in page and "MIA on confidence, non-members" in page

    named = ["--rows", "data=digits:train[0:300]", "--rows", "test=digits:test[0:200]", "--forget", "class:3"]
    plain = demur("audit", f"{gold}/model", "--suite", SUITE, "--out", tmp_path / "out", *named, *steps)
    assert plain.code == 0, plain.err
    assert "tug_of_war" not in plain.out
