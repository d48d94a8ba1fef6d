from __future__ import annotations

import importlib.metadata
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cli.command import FORGET, GOLD, MODEL, RETAIN, Outcome, demur, forget_words, start
from demur.cli import _PANELS
from demur.runs import Result, RunFolder

EPOCHS, STEPS = 12, 5  # ten rows in batches of two
LONG = ("--epochs", EPOCHS, "--batch-size", 2, "--option", "beta=1e-1", "--retain-objective", "nll", "--seed", 3)
VERBS = [verb for verbs in _PANELS.values() for verb in verbs]
SAMPLES = ["tofu_forget", "tofu_holdout", "tofu_real_authors", "tofu_retain", "tofu_world_facts"]


@dataclass(frozen=True)
class Job:
    run: RunFolder
    forget: Outcome
    audit: Outcome
    report: Outcome


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_gold: Path) -> Job:
    """The main job, done once."""
    out = tmp_path_factory.mktemp("job") / "my-npo-run"
    done = [demur(*forget_words(out, *LONG)), demur("audit", out, "--reference", GOLD), demur("report", out)]
    return Job(RunFolder(out), *done)


def comparable(run: RunFolder) -> pd.DataFrame:
    """The trajectory, without the name of its folder and the time it took."""
    table = run.results()
    table = table[table["suite"] == "trajectory"].drop(columns=["run", "seconds"])
    return table.sort_values(["epoch", "metric"]).reset_index(drop=True)


def wait_for(process: subprocess.Popen[str], file: Path) -> None:
    """Until the file is there."""
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_each_command_of_the_main_job_names_the_next(job: Job) -> None:
    for done in (job.forget, job.audit, job.report):
        assert (done.code, done.err) == (0, ""), done
    path = job.run.path
    assert f"demur audit {path}" in job.forget.out
    assert f"demur report {path}" in job.audit.out
    assert job.report.out.strip() == str(path / "report.html")


def test_the_run_folder_holds_everything_and_nothing_half_written(job: Job) -> None:
    files = {file.name for file in job.run.path.iterdir()}
    whole = {"config.yaml", "state.json", "events.jsonl", "results.parquet", "samples", "model", "report.html"}
    assert files == whole
    assert sorted(file.stem for file in (job.run.path / "samples").iterdir()) == SAMPLES
    assert job.run.state["status"] == "complete"
    assert {"trained", "step"} <= {event["event"] for event in job.run.events()}
    assert set(job.run.state["hashes"]["data"]) == {"forget", "retain", "audit"}
    assert set(job.run.state["hashes"]["weights"]) == {"before", "after", "reference"}


def test_results_are_tidy_and_show_the_forgetting(job: Job) -> None:
    results = job.run.results()
    assert list(results.columns) == [field.name for field in fields(Result)]
    assert set(results["run"]) == {"my-npo-run"}
    tofu = results[results["suite"] == "tofu"].pivot(index="metric", columns="role", values="value")
    assert set(tofu.columns) == {"run", "before", "reference"}
    assert {"forget_quality", "model_utility", "privleak", "mia_loss", "retain_rouge"} <= set(tofu.index)
    assert tofu.loc["forget_probability", "run"] < 0.5 * tofu.loc["forget_probability", "before"]
    assert tofu.loc["forget_quality", "reference"] == 1
    trajectory = results[results["suite"] == "trajectory"]
    for metric in ("forget_probability", "retain_probability"):
        assert sorted(trajectory[trajectory["metric"] == metric]["epoch"]) == list(range(EPOCHS + 1))


def test_samples_show_every_question_under_every_model(job: Job) -> None:
    samples = job.run.samples("tofu_forget")
    assert samples is not None
    assert samples.groupby("role").size().to_dict() == {"run": 10, "before": 10, "reference": 10}
    asked = {"id", "prompt", "truth", "generation"}
    scores = {"probability", "rougeL_recall", "rouge1_recall", "truth_ratio", "extraction_strength", "loss"}
    assert asked | scores | {"exact_memorization"} <= set(samples.columns)
    before = samples[samples["role"] == "before"]
    assert (before["generation"] == before["truth"]).all()


