from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demur.errors import UnknownNameError, UsageError
from demur.studies import run_studies, studies
from demur.studies.runner import Event, code_hash

Toy = Callable[..., str]
Log = Callable[[], list[list[str]]]

EXTRA = '''
@first.part("second", seeds=(7,), minutes=0)
def second(seed, progress):
    """Another setting."""
    {body}
    return {{"x": 1.0}}


@second.claims
def second_claims(m):
    yield Claim(text="one", measured=m["x"], threshold="< 2")
'''


def test_every_seed_is_measured_and_the_claims_see_all_of_them(toy: Toy, log: Log):
    (result,) = run_studies([toy()])
    assert result.verdict == "holds"
    (part,) = result.parts
    assert part.measurements == {seed: {"seed": seed, "square": seed**2} for seed in (1, 2, 3)}
    assert part.claims[0].measured == {1: 1.0, 2: 2.0, 3: 3.0}
    assert len({process for _, _, process, _ in log()} - {str(os.getpid())}) == 3, "one process a seed"


def test_a_claim_that_fails_on_one_seed_does_not_hold(toy: Toy):
    (result,) = run_studies([toy(threshold="> 1")], seeds=[1, 2])
    assert [claim.holds for claim in result.parts[0].claims] == [False, True]
    assert result.verdict == "does not hold"


def test_measured_seeds_are_not_measured_again(toy: Toy, log: Log):
    slug, events = toy(), []
    run_studies([slug], seeds=[2])
    (result,) = run_studies([slug], seeds=[1, 2], watch=lambda event: events.append((event.task.seed, event.kind)))
    assert [seed for _, seed, *_ in log()] == ["2", "1"]
    assert sorted(result.parts[0].measurements) == [1, 2]
    assert (2, "found") in events and (1, "done") in events


def test_changed_code_measures_again(toy: Toy, log: Log, tmp_path: Path):
    slug = toy(slug="same-toy")
    run_studies([slug], seeds=[1], out=tmp_path / "out")
    toy(slug="same-toy", threshold=">= 0.5")
    run_studies([slug], seeds=[1], out=tmp_path / "out")
    assert len(log()) == 2


