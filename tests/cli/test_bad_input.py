from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.command import FORGET, GOLD, MODEL, RETAIN, Outcome, demur, forget_words, start
from demur.runs import RunFolder

pytestmark = pytest.mark.usefixtures("tiny_model")


def forget(out: Path, *more: Any) -> Outcome:
    return demur(*forget_words(out, "--no-trajectory", *more))


def jsonl(path: Path, *rows: Any) -> Path:
    """Rows as a file; a text is written as it is."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


GOOD = {"question": "Who wrote the green lamp?", "answer": "Oda Marsh."}


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A place for a run that must never be made."""
    yield tmp_path / "runs" / "run"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows.jsonl holds no rows"),
        ([GOOD, '{"question": '], "rows.jsonl, line 2: not valid JSON at character"),
        ([{"question": "q"}], "rows.jsonl: the rows have no column 'answer' or 'response'"),
        ([GOOD, {"question": "q"}], "rows.jsonl, line 2, column 'answer': is missing"),
        ([GOOD, {"question": 1, "answer": "a"}], "rows.jsonl, line 2, column 'question': must be text"),
        ([GOOD, {"question": "word " * 400, "answer": "a"}], "rows.jsonl: row '1' takes"),
    ],
)
@pytest.mark.parametrize("role", ["forget", "retain"])
def test_bad_rows_are_named_by_file_and_line(role: str, rows: list, message: str, out: Path, tmp_path: Path) -> None:
    done = forget(out, f"--{role}", jsonl(tmp_path / "rows.jsonl", *rows))
    assert done.code == 2
    assert message in done.sentence


def test_a_prompt_longer_than_the_context_says_how_long_both_are(out: Path, tmp_path: Path) -> None:
    rows = jsonl(tmp_path / "rows.jsonl", {"id": "saga", "question": "word " * 400, "answer": "a"})
    assert "row 'saga' takes " in forget(out, "--forget", rows).sentence
    assert f"more than the 512 that {MODEL} can read" in forget(out, "--forget", rows).sentence


def test_forget_rows_that_are_kept_too_are_named_and_may_be_allowed(out: Path, tmp_path: Path) -> None:
    rows = [jsonl(tmp_path / f"{name}.jsonl", {"id": name, **GOOD}) for name in ("mine", "theirs")]
    words = ["--forget", rows[0], "--retain", rows[1]]
    done = forget(out, *words)
    assert done.code == 2
    assert "1 of 1 forget rows are also retain rows: id mine (retain theirs)" in done.sentence
    assert "--allow-overlap" in done.sentence
    assert forget(tmp_path / "allowed", *words, "--allow-overlap").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--forget", "no.jsonl"], "no such file or folder: no.jsonl"),
        (["--retain", "no.jsonl"], "no such file or folder: no.jsonl"),
        (["--holdout", "no.jsonl"], "no such file or folder: no.jsonl"),
        (["--forget", f"{MODEL}:forgt"], "has no split 'forgt': did you mean forget?"),
        (["--forget", f"{FORGET}[9:9]"], "holds no rows"),
        (["--objective", "nop"], "unknown objective 'nop': did you mean npo"),
        (["--objective", "dpo"], "not on a forget set"),
        (["--retain-objective", "nl"], "unknown objective 'nl': did you mean nll"),
        (["--option", "bta=1"], "npo has no option 'bta': did you mean beta?"),
        (["--option", "beta"], "--option 'beta' is not NAME=VALUE"),
        (["--option", "beta=[1"], "--option 'beta=[1': the value is neither a number nor a word"),
        (["--option", "beta=0"], "objective 'npo': beta must be a positive number, not 0.0"),
        (["--option", "beta=.nan"], "objective 'npo': beta must be a positive number, not nan"),
        (["--option", "beta=high"], "option 'beta' of npo must be a number, not 'high'"),
        (["--option", "beta=true"], "option 'beta' of npo must be a number, not True"),
        (["--option", "beta="], "option 'beta' of npo must be a number, not None"),
        (["--lora", 2, "--option", "beta=-1"], "beta must be a positive number, not -1.0"),
        (["--alternates", "sorry.txt"], "objective 'npo' gives no other answers: leave --alternates out"),
        (["--objective", "idkdpo", "--alternates", "no.txt"], "no such file: no.txt"),
        (["--epochs", 0], "setting 'epochs': Input should be greater than or equal to 1, not 0"),
        (["--epochs", "many"], "Invalid value for '--epochs'"),
        (["--learning-rate", "inf"], "setting 'learning_rate': Input should be a finite number"),
        (["--schedule", "cosin"], "Input should be 'constant', 'linear' or 'cosine', not 'cosin'"),
        (["--seed", 2**40], "setting 'seed': Input should be less than"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--dtype", "float7"], "unknown dtype 'float7'"),
        (["--lora", 2, "--lora-targets", "nowhere"], "--lora-targets nowhere does not fit"),
        (["--reference", "adapter"], "pass --lora RANK"),
        (["--lerning-rate", 1], "No such option: --lerning-rate"),
        (["--recipe", "no.yaml"], "cannot read no.yaml: No such file or directory"),
    ],
)
def test_what_cannot_be_done_as_asked_is_one_sentence_and_leaves_nothing(words: list, message: str, out: Path) -> None:
    done = forget(out, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.sentence


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("", "no model is named"),
        ("nowhere", "no model at nowhere"),
        ("lab:almanak", "unknown lab model 'almanak': did you mean almanac"),
        ("lob:almanac", "unknown model source 'lob' in 'lob:almanac': did you mean lab?"),
        ("own/er", "own/er, which is no folder here"),
    ],
)
def test_an_unknown_model_is_one_sentence(model: str, message: str, out: Path) -> None:
    words = ["forget", model, "--forget", FORGET, "--out", out]
    done = demur(*words)
    assert done.code == 2
    assert message in done.sentence


