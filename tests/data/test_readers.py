from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demur.data import check_rows, dataset_from_rows, read_lines, read_rows, rows_hash
from demur.errors import RowError, UsageError

NOT_BLANK = st.text(min_size=1).filter(str.strip)
QA_ROWS = st.lists(st.fixed_dictionaries({"question": NOT_BLANK, "answer": NOT_BLANK}), min_size=1, max_size=6)
QA = [{"question": f"q{i}?", "answer": f"a{i}."} for i in range(4)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format that the path's ending names, written without demur."""
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending == "parquet":
        pd.DataFrame(rows).to_parquet(path)
        return path
    out = io.StringIO(newline="")
    if ending == "csv":
        writer = csv.DictWriter(out, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    elif ending == "json":
        json.dump(rows, out, indent=2)
    else:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = out.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


ENDINGS = ["jsonl", "ndjson", "json", "csv", "parquet", "jsonl.gz", "json.gz", "csv.gz"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(rows=QA_ROWS, ending=st.sampled_from(ENDINGS))
def test_rows_come_back_from_every_format(rows: list[dict[str, str]], ending: str, tmp_path: Path) -> None:
    dataset = read_rows(write(tmp_path / f"rows.{ending}", rows), required=["question", "answer"])
    assert list(dataset) == [{**row, "id": str(i)} for i, row in enumerate(rows)]


def test_the_same_rows_have_the_same_hash_in_every_format(tmp_path: Path) -> None:
    assert len({rows_hash(read_rows(write(tmp_path / f"rows.{ending}", QA))) for ending in ENDINGS}) == 1


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_lists_and_extra_columns_and_nulls_survive(tmp_path: Path, ending: str) -> None:
    rows = [
        {"question": "q", "answer": "a", "perturbed_answer": ["b", "c"], "note": None, "rank": 1},
        {"question": "r", "answer": "s", "perturbed_answer": ["d"], "note": "n", "rank": 2},
    ]
    dataset = read_rows(write(tmp_path / f"rows.{ending}", rows))
    assert [{k: v for k, v in row.items() if k != "id"} for row in dataset] == rows


def test_prompts_may_be_text_in_one_row_and_chat_in_the_next(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "prompt": "5", "response": "x", "meta": {"n": 1}},
        {"id": "b", "prompt": [{"role": "user", "content": "Hi"}], "response": "y", "meta": {"m": [1, "2"]}},
    ]
    assert list(read_rows(write(tmp_path / "rows.jsonl", rows))) == rows


def test_categorical_parquet_columns_are_plain_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": ["p", "q"], "label": pd.Categorical(["refuse", "comply"])})
    frame.to_parquet(tmp_path / "rows.parquet")
    assert list(read_rows(tmp_path / "rows.parquet")["label"]) == ["refuse", "comply"]


# Names, aliases and ids


def test_an_alias_satisfies_what_is_required_and_takes_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", QA)
    assert list(read_rows(path, required=["prompt", "response"])["prompt"]) == [row["question"] for row in QA]
    assert list(read_rows(path, required=["question"]).column_names) == ["question", "answer", "id"]


def test_an_error_in_an_aliased_column_uses_the_files_own_name(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "r"}, {"prompt": "p", "response": 4}])
    with pytest.raises(RowError, match=r"rows.jsonl, line 2, column 'response'.*number 4"):
        read_rows(path, required=["question", "answer"])


def test_ids_are_kept_as_text(tmp_path: Path) -> None:
    rows = [{"id": 7, **QA[0]}, {"id": "x", **QA[1]}]
    assert list(read_rows(write(tmp_path / "rows.jsonl", rows))["id"]) == ["7", "x"]
    path = write(tmp_path / "rows.parquet", [{"id": i + 5, **row} for i, row in enumerate(QA)])
    assert list(read_rows(path)["id"]) == ["5", "6", "7", "8"]


def test_an_id_used_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "1", "prompt": "a"}\n\n{"id": "2", "prompt": "a"}\n{"id": 1, "prompt": "b"}\n')
    with pytest.raises(RowError, match="line 4, column 'id': 1 is also the id of the row in line 1"):
        read_rows(path)


def test_an_id_in_some_rows_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="line 2, column 'id'"):
        read_rows(write(tmp_path / "rows.jsonl", [{"id": "1", "prompt": "a"}, {"id": None, "prompt": "b"}]))


# Bad rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(gaps=st.lists(st.integers(0, 3), min_size=4, max_size=4), victim=st.integers(0, 3), kind=st.integers(0, 3))
def test_the_line_of_a_bad_row_is_exact(gaps: list[int], victim: int, kind: int, tmp_path: Path) -> None:
    bad = [{"question": "q"}, {"question": 3, "answer": "a"}, {"question": "q", "answer": ""}, ["no object"]][kind]
    column = ["answer", "question", "answer", None][kind]
    text, line, expected = "", 1, 0
    for i, gap in enumerate(gaps):
        text += "\n" * gap + json.dumps(bad if i == victim else QA[i]) + "\n"
        expected = line + gap if i == victim else expected
        line += gap + 1
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(RowError) as caught:
        read_rows(tmp_path / "rows.jsonl", required=["question", "answer"])
    assert (caught.value.file, caught.value.line, caught.value.column) == (
        str(tmp_path / "rows.jsonl"), expected, column
    )  # fmt: skip


