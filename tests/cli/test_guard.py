from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cli.command import FORGET, MODEL, RETAIN, demur


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("guards") / "guard"
    done = demur("guard", "fit", MODEL, "--forget", f"{FORGET}[0:6]", "--retain", f"{RETAIN}[0:20]", "--out", folder)
    assert done.code == 0, done.err
    assert "guards 6 items of lab:almanac-tiny" in done.out.replace("\n", " ")
    return folder


def test_a_fitted_guard_is_asked_and_explains(guard: Path):
    from demur.data import read_rows

    row = read_rows(f"{FORGET}[0:1]")[0]
    done = demur("guard", "ask", guard, row["question"], "--explain", "--max-new-tokens", 20)
    assert done.code == 0, done.err
    assert "flagged:    yes" in done.out and row["question"] in done.out and "forbidden:" in done.out
    plain = demur("guard", "ask", guard, row["question"], "--max-new-tokens", 20)
    assert plain.code == 0 and plain.out.strip() in done.out


def test_a_check_counts_what_is_flagged_and_what_leaks(guard: Path):
    done = demur("guard", "check", guard, "--max-new-tokens", 20)
    assert done.code == 0, done.err
    cells = {line.split("│")[1].strip(): line.split("│")[2].split()[0] for line in done.out.splitlines() if "│" in line}
    assert cells["flagged"] == "1.000" and cells["say a forbidden phrase, guarded"] == "0.000"
    assert float(cells["say a forbidden phrase, unguarded"]) > 0
    kept = demur("guard", "check", guard, "--rows", f"{RETAIN}[0:20]", "--max-new-tokens", 20)
    assert "answered differently" in kept.out and "0.000" in kept.out


def test_an_audit_of_a_guarded_model_shows_answers_and_no_likelihoods(guard: Path, tmp_path: Path):
    words = ["audit", MODEL, "--forget", f"{FORGET}[0:6]", "--retain", f"{RETAIN}[0:6]", "--max-new-tokens", 30]
    for name, more in {"plain": [], "guarded": ["--guard", guard]}.items():
        done = demur(*words, "--out", tmp_path / name, *more)
        assert done.code == 0, done.err
    plain, guarded = (
        pd.read_parquet(tmp_path / name / "results.parquet").query("role == 'run'").set_index("metric")["value"]
        for name in ("plain", "guarded")
    )
    assert guarded["forget_rouge"] < plain["forget_rouge"] - 0.2
    assert guarded["retain_rouge"] == pytest.approx(plain["retain_rouge"], abs=0.1)
    assert (
        guarded.drop(["forget_rouge", "retain_rouge", "real_authors_rouge", "world_facts_rouge"], errors="ignore")
        .isna()
        .all()
    )
    assert plain["forget_probability"] > 0
    assert "n/a (suppression)" in done.out


def test_wrong_use_is_one_sentence(guard: Path, tmp_path: Path):
    assert "holds no guard" in demur("guard", "ask", tmp_path, "who?").sentence
    other = demur("guard", "ask", guard, "who?", "--model", "lab:almanac-tiny-gold")
    assert other.code == 2 and "other weights" in other.sentence
    none = demur("audit", MODEL, "--forget", FORGET, "--out", tmp_path / "o", "--guard", guard, "--no-generation")
    assert "audit it with generation" in none.sentence
