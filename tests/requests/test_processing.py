from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cli.command import FORGET as ROWS
from demur import DemurError, UsageError
from demur.data import read_rows
from demur.models import load_model
from demur.requests import Ledger, processing
from demur.requests.history import FORGET, UTILITY

Make = Callable[..., Ledger]


def outcome(ledger: Ledger) -> list:
    """What a ledger's steps did, without what differs from one attempt to the next."""
    return [replace(step, seconds=0.0, time="") for step in ledger.history().finished]


def events(ledger: Ledger, name: str) -> list:
    with ledger.store.reading() as connection:
        return [entry for entry in ledger.store.entries(connection) if entry.event == name]


def test_each_request_starts_from_the_weights_that_the_one_before_left(answered: Ledger, tiny_model: Path) -> None:
    first, second, third = answered.history().finished
    assert first.weights["before"] == load_model(tiny_model).weights_hash()
    assert second.weights["before"] == first.weights["after"] != first.weights["before"]
    assert load_model(answered.path / "runs/0002/model").weights_hash() == second.weights["after"]
    assert third.run is None and third.weights == {"before": second.weights["after"], "after": second.weights["after"]}
    for step, request in ((first, 1), (second, 2)):
        before, after = step.measure(FORGET, request, "before"), step.measure(FORGET, request)
        assert after.value < before.value - 0.2 and before.low <= before.value <= before.high and before.n == 4


def test_every_step_measures_every_request_so_far_and_the_utility(answered: Ledger) -> None:
    steps = answered.history().finished
    for step, requests in zip(steps, ([1], [1, 2], [1, 2, 3]), strict=True):
        assert {m.request for m in step.measures if m.metric == FORGET and m.role == "run"} == set(requests)
        assert step.measure(UTILITY).n == step.retained == 20
    assert steps[0].measure(UTILITY, role="before") is not None
    assert steps[0].measure(FORGET, 1, "reference").value < 0.8 < steps[0].measure(FORGET, 1, "before").value


def test_the_forget_score_is_the_mean_probability_of_the_answers(answered: Ledger, tiny_model: Path) -> None:
    import numpy as np

    from demur.data import question_answer
    from demur.models import encode, token_stats

    lm = load_model(tiny_model)
    stats = token_stats(lm, encode(lm, *question_answer(read_rows(f"{ROWS}[0:4]"))))
    expected = np.mean([np.exp(s.logps.mean()) for s in stats])
    assert answered.status()[0].before.value == pytest.approx(expected, rel=1e-5)


def test_rows_of_earlier_requests_are_known_by_hash_and_not_trained_twice(answered: Ledger) -> None:
    third = answered.history().requests[3]
    assert third.state == "done" and third.same_as == [1, 2] and third.new_rows == 0
    assert not (answered.path / "runs/0003").exists()


def test_nothing_of_the_rows_is_left_once_they_are_forgotten(answered: Ledger) -> None:
    answered.reject(4, "nobody asked")
    texts = [text for row in read_rows(f"{ROWS}[0:8]") for text in (row["question"], row["answer"])]
    for file in (file for file in answered.path.rglob("*") if file.is_file()):
        held = file.read_bytes()
        assert not [text for text in texts if text.encode() in held], file
    assert not (answered.path / "work").exists() and not list((answered.path / "rows").iterdir())