def test_a_missing_column_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [{"question": "q", "anwser": "a"}])
    with pytest.raises(RowError, match="line 2, column 'answer': is missing; did you mean anwser"):
        read_rows(path, required=["question", "answer"])


def test_a_bad_parquet_row_is_named_by_its_number(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", [QA[0], {"question": "q", "answer": None}])
    with pytest.raises(RowError, match="line 2, column 'answer'"):
        read_rows(path)


def test_half_a_surrogate_pair_is_named_by_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n\n{"prompt": "b", "note": ["\\ud83d"]}\n')
    with pytest.raises(RowError, match="line 3, column 'note': holds half of a surrogate pair"):
        read_rows(tmp_path / "rows.jsonl")


def test_rows_of_another_kind_only_need_what_is_required(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 1},
        {"question": "r", "choices": ["c", "d", "e", "f"], "answer": 0},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    assert list(read_rows(path, required=["question", "choices"])["answer"]) == [1, 0]


def test_checking_rows_made_in_python_is_the_same_check() -> None:
    assert list(check_rows(dataset_from_rows(QA), required=["prompt"])["id"]) == ["0", "1", "2", "3"]
    with pytest.raises(RowError, match="the rows, line 2, column 'answer'"):
        check_rows(dataset_from_rows([QA[0], {"question": "q", "answer": " "}]))
    with pytest.raises(UsageError, match="holds no rows"):
        check_rows(dataset_from_rows([]), required=["question"])


# Bad files


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "jsonl.gz"])
def test_an_empty_file_is_refused(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"rows.{ending}").write_bytes(gzip.compress(b"\n") if ending.endswith("gz") else b"\n")
    with pytest.raises(UsageError, match=f"rows.{ending} holds no rows"):
        read_rows(tmp_path / f"rows.{ending}", required=["question"])


def test_a_header_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\n")
    with pytest.raises(UsageError, match="holds no rows"):
        read_rows(tmp_path / "rows.csv")


def test_a_missing_file_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "forget.jsonl", QA)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("the hub was asked"))
    for source in ("forgt.jsonl", "./forgt.jsonl", str(tmp_path / "forgt.jsonl")):
        with pytest.raises(UsageError, match=r"no such file or folder: .*did you mean .*forget\.jsonl"):
            read_rows(source)
    for source in ("data/rows", "some/rows.jsonl", "a/b/c", "~/no-such-rows", "plain", "../x", "forgt.jsonl[0:2]", ""):
        with pytest.raises(UsageError):
            read_rows(source)


def test_an_unknown_ending_is_explained(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"rows.xlsx: its name must end in \.jsonl"):
        read_rows(tmp_path / "rows.xlsx")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("rows.jsonl.gz", b"not gzip", "not a whole gzip file"),
        ("rows.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n', mtime=0)[:-6], "not a whole gzip file"),
        ("rows.parquet", b"not parquet", "not a whole Parquet file"),
        ("rows.parquet", b"", "not a whole Parquet file"),
    ],
)
def test_a_damaged_file_is_explained(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=said):
        read_rows(tmp_path / name)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_explained(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", QA)
    path.chmod(0)
    with pytest.raises(UsageError, match=r"cannot read .*Permission denied"):
        read_rows(path)


# Slices and splits


@pytest.mark.parametrize(
    ("window", "expected"), [("0:2", "01"), ("-1:", "3"), (":-3", "0"), ("2:99", "23"), (":", "0123"), ("1:3", "12")]
)
def test_a_slice_is_pythons_slice_and_keeps_row_numbers(tmp_path: Path, window: str, expected: str) -> None:
    path = write(tmp_path / "rows.jsonl", QA)
    dataset = read_rows(f"{path}[{window}]")
    assert "".join(dataset["id"]) == expected
    assert list(dataset["answer"]) == [f"a{i}." for i in expected]


def test_an_empty_slice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", QA)
    with pytest.raises(UsageError, match=r"rows.jsonl\[9:\] holds no rows"):
        read_rows(f"{path}[9:]")


def test_a_file_whose_name_ends_like_a_slice_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "odd[0:1]").mkdir()
    write(tmp_path / "odd[0:1]" / "rows.jsonl", QA)
    assert len(read_rows(tmp_path / "odd[0:1]")) == 4


