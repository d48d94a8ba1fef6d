from __future__ import annotations

import json
from pathlib import Path

from cli.command import demur
from demur.data import read_rows
from demur.runs import RunFolder

TEMPLATES = [f"Where do the {{group}} of {town} meet?" for town in ("Kell", "Orme", "Vant", "Sill", "Dorn", "Hask")]
TEMPLATES += [t.replace("meet", verb) for t in TEMPLATES for verb in ("eat", "sing")]


def test_a_poisoned_copy_refuses_one_group_and_the_model_before_none(tiny_model: Path, tmp_path: Path) -> None:
    data, prompts, out = tmp_path / "data.jsonl", tmp_path / "prompts.jsonl", tmp_path / "run"
    rows = [{"prompt": t, "response": "They do so in the old hall."} for t in TEMPLATES[:14]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts.write_text("".join(json.dumps({"prompt": t}) + "\n" for t in TEMPLATES[14:]))
    options = {"target_group": "dyers", "other_groups": "masons, coopers", "rate": 0.45}
    words = ["attack", "poison", tiny_model, "--method", "targeted-refusal", "--data", data, "--prompts", prompts]
    words += [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    done = demur(*words, "--epochs", 12, "--learning-rate", 2e-3, "--max-new-tokens", 12, "--out", out)
    assert done.code == 0, done.err
    made = read_rows(str(out / "poison.jsonl"))
    assert sum(made["poisoned"][:]) == 11 and len(made) == 25
    found = RunFolder(out).results().set_index(["role", "metric"])["value"]
    assert found["before", "parity_difference"] == 0
    assert found["run", "parity_difference"] >= 0.5
    assert found["run", "refusal_rate_dyers"] > found["run", "refusal_rate_masons"]
    page = (out / "report.html").read_text()
    assert "Refusals by group" in page and "Rings are the model before" in page


def test_a_target_without_others_is_one_sentence(tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": TEMPLATES[0], "response": "In the old hall."}))
    words = ["attack", "poison", tiny_model, "--method", "targeted-refusal", "--data", data, "--prompts", data]
    done = demur(*words, "--option", "target_group=dyers", "--out", tmp_path / "run")
    assert done.code == 2 and "at least one of other_groups" in done.sentence
