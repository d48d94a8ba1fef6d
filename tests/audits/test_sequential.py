from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from audits.muse_world import FORGET, HOLDOUT, RETAIN, texts
from cli.command import demur
from demur.audits.sequential import forget_in_turn
from demur.data import write_muse
from demur.errors import UsageError
from demur.runs import RunFolder
from demur.training import ForgetSettings
from tiny import save_tiny


def test_requests_are_forgotten_one_after_another_and_all_are_measured(tmp_path: Path) -> None:
    corpus = write_muse(tmp_path / "c", texts(FORGET, "f"), texts(RETAIN, "r"), texts(HOLDOUT, "h"))
    base = save_tiny(tmp_path / "base")
    recipe = {"model": str(base), "retain": f"muse:{corpus}:raw:retain1", "objective": "graddiff"}
    recipe |= {"epochs": 2, "learning_rate": 1e-3, "save_steps": 1000, "chunk_length": 0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    requests = [f"muse:{corpus}:sust:forget_{k}" for k in (1, 2)]
    words = [word for request in requests for word in ("--forget", request)]
    done = demur("sequence", tmp_path / "recipe.yaml", *words, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    first, second = (RunFolder(tmp_path / "out" / name) for name in "12")
    assert second.config["model"] == str(first.path), "each starts from the last one's result"
    assert (first.config["forget"], second.config["forget"]) == tuple(requests)
    again = forget_in_turn(ForgetSettings(**recipe, forget="x"), requests, tmp_path / "out")
    assert set(again["step"]) == {0, 1, 2}
    memory = again[again["metric"] == "forget_verbmem"]
    assert sorted(zip(memory["step"], memory["set"], strict=True)) == [(s, r) for s in (0, 1, 2) for r in ("1", "2")]
    assert set(again[again["set"] == "kept"]["metric"]) == {"retain_verbmem"}
    assert (tmp_path / "out" / "sequence.csv").read_text().startswith("step,set,metric,value,low,high,n\n")


def test_nothing_to_forget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name at least one request"):
        forget_in_turn(ForgetSettings(model="m", forget="x"), [], tmp_path)
