from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cli.command import FORGET, MODEL, RETAIN, demur
from demur.runs import RunFolder


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


QUESTIONS = f"{FORGET}[0:4]"
ANSWERING = {  # suite: its rows and settings, the table of its answers
    "parity": (["--option", "groups=Ana,Ben"], "parity_answers"),
    "coverage": (["--rows", f"questions={QUESTIONS}", "--option", "samples=2"], "coverage_questions"),
    "abstention": (["--rows", f"asked={QUESTIONS}"], "abstention_asked"),
    "safe-eraser": (
        ["--forget", QUESTIONS, "--option", "samples=1", "--option", "temperature=0"],
        "safe_eraser_forget",
    ),
    "muse": (["--rows", f"forget_knowmem={QUESTIONS}", "--option", "knowmem_tokens=20"], "muse_forget_knowmem"),
}


@pytest.mark.parametrize("suite", ANSWERING)
def test_every_suite_that_asks_gets_the_guard_s_answers(guard: Path, tmp_path: Path, suite: str):
    from demur.data import read_rows
    from demur.guards import open_guard
    from demur.models import LocalEngine, load_model

    words, table = ANSWERING[suite]
    if suite == "parity":
        templates = [f"{{group}} asks: {q}" for q in read_rows(QUESTIONS)["question"]]
        pd.DataFrame({"template": templates}).to_json(tmp_path / "pairs.jsonl", orient="records", lines=True)
        words = [*words, "--rows", f"pairs={tmp_path / 'pairs.jsonl'}"]
    limit = [] if suite == "muse" else ["--max-new-tokens", 20]
    done = demur(
        "audit", MODEL, "--suite", suite, *words, *limit, "--no-before", "--out", tmp_path / "out", "--guard", guard
    )
    assert done.code == 0, done.err
    answers = RunFolder(tmp_path / "out").samples(table)
    stop = {"muse": ("\n\n", "\nQuestion", "Question:"), "abstention": ("Are you sure",)}.get(suite, ())
    engine = open_guard(guard, LocalEngine(load_model(MODEL)))
    expected = [a.text for a in engine.generate(list(answers["prompt"]), max_new_tokens=20, stop=stop)]
    assert list(answers["generation"]) == expected
    plain = [a.text for a in engine.engine.generate(list(answers["prompt"]), max_new_tokens=20)]  # type: ignore[attr-defined]
    assert expected != plain


def test_numbers_of_the_weights_are_left_out_or_named(guard: Path, tmp_path: Path):
    done = demur("audit", MODEL, "--suite", "coverage", *ANSWERING["coverage"][0], "--out", tmp_path, "--guard", guard)
    assert done.code == 0, done.err
    found = pd.read_parquet(tmp_path / "results.parquet").set_index("metric")["value"]
    assert pd.isna(found["greedy_confidence"]) and found["greedy_accuracy"] >= 0
    assert "greedy_confidence: n/a (suppression)" in done.out


def test_removal_reads_what_a_guard_answers_to_other_prompts(guard: Path, tmp_path: Path):
    words = ["--suite", "removal", "--forget", f"{FORGET}[0:6]", "--retain", f"{RETAIN}[0:6]"]
    budget = {"full": MODEL, "learning_rate": 1e-3, "checks": "prompts", "max_new_tokens": 20, "seeds": 1}
    options = [word for name, value in budget.items() for word in ("--option", f"{name}={value}")]
    done = demur("audit", MODEL, *words, *options, "--out", tmp_path, "--guard", guard)
    assert done.code == 0, done.err
    found = pd.read_parquet(tmp_path / "results.parquet").query("role == 'run'").set_index("metric")["value"]
    assert found["knowledge_asked_role_play"] < 0.6 < found["knowledge_prompt_role_play"]
    assert "guard: rouge, leak and asked are what the guard answered" in done.out.replace("\n", " ")


@pytest.mark.parametrize("suite", ["wmdp", "classifier-unlearning", "corrective", "representation", "worst-case"])
def test_a_suite_that_asks_nothing_refuses_a_guard(guard: Path, tmp_path: Path, suite: str):
    done = demur("audit", MODEL, "--suite", suite, "--out", tmp_path / "o", "--guard", guard)
    assert done.code == 2 and "answers are all that a guard changes" in done.sentence


def test_a_folder_without_a_guard_is_refused_before_anything_is_loaded(tmp_path: Path):
    done = demur("audit", "nowhere", "--suite", "muse", "--out", tmp_path / "o", "--guard", tmp_path)
    assert done.code == 2 and "holds no guard" in done.sentence


def test_a_guard_does_not_stand_before_the_answers_of_another_code(guard: Path, tmp_path: Path):
    words, _ = ANSWERING["muse"]
    done = demur(
        "audit", MODEL, "--suite", "muse", *words, "--compat", "muse_bench", "--out", tmp_path, "--guard", guard
    )
    assert done.code == 2 and "compat=muse_bench" in done.sentence
