"""`demur protect` through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cli.command import demur
from demur.runs import RunFolder


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """People with a decision, and four who ask; the last of them is accepted."""
    folder, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "priors": rng.integers(0, 20, 160),
            "income": rng.uniform(10, 90, 160).round(2),
            "sex": rng.choice(["female", "male"], 160),
        }
    )
    lean = 0.08 * table["income"] - 0.3 * table["priors"] + rng.logistic(size=160)
    table["loan"] = np.where(lean > 1, "yes", "no")
    asking = pd.DataFrame({"priors": [12, 9, 15, 0], "income": [30.0, 25, 50, 90], "sex": ["male", "female"] * 2})
    files = {"data": folder / "people.csv", "query": folder / "asking.csv"}
    table.to_csv(files["data"], index=False)
    asking.to_csv(files["query"], index=False)
    return files


def words(tables: dict[str, Path], out: Path, *more: object) -> list[object]:
    """A short run; of an option that is given twice the later counts."""
    files = ["--data", tables["data"], "--query", tables["query"]]
    return ["protect", "recourse", *files, "--target", "loan", "--k", 2, "--repeats", 4, "--out", out, *more]


@pytest.mark.parametrize("model", ["linear", "tree", "forest", "mlp"])
def test_everybody_gets_an_answer_and_the_folder_holds_the_evidence(
    tables: dict[str, Path], tmp_path: Path, model: str
) -> None:
    margin = ["--delta", "0"] if model == "mlp" else []  # a margin that is sought takes many trainings
    ended = demur(*words(tables, tmp_path / "run", "--model", model, "--immutable", "sex", "--repeats", 1, *margin))
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert "Row 1 is turned down. It would be accepted with" in lines[0] and "sex" not in lines[0]
    assert "Row 4 is accepted as it is." in lines
    assert "min-max" in lines[-1] and "accepted after the worst deletions" in ended.out
    run = RunFolder.open(tmp_path / "run")
    results = run.results().set_index("metric")
    assert results.loc["recourse_worst", "value"] == 1.0 or model in ("forest", "mlp")
    assert results.loc["recourse_cost", "value"] >= results.loc["recourse_cost_plain", "value"] - 1e-9
    answers = run.samples("recourse")
    assert answers is not None and set(answers["row"]) <= {1, 2, 3}
    assert (answers["survives"][answers["valid"]] >= 2).all()
    assert run.config["model"] == model and set(run.state["hashes"]["data"]) == {"data", "query"}


def test_a_margin_that_is_given_is_kept_and_a_report_tells_of_it(tables: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = demur(*words(tables, out, "--delta", "0.2", "--favourable", "yes"))
    assert ended.code == 0 and "whichever 2" not in ended.out
    answers = RunFolder.open(out).samples("recourse")
    assert answers is not None and (answers["delta"] == 0.2).all()
    report = tmp_path / "report.html"
    assert demur("report", out, "--out", report).code == 0
    page = report.read_text()
    assert "Recourse under deletions" in page and "Accepted after the worst deletions" in page


def test_the_other_decision_may_be_the_favourable_one(tables: dict[str, Path], tmp_path: Path) -> None:
    ended = demur(*words(tables, tmp_path / "run", "--favourable", "no"))
    assert ended.out.startswith("Row 1 is accepted as it is.") and "Row 4 is turned down" in ended.out


def test_a_saved_classifier_is_explained_as_the_fit_it_was(tables: dict[str, Path], tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    from demur.data.tables import TableEncoding, read_table
    from demur.models.linear_classifier import from_sklearn

    table = read_table(tables["data"])
    y = (table.pop("loan") == "yes").to_numpy(int)
    X = TableEncoding.of(table).encode(table)
    from_sklearn(LogisticRegression(C=1 / (1e-3 * len(X)), solver="newton-cholesky", tol=1e-12).fit(X, y)).save(
        tmp_path / "model"
    )
    here = demur(*words(tables, tmp_path / "here"))
    saved = demur(*words(tables, tmp_path / "saved", "--model", tmp_path / "model"))
    assert saved.code == 0, saved.err
    assert saved.out.splitlines()[:4] == here.out.splitlines()[:4]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--target", "lone"], "has no column 'lone': did you mean loan"),
        (["--target", "priors"], "must hold two values"),
        (["--favourable", "maybe"], "column 'loan' holds no and yes"),
        (["--delta", "wide"], "--delta wide: give a number or auto"),
        (["--k", 500], "would delete all 160"),
        (["--immutable", "sex,prior"], "did you mean priors"),
        (["--query", "nowhere.csv"], "cannot be read as a table"),
        (["--model", "nowhere/at-all/really"], "nowhere/at-all/really"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence_exit_code_2_and_no_folder(
    tables: dict[str, Path], tmp_path: Path, more: list[object], problem: str
) -> None:
    ended = demur(*words(tables, tmp_path / "run", *more))
    assert ended.code == 2 and problem in ended.sentence
    assert not (tmp_path / "run").exists()


def test_people_who_are_all_accepted_need_no_explanation(tables: dict[str, Path], tmp_path: Path) -> None:
    lucky = tmp_path / "lucky.csv"
    lucky.write_text("priors,income,sex\n0,90,male\n")
    ended = demur(*words(tables, tmp_path / "run", "--query", lucky))
    assert ended.code == 2 and "everybody is accepted" in ended.sentence


def test_a_row_that_does_not_fit_is_named(tables: dict[str, Path], tmp_path: Path) -> None:
    odd = tmp_path / "odd.csv"
    odd.write_text("priors,income,sex\n3,40,male\n12,x,male\n")
    ended = demur(*words(tables, tmp_path / "run", "--query", odd))
    assert ended.code == 2 and "line 3, column 'income': 'x' is no number" in ended.sentence
