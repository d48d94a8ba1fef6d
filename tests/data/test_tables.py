from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from demur.data.labelled_sources import read_labelled
from demur.data.tables import TableEncoding, read_table
from demur.errors import UsageError

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "priors": RNG.integers(0, 20, 120),
        "charge": RNG.choice(["felony", "misdemeanour", "none"], 120),
        "income": RNG.uniform(10, 90, 120).round(2),
        "sex": RNG.choice(["female", "male"], 120),
    }
)
ENCODING = TableEncoding.of(TABLE)
X = ENCODING.encode(TABLE)


def test_vectors_are_those_that_a_labelled_table_is_read_as(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    TABLE.assign(score=np.arange(len(TABLE)) % 2).to_csv(file, index=False)
    assert read_labelled(str(file), target="score").inputs.numpy() == pytest.approx(X, abs=1e-6)
    assert (ENCODING.encode(read_table(file).drop(columns="score")) == X).all()


def test_a_vector_is_read_back_as_its_row() -> None:
    for row in range(20):
        read = ENCODING.decode(X[row])
        assert read == pytest.approx(dict(TABLE.iloc[row]))
        assert isinstance(read["priors"], int)
    assert ENCODING.changes(X[0], X[0]) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"charge": "treason"}, "line 2, column 'charge': 'treason' is none of felony"),
        ({"priors": "many"}, "line 2, column 'priors': 'many' is no number"),
        ({"income": float("nan")}, "line 2, column 'income': is empty"),
    ],
)
def test_a_row_that_does_not_fit_names_its_line_and_column(change: dict[str, object], problem: str) -> None:
    row = pd.DataFrame([{**dict(TABLE.iloc[0]), **change}], dtype=object)
    with pytest.raises(UsageError, match=problem):
        ENCODING.encode(row, "q.csv")


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'charge'"):
        ENCODING.encode(TABLE.drop(columns="charge"))
    with pytest.raises(UsageError, match="did you mean sex"):
        ENCODING.actionable(["sez"])
    (tmp_path / "none.csv").write_text("a,b\n")
    with pytest.raises(UsageError, match="has no rows"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="column 'income': is empty"):
        TableEncoding.of(TABLE.assign(income=np.nan))


def test_a_test_table_of_its_own_is_scaled_as_the_training_table_was(tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("age,town,out\n20,bern,n\n40,chur,y\n30,genf,n\n")
    test.write_text("age,town,out\n30,genf,y\n50,genf,y\n")
    known = read_labelled(str(train), target="out")
    found = read_labelled(str(test), target="out", like=known)
    assert found.inputs.tolist() == [[0.5, 0, 1], [1.5, 0, 1]]
    assert found.classes == ("n", "y") and found.labels.tolist() == [1, 1]
    for row, problem in (("30,zug,y", "'zug' is none of bern"), ("30,bern,perhaps", "'perhaps' is none of n, y")):
        test.write_text(f"age,town,out\n{row}\n")
        with pytest.raises(UsageError, match=f"line 2, column .*{problem}"):
            read_labelled(str(test), target="out", like=known)
    with pytest.raises(UsageError, match="give parts of one set"):
        read_labelled("digits:test", like=known)