def test_no_requested_row_is_ever_retained_again(make_ledger: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make_ledger(retain="lab:almanac-tiny:retain", epochs=1)
    kept: list[set[str]] = []
    train = processing._train

    def watched(ledger: Ledger, step: processing.Step, prepared: processing._Prepared):
        kept.append({row["question"] for row in read_rows(prepared.settings.retain)})
        return train(ledger, step, prepared)

    monkeypatch.setattr(processing, "_train", watched)
    rows = "lab:almanac-tiny:retain"  # what is asked for may well be among the rows to keep
    for window in ("[0:3]", "[3:6]"):
        ledger.add(rows + window, "ann")
    ledger.process()
    ledger.add(rows + "[6:8]", "ann")
    ledger.process()
    questions = read_rows(rows)["question"][:]
    assert kept == [set(questions[6:]), set(questions[6:]), set(questions[8:])]


def test_doing_it_again_does_nothing(make_ledger: Make) -> None:
    ledger = make_ledger(epochs=1)
    ledger.add(f"{ROWS}[0:2]", "ann")
    assert [r.state for r in ledger.process()] == ["done"]
    head = ledger.history().head
    assert ledger.process() == [] and ledger.history().head == head


def test_killed_anywhere_it_ends_as_if_never_stopped(make_ledger: Make) -> None:
    whole, killed = (make_ledger(name, epochs=2, batch_size=2, save_steps=2) for name in ("whole", "killed"))
    for ledger in (whole, killed):
        ledger.add(f"{ROWS}[0:4]", "ann")
        ledger.add(f"{ROWS}[4:7]", "bob")
    whole.process()
    places = ["before", "training", "trained", "measuring", "writing", "written", "training"]
    command = [sys.executable, str(Path(__file__).parent / "killed_process.py"), str(killed.path), *places]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == [f"{place} killed" for place in places], done.stderr
    killed.process()
    assert outcome(killed) == outcome(whole)
    assert [entry.request for entry in events(killed, "done")] == [1, 2]
    assert len(events(killed, "processing")) == len(events(killed, "finished")) == 2
    assert not (killed.path / "work").exists() and not list((killed.path / "rows").iterdir())


def test_a_request_that_comes_in_meanwhile_does_not_change_a_step_under_way(
    make_ledger: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(epochs=1)
    ledger.add(f"{ROWS}[0:2]", "ann")
    with monkeypatch.context() as patch:
        patch.setattr(processing, "_train", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ledger.process()
    ledger.add("lab:almanac-tiny:retain[0:2]", "bob")
    ledger.process()
    assert [step.retained for step in ledger.history().finished] == [20, 18]


def test_together_rows_that_several_ask_for_are_forgotten_once(make_ledger: Make) -> None:
    ledger = make_ledger(epochs=2)
    for window in ("[0:3]", "[2:5]", "[0:2]"):
        ledger.add(ROWS + window, window)
    ledger.process(together=True)
    (step,) = ledger.history().finished
    assert step.new_rows == 5 and step.requests == [1, 2, 3]
    found = ledger.history().requests
    assert [(r.state, r.new_rows, r.same_as) for r in found.values()] == [
        ("done", 3, []),
        ("done", 2, [1]),
        ("done", 0, [1]),
    ]


def test_adapters_are_merged_so_that_the_next_request_starts_from_whole_weights(make_ledger: Make) -> None:
    ledger = make_ledger(lora=4, epochs=2)
    for window in ("[0:2]", "[2:4]"):
        ledger.add(ROWS + window, "ann")
    ledger.process()
    first, second = ledger.history().finished
    assert first.model == "runs/0001/merged" and second.start == first.model
    assert second.weights["before"] == first.weights["after"]
    assert second.measure(FORGET, 2).value < second.measure(FORGET, 2, "before").value
    assert all(finding.holds for finding in ledger.verify())


def test_a_failed_request_says_why_leaves_the_model_and_can_be_taken_up_again(make_ledger: Make) -> None:
    ledger = make_ledger(epochs=1)
    ledger.add(f"{ROWS}[0:2]", "ann")
    (failed,) = ledger.process(settings={"objective": "ga", "learning_rate": 1e38, "epochs": 3})
    assert failed.state == "failed" and "lower the learning rate" in failed.explanation
    assert ledger.history().model is None and ledger.process() == []
    (done,) = ledger.process(retry=True)
    assert done.state == "done" and done.explanation == ""
    assert len(events(ledger, "done")) == 1


def test_a_fault_of_the_software_is_not_hidden_and_leaves_a_request_that_can_be_taken_up_again(
    make_ledger: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(epochs=1)
    ledger.add(f"{ROWS}[0:2]", "ann")
    with monkeypatch.context() as patch:
        patch.setattr(processing, "_train", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ledger.process()
    assert ledger.history().requests[1].explanation == "ZeroDivisionError: division by zero"
    assert ledger.process(retry=True)[0].state == "done"


def test_settings_that_cannot_be_leave_the_ledger_as_it_was(make_ledger: Make) -> None:
    ledger = make_ledger()
    ledger.add(f"{ROWS}[0:2]", "ann")
    head = ledger.history().head
    for given, message in (({"epochs": 0}, "epochs"), ({"epoch": 1}, "did you mean epochs"), ({"model": "m"}, "own")):
        with pytest.raises(UsageError, match=message):
            ledger.process(settings=given)
    assert ledger.history().head == head


def test_a_second_process_says_that_it_waits_and_then_finds_everything_done(make_ledger: Make) -> None:
    ledger = make_ledger(epochs=1)
    ledger.add(f"{ROWS}[0:2]", "ann")
    take = f"import sys, filelock; lock = filelock.FileLock({str(ledger.path / '.lock')!r}); lock.acquire()"
    program = f"{take}; print('mine', flush=True); sys.stdin.read()"
    told: list[str] = []
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) as other:
        other.stdout.readline()

        def say(sentence: str) -> None:
            told.append(sentence)
            if "waiting" in sentence:
                other.stdin.close()

        ledger.process(say=say)
    assert "waiting for another process" in told[0] and len(ledger.history().finished) == 1


def test_a_model_that_was_changed_meanwhile_is_refused(answered: Ledger, tiny_model: Path) -> None:
    weights = answered.path / "runs/0002/model/model.safetensors"
    weights.write_bytes((tiny_model / "model.safetensors").read_bytes())
    (failed,) = answered.process()
    assert failed.state == "failed" and "is not the one that the last step left" in failed.explanation


def test_rows_that_were_put_aside_and_changed_are_refused(make_ledger: Make) -> None:
    ledger = make_ledger()
    ledger.add(f"{ROWS}[0:2]", "ann")
    file = ledger.rows_file(1)
    file.write_text(file.read_text().replace("Arnarly", "Somebody"))
    (failed,) = ledger.process()
    assert failed.state == "failed" and "are not those that request 1 asked for" in failed.explanation


def test_resurgence_is_measured_only_where_the_rows_can_be_had(make_ledger: Make, tmp_path: Path) -> None:
    ledger = make_ledger(epochs=1)
    kept, gone = tmp_path / "kept.jsonl", tmp_path / "gone.jsonl"
    for file, window in ((kept, "[0:2]"), (gone, "[2:4]")):
        read_rows(ROWS + window).select_columns(["question", "answer"]).to_json(str(file))
    ledger.add(kept, "ann", keep_rows=True)
    ledger.add(gone, "bob")
    ledger.process()
    for file in (kept, gone):
        file.unlink()
    ledger.add(f"{ROWS}[4:6]", "cleo")
    ledger.process()
    last = ledger.history().finished[-1]
    assert last.measure(FORGET, 1) is not None and last.measure(FORGET, 2) is None
    assert "request 2 were not kept" in last.missing[2]
    with pytest.raises(DemurError, match="their source is gone"):
        ledger.rows_of(2)


def test_texts_are_requests_too_and_are_not_mixed_with_questions(make_ledger: Make, tmp_path: Path) -> None:
    texts = [f"{row['question']} {row['answer']}" for row in read_rows(f"{ROWS}[0:3]")]
    (tmp_path / "News" / "sust").mkdir(parents=True)
    with (tmp_path / "News" / "sust" / "forget_1.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    ledger = make_ledger(epochs=2)
    ledger.add(f"{ROWS}[3:5]", "ann")
    ledger.add(f"muse:{tmp_path}/News:sust:forget_1", "bob")
    ledger.process(together=True)
    first, second = ledger.history().finished
    assert (first.requests, second.requests) == ([1], [2])
    assert second.measure(FORGET, 2).value < second.measure(FORGET, 2, "before").value


def test_a_suite_runs_after_every_step_and_its_samples_do_not_stay(make_ledger: Make) -> None:
    ledger = make_ledger(
        epochs=1, suite="tofu", suite_options={"generation": False, "attacks": ["loss"], "compat": "open-unlearning"}
    )
    ledger.add(f"{ROWS}[0:3]", "ann")
    ledger.process()
    (step,) = ledger.history().finished
    found = {m.metric: m for m in step.measures if m.suite == "tofu-open-unlearning"}
    assert found["forget_truth_ratio"].low is not None and found["forget_probability"].n == 3
    assert found["forget_probability"].value == pytest.approx(step.measure(FORGET, 1).value, rel=1e-5)
    assert {entry.name for entry in (ledger.path / step.run).iterdir()} <= set(processing._KEPT)


def test_rows_that_were_not_forgotten_can_be_asked_for_again_and_are_trained_on_again(make_ledger: Make) -> None:
    ledger = make_ledger(learning_rate=1e-8, epochs=1)
    first = ledger.add(f"{ROWS}[0:4]", "ann@example.org")
    ledger.process()
    assert "remembered" in {standing.verdict.word for standing in ledger.status() if standing.verdict}
    again = ledger.add(f"{ROWS}[0:4]", "ann@example.org")
    assert again.id != first.id and not again.repeated
    (done,) = ledger.process(settings={"learning_rate": 5e-4, "epochs": 8})
    assert (done.state, done.new_rows, done.same_as) == ("done", 4, [])
    scores = [measure.value for _, measure in ledger.history().forget_scores(again.id)]
    assert scores[-1] < 0.8
    assert ledger.add(f"{ROWS}[0:4]", "ann@example.org").repeated
