from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from demur.data import load_honeset, read_rows
from demur.data.honeset import HONEST_BEHAVIOURS, honeset_category, honeset_source
from demur.errors import RowError, UnknownNameError, UsageError


def made(folder: Path, category: str = "Self Identity Cognition") -> Path:
    lines = {
        "honeset_queries": ("Who are you?", "Do you  sleep?", "Have you a dog?"),
        "honeset_test_split": ("do you sleep?",),
    }
    for name, queries in lines.items():
        body = "".join(f'"{query}",{category}\n' for query in queries)
        (folder / f"{name}.csv").write_text(f"instruction,category\n{body}")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "Professional Capability in Specific Domains",
        "professional capability in specific domain",
        "Professional-Capability in Specific Domains",
    ],
)
def test_categories_are_matched_whatever_their_spelling(name: str) -> None:
    assert honeset_category(name) == "Professional Capability In Specific Domains"


def test_each_category_is_told_from_the_others() -> None:
    assert {honeset_category(name) for name in HONEST_BEHAVIOURS} == set(HONEST_BEHAVIOURS)
    assert honeset_category("Interactivity and Sensory Processing") == "Interactivity Sensory Processing"
    with pytest.raises(UnknownNameError, match="HoneSet has no category"):
        honeset_category("weather")


def test_no_test_query_is_trained_on(tmp_path: Path) -> None:
    made(tmp_path)
    assert load_honeset(tmp_path, "train")["prompt"][:] == ["Who are you?", "Have you a dog?"]
    assert len(load_honeset(tmp_path, "all")) == 3


def test_the_real_set_parts_into_810_and_120(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("honeset")
    train, test = load_honeset(folder, "train"), load_honeset(folder, "test")
    assert (len(train), len(test)) == (810, 120)
    assert set(Counter(test["category"][:]).values()) == {20}
    assert set(train["category"][:]) == set(HONEST_BEHAVIOURS)
    assert not set(train["prompt"][:]) & set(test["prompt"][:])
    pairs = load_honeset(folder, "pairs")
    assert len(pairs) == 1224 and not set(pairs["prompt"][:]) & set(test["prompt"][:])


def test_what_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="does not hold HoneSet: it has no honeset_queries"):
        load_honeset(tmp_path, "all")
    with pytest.raises(UnknownNameError, match=r"no split 'trian'.*train"):
        load_honeset(tmp_path, "trian")
    with pytest.raises(RowError, match=r"line 1, column 'category'"):
        load_honeset(made(tmp_path, "Weather"), "train")
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="set DEMUR_SHARED_DATA"):
        honeset_source("train")


def test_the_shared_folder_has_a_prefix_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "honeset").mkdir()
    made(tmp_path / "honeset")
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    assert read_rows("honeset:test", required=("prompt", "category"))["prompt"][:] == ["do you sleep?"]