def test_the_report_is_a_page_about_the_run(job: Job) -> None:
    page = (job.run.path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    for text in ("my-npo-run", GOLD, "utility", job.run.state["hashes"]["weights"]["after"]):
        assert text in page


def test_audit_names_metrics_in_full_on_a_narrow_screen(job: Job) -> None:
    from rich.console import Console

    from demur.cli.audit import _table

    results = job.run.results()
    roles = ("run", "before", "reference")
    columns = [
        [Result(**row) for row in results[(results["suite"] == "tofu") & (results["role"] == role)].to_dict("records")]
        for role in roles
    ]
    console = Console(width=80, file=io.StringIO())
    with console.capture() as captured:
        console.print(_table(columns, roles))
    shown = captured.get()
    assert max(map(len, shown.splitlines())) <= 80
    assert all(result.metric in shown for result in columns[0])


def test_config_of_a_run_is_a_recipe_that_repeats_it(job: Job, tmp_path: Path) -> None:
    again = tmp_path / "again"
    done = demur("forget", "--recipe", job.run.path / "config.yaml", "--out", again, "--no-trajectory")
    assert done.code == 0, done.err
    assert RunFolder(again).config == job.run.config
    assert RunFolder(again).state["hashes"]["weights"]["after"] == job.run.state["hashes"]["weights"]["after"]


def test_a_finished_run_is_not_trained_again_unless_its_model_is_gone(job: Job, tmp_path: Path) -> None:
    words = forget_words(tmp_path / "run", "--no-trajectory")
    demur(*words)
    weights = tmp_path / "run" / "model" / "model.safetensors"
    stamp, content = weights.stat().st_mtime_ns, weights.read_bytes()
    assert demur(*words).code == 0 and weights.stat().st_mtime_ns == stamp
    for file in weights.parent.iterdir():
        file.unlink()
    weights.parent.rmdir()
    assert demur(*words).code == 0 and weights.read_bytes() == content


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 1), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_run_goes_on_and_ends_as_one_that_was_never_stopped(
    kind: signal.Signals, code: int, job: Job, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(*forget_words(out, *LONG))
    wait_for(process, out / "checkpoints" / f"checkpoint-{STEPS}" / "complete")
    process.send_signal(kind)
    shown, said = process.communicate()
    assert (process.returncode, shown) == (code, ""), said
    assert not (out / "model").exists()
    if kind == signal.SIGINT:
        assert said.splitlines() == [
            "demur: interrupted; what was finished is kept, and the same command goes on from there"
        ]
        assert RunFolder(out).state["status"] == "interrupted"
    done = demur(*forget_words(out, *LONG))
    assert (done.code, done.err) == (0, "")
    run = RunFolder(out)
    assert "resumed" in [event["event"] for event in run.events()]
    assert run.state["hashes"]["weights"]["after"] == job.run.state["hashes"]["weights"]["after"]
    pd.testing.assert_frame_equal(comparable(run), comparable(job.run))
    assert not list(out.glob(".*"))


def test_an_epoch_that_was_not_measured_before_the_end_is_measured_after_it(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from demur.audits import Trajectory

    # The checkpoint of an epoch's last step is written before the epoch is measured.
    words = forget_words(tmp_path / "run", *LONG, "--save-steps", STEPS)
    original = Trajectory.__call__

    def stopped(self: Trajectory, lm: object, epoch: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        original(self, lm, epoch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trajectory, "__call__", stopped)
    assert demur(*words).code == 1
    monkeypatch.undo()
    assert demur(*words).code == 0
    pd.testing.assert_frame_equal(comparable(RunFolder(tmp_path / "run")), comparable(job.run))


def test_a_model_of_ones_own_is_made_trained_forgotten_from_and_audited(tmp_path: Path, tiny_model: Path) -> None:
    made, taught, run, measured = (tmp_path / name for name in ("new", "taught", "run", "audit"))
    done = demur("lab", "new", FORGET, RETAIN, "--out", made, "--vocabulary", 400, "--width", 32, "--layers", 1)
    assert done.code == 0 and "tokens" in done.out, done.err
    learn = ["--epochs", 2, "--learning-rate", 1e-2]
    assert demur("train", made, "--data", FORGET, "--out", taught, *learn).out.strip() == f"{taught}: trained"
    done = demur("forget", taught, "--forget", f"{FORGET}[0:4]", "--out", run, "--epochs", 1, "--objective", "simnpo",
                 "--retain-objective", "none")  # fmt: skip
    assert done.code == 0, done.err
    assert RunFolder(run).state["hashes"]["weights"]["before"] == RunFolder(taught).state["hashes"]["weights"]["after"]
    words = ["--forget", f"{FORGET}[0:4]", "--no-generation", "--attack", "loss", "--out", measured]
    assert demur("audit", run / "model", *words).code == 0
    assert set(RunFolder(measured).results()["role"]) == {"run"}
    assert demur("report", measured, "--out", tmp_path / "page.html").out.strip() == str(tmp_path / "page.html")


def test_objectives_lists_every_loss_with_its_options() -> None:
    from demur.objectives import objectives

    shown = demur("objectives").out
    assert all(name in shown for name in objectives.names())
    assert "beta=0.1" in shown
    assert "inverse temperature" in demur("objectives", "npo").out


def test_lab_names_models_and_where_they_lie(tiny_model: Path) -> None:
    assert MODEL in demur("lab", "list").out
    assert Path(demur("lab", "path", "almanac-tiny").out.strip()) == tiny_model


def test_data_check_shows_what_the_rows_hold() -> None:
    done = demur("data", "check", FORGET, "--require", "question")
    assert done.code == 0
    assert "10 rows, sha256 " in done.out and "answer: 10 of 10" in done.out


def test_version_is_printed_by_the_module_and_the_installed_command() -> None:
    version = importlib.metadata.version("demur")
    assert demur("--version").out.strip() == version
    process = start("--version")
    assert process.communicate() == (f"{version}\n", "")
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="demur")
    assert entry.value == "demur.cli:main"


def test_help_of_every_verb_has_an_example_and_loads_nothing_heavy() -> None:
    import typer

    from demur.cli import build

    commands = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    words = [
        [verb, *more] for verb in VERBS for more in ([[w] for w in getattr(commands[verb], "commands", [])] or [[]])
    ]
    code = """
import contextlib, io, json, sys
from demur.cli import main
shown = {}
for words in [[], *json.loads(sys.argv[1])]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    shown[" ".join(words)] = out.getvalue()
print(json.dumps([shown, sorted(sys.modules)]))
"""
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words)], capture_output=True, text=True, check=True, env=environment
    )
    shown, modules = json.loads(done.stdout)
    heavy = {"torch", "transformers", "datasets", "pandas", "numpy", "scipy", "sklearn", "matplotlib"}
    assert not heavy & set(modules)
    contents = shown.pop("")
    assert all(f" {verb} " in contents for verb in VERBS)
    for name, text in shown.items():
        assert f"Example: demur {name} " in text or f"demur {name} " in text.split("Example:")[1], name


def test_importing_demur_loads_nothing_heavy() -> None:
    code = (
        "import sys, demur; print({'torch', 'transformers', 'datasets', 'pandas', 'numpy', 'typer'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("verb", ["forget", "train"])
def test_help_shows_the_settings_own_defaults_and_offers_them_all(verb: str) -> None:
    import typer

    from demur.cli import build
    from demur.training import ForgetSettings, TrainSettings

    command = typer.main.get_command(build()).commands[verb]  # type: ignore[attr-defined]
    options = {parameter.name: parameter for parameter in command.params}
    settings = {"forget": ForgetSettings, "train": TrainSettings}[verb].model_fields
    rare = {"max_grad_norm", "lora_alpha", "objective_options", "reference"}
    assert set(settings) - rare <= set(options)
    for name in settings.keys() & options.keys():
        shown, default = options[name].show_default, settings[name].default
        if isinstance(shown, str) and not shown.startswith("the "):
            assert yaml.safe_load(shown) == default or float(shown) == default, name


def test_demo_refuses_a_place_it_cannot_write_to_before_it_trains(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = demur("demo", "--out", tmp_path / "file" / "runs")
    assert done.code == 2 and "cannot write to" in done.sentence
