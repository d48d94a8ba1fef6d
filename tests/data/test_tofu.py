from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from demur.data import find_overlap, question_answer, read_rows, rows_hash, tofu_split
from demur.errors import RowError, UnknownNameError, UsageError

Finder = Callable[[str], Path]


@pytest.fixture(scope="module")
def tofu(shared_data: Finder) -> Path:
    return shared_data("tofu")


@pytest.mark.parametrize(("percent", "count"), [("01", 40), ("05", 200), ("10", 400), ("20", 800), ("90", 3600)])
def test_forget_splits_are_the_last_rows_and_retain_splits_the_rest(tofu: Path, percent: str, count: int) -> None:
    full, forget = tofu_split(tofu, "full"), tofu_split(tofu, f"forget{percent}")
    retain = tofu_split(tofu, f"retain{100 - int(percent):02}")
    assert (len(full), len(forget), len(retain)) == (4000, count, 4000 - count)
    assert list(retain["id"]) + list(forget["id"]) == [str(i) for i in range(4000)]
    assert list(retain["question"]) + list(forget["question"]) == list(full["question"])


def test_forget_and_retain_share_no_row(tofu: Path) -> None:
    assert find_overlap(tofu_split(tofu, "forget10"), tofu_split(tofu, "retain90")) == []


def test_the_facts_of_the_data_card(tofu: Path) -> None:
    full = tofu_split(tofu, "full")
    assert len(set(full["question"])) == 3999
    assert sum(len(answer.split()) for answer in full["answer"]) / 4000 == pytest.approx(25.3, abs=0.05)


@pytest.mark.parametrize(
    ("name", "count", "wrong", "paraphrased"),
    [
        ("forget10_perturbed", 400, 5, True),
        ("forget05_perturbed", 200, 5, True),
        ("forget01_perturbed", 40, 5, True),
        ("retain_perturbed", 400, 5, True),
        ("real_authors_perturbed", 100, 3, False),
        ("world_facts_perturbed", 117, 3, False),
    ],
)
def test_perturbed_splits_have_their_rows_and_wrong_answers(
    tofu: Path, name: str, count: int, wrong: int, paraphrased: bool
) -> None:
    rows = tofu_split(tofu, name)
    assert len(rows) == count
    assert {len(answers) for answers in rows["perturbed_answer"]} == {wrong}
    assert {"paraphrased_answer", "paraphrased_question"} <= set(rows.column_names) or not paraphrased


@pytest.mark.parametrize("name", ["forget10", "forget05", "forget01"])
def test_perturbed_forget_rows_are_the_forget_rows_with_the_same_ids(tofu: Path, name: str) -> None:
    plain, perturbed = tofu_split(tofu, name), tofu_split(tofu, f"{name}_perturbed")
    assert question_answer(plain) == question_answer(perturbed)
    assert list(plain["id"]) == list(perturbed["id"])


def test_retain_perturbed_is_the_first_tenth(tofu: Path) -> None:
    plain, perturbed = tofu_split(tofu, "retain10"), tofu_split(tofu, "retain_perturbed")
    assert question_answer(plain) == question_answer(perturbed)
    assert list(plain["id"]) == list(perturbed["id"])


def test_a_tofu_source_and_a_file_slice_are_the_split(tofu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tofu.parent))
    split = tofu_split(tofu, "forget01")
    for source in (
        "tofu:forget01",
        "tofu:full[-40:]",
        f"{tofu}/full.jsonl.gz[-40:]",
        f"{tofu}/full.jsonl.gz[3960:4000]",
    ):
        rows = read_rows(source, required=["question", "answer"])
        assert rows_hash(rows) == rows_hash(split)
        assert list(rows["id"]) == list(split["id"])


def make_tofu(folder: Path, rows: int = 4000, ending: str = ".json") -> Path:
    folder.mkdir(exist_ok=True)
    line = '{{"question": "q{0}?", "answer": "a{0}."}}\n'
    (folder / f"full{ending}").write_text("".join(line.format(i) for i in range(rows)))
    return folder


def test_the_hubs_own_file_names_are_understood(tmp_path: Path) -> None:
    folder = make_tofu(tmp_path / "tofu")
    assert list(tofu_split(folder, "forget01")["question"]) == [f"q{i}?" for i in range(3960, 4000)]
    (folder / "holdout01.json").write_text('{"question": "h?", "answer": "h."}\n')
    assert list(tofu_split(folder, "holdout01")["answer"]) == ["h."]


def test_the_hub_is_asked_where_no_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, config: str | None) -> datasets.DatasetDict:
        asked.append((name, config))
        full = datasets.Dataset.from_dict({"question": [f"q{i}" for i in range(4000)], "answer": ["a"] * 4000})
        return datasets.DatasetDict({"train": full})

    monkeypatch.delenv("DEMUR_SHARED_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(read_rows("tofu:forget01")["id"]) == [str(i) for i in range(3960, 4000)]
    assert asked == [("locuslab/TOFU", "full")]


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("forgt10", UnknownNameError, "did you mean forget10"),
        ("forget00", UsageError, "NN runs from 01 to 99"),
        ("holdout10", UsageError, "locuslab/TOFU:holdout10"),
        ("world_facts_perturbed", UsageError, "does not hold TOFU"),
        ("retain90_perturbed", UnknownNameError, "unknown TOFU split"),
    ],
)
def test_a_split_that_is_not_there_is_explained(tmp_path: Path, name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        tofu_split(make_tofu(tmp_path / "tofu", 1), name)
    assert said in str(caught.value)


def test_a_full_set_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"4000 rows, the one in .* has 3999"):
        tofu_split(make_tofu(tmp_path / "tofu", 3999), "forget10")


def test_perturbed_rows_must_have_perturbed_answers(tmp_path: Path) -> None:
    folder = make_tofu(tmp_path / "tofu", 2)
    (folder / "forget10_perturbed.json").write_text('{"question": "q", "answer": "a", "perturbed_answers": ["b"]}\n')
    with pytest.raises(RowError, match=r"column 'perturbed_answer'.*did you mean perturbed_answers"):
        tofu_split(folder, "forget10_perturbed")


def test_perturbed_rows_beyond_the_last_tenth_are_refused(tofu: Path) -> None:
    with pytest.raises(UsageError, match="last 400 rows only, forget20_perturbed needs 800"):
        tofu_split(tofu, "forget20_perturbed")