def test_a_model_without_a_chat_template_says_which_option_helps(out: Path, tmp_path: Path, tiny_model: Path) -> None:
    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    rows = ["--forget", FORGET, "--epochs", 1, "--no-trajectory"]
    done = demur("forget", bare, *rows, "--out", out)
    assert done.code == 2
    assert "has no chat template: pass --template plain" in done.sentence
    assert demur("forget", bare, *rows, "--template", "plain", "--out", tmp_path / "plain").code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nmodel: [1", "r.yaml, line 2: not YAML"),
        ("- 1", "is not a list of settings and their values"),
        ("", "is not a list of settings and their values"),
        ("epochz: 3", "setting 'epochz': Extra inputs are not permitted; did you mean epochs?"),
        ("epochs: 3", "setting 'model': Field required: pass MODEL, or a recipe that has it"),
        ("model: m", "setting 'forget': Field required: pass --forget, or a recipe that has it"),
        ("model: m\nforget: f\nepochs: many", "setting 'epochs': Input should be a valid integer"),
    ],
)
def test_a_broken_recipe_is_named_with_its_line_or_setting(text: str, message: str, out: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    done = demur("forget", "--recipe", recipe, "--out", out)
    assert done.code == 2
    assert message in done.sentence


def places(tmp_path: Path) -> dict[str, Path]:
    """Where nothing can be written."""
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o555)
    return {
        "a file": tmp_path / "file",
        "under a file": tmp_path / "file" / "run",
        "no file system for files": Path("/proc/run"),
        "a locked folder": tmp_path / "locked" / "run",
    }


@pytest.mark.parametrize("place", ["a file", "under a file", "no file system for files", "a locked folder"])
def test_a_place_that_cannot_be_written_to_is_found_before_the_work(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "a locked folder" and os.geteuid() == 0:
        pytest.skip("root may write to a locked folder")
    if place == "no file system for files" and not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr("demur.models.language_model._load", lambda *_: pytest.fail("loaded a model"))
    where = places(tmp_path)[place]
    commands = [forget_words(where), ["train", MODEL, "--data", FORGET, "--out", where]]
    if place != "a file":  # a file is replaced by what these write
        commands += [
            ["audit", MODEL, "--forget", FORGET, "--out", where],
            ["lab", "new", FORGET, "--out", where],
            ["studies", "run", "npo", "--json", where],
        ]
    for words in commands:
        done = demur(*words)
        assert done.code == 2, words
        assert str(where) in done.sentence
        assert "cannot write to" in done.sentence or "is a file, not a folder" in done.sentence


def test_a_cache_that_cannot_be_written_to_leaves_no_run_behind(
    out: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "file" / "cache"))
    done = demur("forget", tiny_model, "--forget", FORGET, "--out", out)
    assert done.code == 2
    assert "set DEMUR_CACHE to a folder" in done.sentence


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    done = forget(tmp_path)
    assert done.code == 2 and "exists and is no run folder" in done.sentence
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run that was trained and not audited."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert forget(out).code == 0
    return out


def test_other_settings_do_not_overwrite_a_run(finished: Path) -> None:
    done = forget(finished, "--seed", 9, "--epochs", 2)
    assert done.code == 2
    assert "holds a run with other settings (epochs, seed): choose another --out" in done.sentence


def test_report_wants_audited_runs(finished: Path, tmp_path: Path) -> None:
    done = demur("report", finished)
    assert done.code == 2 and f"has no audit results: run `demur audit {finished}` first" in done.sentence
    assert not (finished / "report.html").exists()
    done = demur("report", tmp_path)
    assert done.code == 2 and "is not a run folder" in done.sentence


