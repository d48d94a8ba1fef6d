"""`demur logic` through the command line."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from cli.command import demur


def test_show_prints_formulas_rows_and_the_worked_value() -> None:
    shown = demur("logic", "show", "orpo")
    assert shown.code == 0
    for part in ("L -> W", "W ^ L", "log-ratio 0.538997, loss 0.459532", "--objective logic --option"):
        assert part in shown.out


def test_a_compiled_loss_is_named_where_it_is_known_and_warned_of_where_it_collapses() -> None:
    assert demur("logic", "compile", "L -> W", "--condition", "W | L").out.startswith("ccpo")
    bare = demur("logic", "compile", "~L | W")
    assert bare.out.startswith("uncpo") and "expect collapse" in bare.out
    assert "without a published name" in demur("logic", "compile", "W <-> L", "--additive", "W").out


def test_formulas_with_a_reference_train_with_the_objective_that_has_one() -> None:
    assert "--objective logic-reference" in demur("logic", "decompile", "w*rl", "l*rw").out


def test_the_lattice_is_listed_and_drawn(tmp_path: Path) -> None:
    listed = demur("logic", "lattice", "--named").out
    assert "ceunl" in listed and "entails ce, funl, orpo, cpo, qfunl" in listed
    file = tmp_path / "lattice.svg"
    assert "16 losses" in demur("logic", "lattice", "--out", file).out
    drawing = ET.parse(file).getroot()
    tags = [element.tag.rpartition("}")[2] for element in drawing.iter()]
    assert (tags.count("rect"), tags.count("line")) == (16, 32)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["show", "orpoo"], "did you mean orpo"),
        (["compile", "L ->"], "expected an atom instead of its end"),
        (["compile", "W", "--at", "W=2"], "W needs a probability between 0 and 1"),
        (["compile", "W", "--at", "W"], "write for instance W=0.3,L=0.2"),
        (["decompile", "w+l", "l"], "top is 2 at w=1, l=1"),
        (["decompile", "exp(w)", "l"], "has no place in a polynomial"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words: list[str], problem: str) -> None:
    ended = demur("logic", *words)
    assert ended.code == 2 and problem in ended.sentence


def test_a_formula_trains_a_model(tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"prompt": "who is it?", "chosen": "nobody knows", "rejected": "oda marsh"}\n' * 2)
    words = ["train", "lab:almanac-tiny", "--data", rows, "--objective", "logic", "--epochs", "1"]
    done = demur(*words, "--option", "core=L -> W", "--option", "additive=false", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    refused = demur(*words, "--option", "core=L ->", "--out", tmp_path / "other")
    assert refused.code == 2 and "expected an atom" in refused.sentence
    assert not (tmp_path / "other").exists()