def test_a_file_cut_short_is_measured_again(toy: Toy, log: Log, tmp_path: Path):
    slug = toy()
    run_studies([slug], seeds=[1], out=tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("seed-1.json")
    file.write_text(file.read_text()[:20])
    run_studies([slug], seeds=[1], out=tmp_path / "out")
    assert len(log()) == 2


def test_the_number_of_jobs_does_not_change_the_result(toy: Toy):
    slug = toy()

    def measured(jobs: int, out: str) -> object:
        return run_studies([slug], seeds=[1, 2], jobs=jobs, out=out)[0].parts[0].measurements

    folder = os.environ["DEMUR_CACHE"]
    assert measured(1, folder + "/1") == measured(2, folder + "/2")


def test_the_cores_are_divided_among_the_jobs(toy: Toy, log: Log):
    slug = toy()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    run_studies([slug], seeds=[1], jobs=2)
    run_studies([slug], seeds=[2, 3], jobs=2)
    half = max(1, cores // 2)
    assert [int(threads) for *_, threads in log()] == [cores, half, half], "one seed alone has all the cores"


def test_a_seed_that_fails_fails_the_study_and_the_others_are_kept(toy: Toy, tmp_path: Path):
    slug = toy(body="if seed == 2: raise ValueError('two is odd')")
    (result,) = run_studies([slug], seeds=[1, 2], out=tmp_path / "out")
    assert result.verdict == "failed"
    assert "seed 2: ValueError: two is odd" in result.parts[0].problem
    assert sorted(result.parts[0].measurements) == [1]
    assert "two is odd" in (tmp_path / "out" / slug / "first" / "seed-2.log").read_text()


def test_a_worker_that_dies_fails_its_seed_only(toy: Toy):
    (result,) = run_studies([toy(body="if seed == 3: os._exit(9)")], seeds=[1, 3])
    assert result.verdict == "failed" and "seed 3: its process ended with exit code 9" in result.parts[0].problem
    assert sorted(result.parts[0].measurements) == [1]


def test_a_measurement_that_is_no_number_fails(toy: Toy):
    (result,) = run_studies([toy(body="return {'square': float('nan')}")], seeds=[1])
    assert result.verdict == "failed" and "'square' came out as nan" in result.parts[0].problem


def test_what_cannot_be_measured_here_is_said_and_tried_again_later(toy: Toy, tmp_path: Path):
    marker = tmp_path / "data"
    body = f"if not Path({str(marker)!r}).exists(): raise NotMeasured('the data set is absent')"
    slug = toy(more=EXTRA.format(body=body))
    (result,) = run_studies([slug])
    assert [part.verdict for part in result.parts] == ["holds", "not measured"]
    assert result.verdict == "not measured" and result.parts[1].problem == "the data set is absent"
    marker.touch()
    (result,) = run_studies([slug])
    assert result.verdict == "holds" and list(result.parts[1].measurements) == [7]


def test_what_a_worker_prints_goes_to_its_log_and_not_to_the_screen(
    toy: Toy, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    slug = toy(body="print('noise', flush=True)")
    run_studies([slug], seeds=[1], out=tmp_path / "out")
    assert "noise" not in "".join(capfd.readouterr())
    assert "noise" in (tmp_path / "out" / slug / "first" / "seed-1.log").read_text()


def test_temporary_files_lie_in_the_folder_of_the_run_and_go_away(toy: Toy, tmp_path: Path):
    body = f"import tempfile; Path({str(tmp_path / 'where')!r}).write_text(tempfile.mkdtemp())"
    slug = toy(body=body)
    run_studies([slug], seeds=[1], out=tmp_path / "out")
    used = Path((tmp_path / "where").read_text())
    assert used.is_relative_to(tmp_path / "out") and not used.exists()


def test_progress_reaches_the_watcher(toy: Toy):
    events: list[Event] = []
    run_studies([toy()], seeds=[1], watch=events.append)
    assert [event.kind for event in events if event.kind != "progress"] == ["waiting", "started", "done"]
    assert ("counting", 3) in {(event.note, event.total) for event in events if event.kind == "progress"}


def test_bad_requests_are_refused_before_anything_runs(toy: Toy, log: Log):
    slug = toy()
    with pytest.raises(UnknownNameError, match="did you mean"):
        run_studies([slug, slug + "x"])
    with pytest.raises(UsageError, match="jobs"):
        run_studies([slug], jobs=0)
    with pytest.raises(UsageError, match="seed"):
        run_studies([slug], seeds=[])
    assert log() == []


def test_the_code_hash_follows_the_rooms_a_study_imports(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = studies.get(toy()).function.__module__
    before = code_hash(module)
    assert before == code_hash(module)
    rooms = tmp_path / "rooms"
    (rooms / "studies").mkdir(parents=True)
    for name in ("registry", "results"):
        (rooms / "studies" / f"{name}.py").write_text("from demur.objectives import npo_loss\n")
    (rooms / "objectives").mkdir()
    (rooms / "unrelated").mkdir()
    monkeypatch.setattr("demur.studies.runner._ROOMS", rooms)
    source = tmp_path / "modules" / f"{module}.py"
    source.write_text(source.read_text() + "\nfrom demur.studies.registry import Part\n")
    hashes = [code_hash(module)]
    for folder in ("objectives", "unrelated"):
        (rooms / folder / "formula.py").write_text("x = 1\n")
        hashes.append(code_hash(module))
    assert hashes[0] != hashes[1], "a room that is imported counts, also when another file imports it"
    assert hashes[1] == hashes[2], "a room that is not imported does not"


RUNNER = """
import importlib, sys
from demur.studies import run_studies
if __name__ == "__main__":
    importlib.import_module(sys.argv[1])
    run_studies([sys.argv[2]], jobs=1, out=sys.argv[3])
"""


def _wait(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened for 30 seconds")


def _gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="watches processes through /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_a_stopped_run_leaves_no_worker_and_goes_on_where_it_was(toy: Toy, log: Log, tmp_path: Path, how: int):
    release = tmp_path / "release"
    body = f"while seed > 1 and not Path({str(release)!r}).exists(): time.sleep(0.05)"
    slug = toy(body=body)
    script = tmp_path / "run.py"
    script.write_text(RUNNER)
    module, out = studies.get(slug).function.__module__, tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "modules")}
    command = [sys.executable, str(script), module, slug, str(out)]
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores Ctrl-C
    )
    _wait(lambda: len(log()) == 2)
    process.send_signal(how)
    assert process.wait(30) != 0
    worker = int(log()[1][2])
    _wait(lambda: _gone(worker))
    assert [file.name for file in out.rglob("*.json")] == ["seed-1.json"]
    assert not list(out.rglob("*.partial"))
    release.touch()
    (result,) = run_studies([slug], out=out)
    assert not list(out.rglob("*.work"))
    assert result.verdict == "holds"
    assert [seed for _, seed, *_ in log()] == ["1", "2", "2", "3"] or [seed for _, seed, *_ in log()] == [
        "1",
        "2",
        "3",
        "2",
    ]
    assert json.loads((out / slug / "first" / "seed-1.json").read_text())["measurements"] == {
        "seed": 1.0,
        "square": 1.0,
    }