def test_audit_wants_a_finished_run(finished: Path, tmp_path: Path) -> None:
    unfinished = shutil.copytree(finished, tmp_path / "run")
    RunFolder(unfinished).update_state(status="interrupted")
    done = demur("audit", unfinished)
    assert done.code == 2 and "is not finished: run its command again" in done.sentence
    assert not (unfinished / "samples").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "toffu"], "unknown suite 'toffu': did you mean tofu?"),
        (["--forget", "no.jsonl"], "no such file or folder: no.jsonl"),
        (["--reference", "nowhere"], "no model at nowhere"),
        (["--attack", "los"], "unknown membership attack 'los': did you mean loss?"),
        (["--compat", "open"], "the only one is 'open-unlearning'"),
        (["--batch-size", 0], "batch_size >= 1"),
        (["--seed", -1], "Invalid value for '--seed'"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_an_audit_that_cannot_be_done_leaves_the_run_as_it_was(words: list, message: str, finished: Path) -> None:
    before = sorted(finished.rglob("*"))
    done = demur("audit", finished, *words)
    assert done.code == 2
    assert message in done.sentence
    assert sorted(finished.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["forgt"], "No such command 'forgt'. Did you mean 'forget'?"),
        (["forget", MODEL], "Missing option '--out'"),
        (["train", MODEL, "--data", RETAIN, "--out", "x", "--objective", "npo"], "trains on forget rows: use forget"),
        (["train", MODEL, "--data", RETAIN, "--out", "x", "--objective", "dpo"], "lacks the columns chosen, prompt"),
        (["objectives", "nop"], "unknown objective 'nop': did you mean npo"),
        (["lab", "path", "almanak"], "unknown lab model 'almanak'"),
        (["lab", "new", FORGET, "--out", "x", "--width", 12], "--width must be a multiple of 8, not 12"),
        (["lab", "new", FORGET, "--out", "x", "--layers", 0], "Invalid value for '--layers'"),
        (["data", "check", "no.jsonl"], "no such file or folder: no.jsonl"),
        (["data", "check", FORGET, "--require", "colour"], "column 'colour': is missing"),
        (["papers", "--room", "objective"], "did you mean objectives"),
        (["studies", "run", "nop"], "unknown study 'nop'"),
        (["demo", "--epochs", 0], "Invalid value for '--epochs'"),
    ],
)
def test_every_verb_refuses_in_one_sentence(
    words: list, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = demur(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.sentence
    assert not list(tmp_path.iterdir())


def test_no_verb_at_all_shows_the_help_and_no_error() -> None:
    for words in ([], ["lab"], ["studies"]):
        done = demur(*words)
        assert (done.code, done.err) == (2, "")
        assert "Usage: demur" in done.out


def test_a_loss_that_is_no_number_stops_and_names_the_batch_and_what_is_left(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = forget(run, "--objective", "ga", "--learning-rate", 1e20, "--batch-size", 10, "--epochs", 3)
    assert done.code == 1
    assert "the loss became nan in step 3 (epoch 2.00): forget rows forget/" in done.sentence
    good = run / "checkpoints" / "checkpoint-1"
    assert f"the last good checkpoint is {good}: lower the learning rate" in done.sentence
    assert (good / "model.safetensors").is_file()
    assert not (run / "model").exists()
    assert RunFolder(run).state["status"] == "failed"
    assert demur("audit", run).code == 2


def test_a_model_broken_by_the_last_step_is_not_handed_over(tmp_path: Path) -> None:
    done = forget(tmp_path / "run", "--learning-rate", 1e38, "--batch-size", 10)
    assert done.code == 1
    assert "the last step broke the model" in done.sentence and "there is no good checkpoint yet" in done.sentence
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("size", ["4k", "300k", "1200k", "2600k", "4200k"])
def test_a_full_disk_is_said_and_the_same_command_goes_on_when_there_is_space(size: str, tmp_path: Path) -> None:
    # The sizes end in settings, weights, optimizer state, tokenizer and finished model.
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True)
    if mount.returncode:
        pytest.skip(f"cannot make a small disk: {mount.stderr.decode().strip()}")
    try:
        words = forget_words(disk / "run", "--epochs", 2)
        done = demur(*words)
        assert done.code == 1
        assert "the disk is full: free some space and run the same command again" in done.sentence
        assert not (disk / "run" / "model").exists()
        assert not [file for file in (disk / "run").rglob("*") if file.name.endswith((".partial", ".tmp"))]
        assert all((folder / "complete").exists() for folder in (disk / "run").glob("checkpoints/*"))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert demur(*words).code == 0
        whole = tmp_path / "whole"
        demur(*forget_words(whole, "--epochs", 2))
        hashes = [RunFolder(run).state["hashes"]["weights"]["after"] for run in (whole, disk / "run")]
        assert hashes[0] == hashes[1]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_debug_adds_the_traceback_and_keeps_sentence_and_code(tmp_path: Path) -> None:
    for words in (["--debug", "objectives", "nop"], ["objectives", "nop", "--debug"]):
        done = demur(*words)
        assert done.code == 2
        first, *_, last = done.err.strip().splitlines()
        assert first.startswith("Traceback") and last.startswith("demur: unknown objective 'nop'")
    assert "Traceback" not in demur("objectives", "nop").err


def test_what_nobody_foresaw_is_one_sentence_that_points_to_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("demur.data.read_rows", broken)
    done = demur("data", "check", FORGET)
    assert done.code == 1
    assert done.sentence == "ZeroDivisionError: division by zero (run again with --debug for the traceback)"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    process = start("papers", "--json")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait()


def test_gold_that_is_no_model_is_refused(finished: Path) -> None:
    assert "unknown lab model" in demur("audit", finished, "--reference", f"{GOLD}en").sentence