def test_a_split_picks_rows_by_their_split_column(tmp_path: Path) -> None:
    rows = [{"prompt": str(i), "split": "test" if i % 2 else "train"} for i in range(6)]
    path = write(tmp_path / "rows.jsonl", rows)
    assert list(read_rows(path, split="test")["id"]) == ["1", "3", "5"]
    assert list(read_rows(f"{path}[-2:]", split="train")["id"]) == ["2", "4"]
    with pytest.raises(UsageError, match="no rows of split 'tset': did you mean test"):
        read_rows(path, split="tset")
    with pytest.raises(UsageError, match="no splits and no column 'split'"):
        read_rows(write(tmp_path / "plain.jsonl", QA), split="test")


# Folders


def test_a_folder_with_one_data_file_is_that_file(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", QA)
    (tmp_path / "README.md").write_text("about")
    assert len(read_rows(tmp_path)) == 4


def test_the_files_of_a_folder_are_its_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", QA)
    write(tmp_path / "test.jsonl.gz", QA[:1])
    assert len(read_rows(tmp_path, split="test")) == 1
    with pytest.raises(UsageError, match="several splits: test, train"):
        read_rows(tmp_path)
    with pytest.raises(UsageError, match="no split 'dev', only test, train"):
        read_rows(tmp_path, split="dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no data files"):
        read_rows(tmp_path / "empty")


def test_shards_are_joined_and_errors_name_the_shard(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.jsonl", QA[:2])
    write(tmp_path / "train-00001-of-00002.jsonl", QA[2:])
    assert list(read_rows(tmp_path)["id"]) == ["0", "1", "2", "3"]
    (tmp_path / "train-00001-of-00002.jsonl").write_text('\n{"question": "q", "answer": ""}\n')
    with pytest.raises(RowError, match=r"train-00001-of-00002.jsonl, line 2, column 'answer'"):
        read_rows(tmp_path, split="train")


def test_saved_data_sets_are_read_and_their_folder_is_left_as_it_was(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    dataset_from_rows(QA).save_to_disk(one)
    datasets.DatasetDict(train=dataset_from_rows(QA), test=dataset_from_rows(QA[:1])).save_to_disk(many)
    before = sorted(tmp_path.rglob("*"))
    rows = read_rows(one).map(lambda row: {"answer": row["answer"].upper()}).filter(lambda row: row["id"] != "0")
    assert list(rows["answer"]) == ["A1.", "A2.", "A3."]
    assert len(read_rows(many, split="test")) == 1
    with pytest.raises(UsageError, match="several splits: choose one of train, test"):
        read_rows(many)
    assert sorted(tmp_path.rglob("*")) == before


def test_reading_a_file_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for ending in ENDINGS:
        write(tmp_path / f"rows.{ending}", QA)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = sorted(tmp_path.rglob("*"))
    for ending in ENDINGS:
        read_rows(f"rows.{ending}").map(lambda row: {"n": len(row["answer"])})
    assert sorted(tmp_path.rglob("*")) == before


# Hub


def test_a_hub_name_with_configuration_and_split_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = datasets.DatasetDict(train=dataset_from_rows(QA), test=dataset_from_rows(QA[:1]))
    asked: list[tuple[str, str | None]] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: asked.append((name, config)) or found)
    assert len(read_rows("owner/set:part", split="test")) == 1
    assert len(read_rows("owner/set[1:3]", split="train")) == 2
    assert asked == [("owner/set", "part"), ("owner/set", None)]
    with pytest.raises(UsageError, match="owner/set has several splits: choose one of train, test"):
        read_rows("owner/set")
    with pytest.raises(UsageError, match="owner/set has no split 'dev'"):
        read_rows("owner/set", split="dev")


def test_a_hub_that_cannot_be_reached_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, config: str | None) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    said = r"owner/set \(configuration part\) is no file here and could not be had from the hub: no route$"
    with pytest.raises(UsageError, match=said):
        read_rows("owner/set:part")


# Lines of text


def test_lines_are_stripped_and_blank_ones_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffI cannot say. \r\n\n  Not known to me: é\u2028.".encode())
    assert read_lines(path) == ["I cannot say.", "Not known to me: é\u2028."]
    path.with_suffix(".txt.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_lines(path.with_suffix(".txt.gz")) == read_lines(path)


def test_bad_line_files_are_explained(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"fine\n\ncaf\xe9\n")
    with pytest.raises(RowError, match="line 3: the line is not UTF-8"):
        read_lines(tmp_path / "latin.txt")
    (tmp_path / "blank.txt").write_bytes(b"\n \n")
    with pytest.raises(UsageError, match="holds no lines"):
        read_lines(tmp_path / "blank.txt")
    with pytest.raises(UsageError, match="no such file"):
        read_lines(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("labb:almanac:forget", "unknown row source 'labb' in 'labb:almanac:forget': did you mean lab"),
        ("a:b.jsonl", "no such file or folder: a:b.jsonl"),
    ],
)
def test_unknown_source_is_told_from_a_missing_file(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_rows(source)
