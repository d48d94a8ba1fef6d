from __future__ import annotations

from demur.reports.evidence import read_runs
from demur.reports.provenance import differing_settings, notices, provenance
from demur.runs import Result
from reports.made_runs import AT_GOLD, BEFORE, GOLD, REMEMBERS


def test_the_command_takes_the_settings_file_as_its_recipe(maker):
    folder = maker.run("npo", AT_GOLD)
    told = provenance(read_runs([folder]).runs[0])
    assert told.command == f"demur forget --recipe {folder.path / 'config.yaml'} --out npo-again"


def test_a_recorded_command_wins_and_is_quoted(maker):
    folder = maker.run("npo", AT_GOLD, state={"command": ["demur", "forget", "my model", "--out", "x"]})
    assert provenance(read_runs([folder]).runs[0]).command == "demur forget 'my model' --out x"


def test_hashes_seeds_versions_times_and_models_are_told(maker):
    told = provenance(read_runs([maker.run("npo", AT_GOLD)]).runs[0])
    assert ("data", "forget", "f0" * 32) in told.hashes
    assert [name for kind, name, _ in told.hashes if kind == "weights"] == ["before", "after"]
    assert told.seeds == "training 1; bootstrap 1"
    assert told.versions == "demur 0.1.0"
    assert told.wall_time.startswith("training 1 min 42 s, audit ")
    assert ("Gold model", "runs/gold/model") in told.facts
    assert "learning_rate: 1.0e-05" in told.recipe


def test_a_resumed_run_says_that_its_time_counts_from_there(maker):
    folder = maker.run("npo", AT_GOLD)
    folder.log("resumed", checkpoint="checkpoint-50")
    assert "since it was last resumed" in provenance(read_runs([folder]).runs[0]).wall_time


def test_what_was_not_recorded_is_said_to_be_so(maker):
    folder = maker.run("npo", AT_GOLD)
    (folder.path / "state.json").unlink()
    (folder.path / "events.jsonl").unlink()
    told = provenance(read_runs([folder]).runs[0])
    assert (told.versions, told.hashes, told.facts) == ("not recorded", (), ())


def test_only_settings_that_differ_are_compared(maker):
    runs = [
        maker.run("npo", AT_GOLD, config={"objective_options": {"beta": 0.1}}),
        maker.run("simnpo", AT_GOLD, config={"objective_options": {"beta": 2.5}, "retain_objective": "nll"}),
    ]
    rows = {row.name: row.values for row in differing_settings(read_runs(runs))}
    assert rows == {
        "objective": ("npo", "simnpo"),
        "objective_options.beta": ("0.1", "2.5"),
        "retain_objective": ("–", "nll"),
    }
    assert differing_settings(read_runs(runs[:1])) == []


def test_a_missing_number_is_no_other_number_of_questions(maker):
    folder = maker.run("npo", REMEMBERS)
    folder.add_results([Result("npo", "tofu", "model_utility", None, None, None, 0, 0)])
    assert notices(read_runs([folder])) == []


def test_runs_on_the_same_footing_need_no_notice(maker):
    assert notices(read_runs([maker.run("npo", REMEMBERS), maker.run("simnpo", AT_GOLD)])) == []


def test_other_forget_data_is_pointed_out(maker):
    other = {"hashes": {"data": {"forget": "aa" * 32, "retain": "4e" * 32}, "weights": {}}}
    told = notices(read_runs([maker.run("a", AT_GOLD), maker.run("b", AT_GOLD, state=other)]))
    assert len(told) == 1
    assert "do not share their forget data" in told[0] and "b (aaaaaaaaaaaa…)" in told[0]


def test_missing_and_differing_models_are_pointed_out(maker):
    folders = [
        maker.run("a", AT_GOLD),
        maker.run("b", AT_GOLD, reference=GOLD | {"forget_probability": 0.3}),
        maker.run("c", REMEMBERS, reference=None, before=None),
    ]
    told = " ".join(notices(read_runs(folders)))
    assert "2 different gold models" in told
    assert "No model before was audited for c" in told
    assert "No gold model was audited for c" in told


def test_other_numbers_of_questions_are_pointed_out(maker):
    first = maker.run("a", AT_GOLD)
    maker.sizes = dict.fromkeys(maker.sizes, 9)
    told = notices(read_runs([first, maker.run("b", AT_GOLD, before=BEFORE)]))
    assert any("same number of questions" in line for line in told)
