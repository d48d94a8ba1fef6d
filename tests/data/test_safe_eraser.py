"""SafeEraser's own files give forget, retain and decoupled rows, and rows of any kind may have a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demur.data import question_answer, read_rows, require_disjoint, rows_hash
from demur.data.rows import image_paths
from demur.errors import RowError, UnknownNameError, UsageError


def record(number: int, **change: Any) -> dict[str, Any]:
    pairs = [
        {"question": f"What of {number} {i}?", "model_response": f"Bad {i} GO", "sd_response": f"Good {i}"}
        for i in "ab"
    ]
    harmless = {"Question": "What Colour?", "Prediction": "A RED one."}
    return {
        "image_path": f"images/Weapon/{number}.png",
        "SDImage_path": f"images/sd/{number}.png",
        "unsafe_pairs": pairs,
        "UnharmPair_text1": harmless,
        "UnharmPair_image2": harmless,
        **change,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two records to train on and one to measure on, with pictures."""
    home = tmp_path / "dataset"
    for kind in ("Weapon", "sd"):
        (home / "images" / kind).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, len(kind))).save(home / "images" / kind / f"{number}.png")
    write(home, [record(0), record(1)])
    (home / "all_val.json").write_text(json.dumps([record(2)]))
    return home


def write(home: Path, records: list[dict[str, Any]]) -> None:
    (home / "all_train.json").write_text(json.dumps(records, indent=1))


def test_every_split_has_its_pairs_and_pictures(folder: Path) -> None:
    sets = {name: read_rows(f"safe-eraser:{folder}:{name}") for name in ("forget", "retain", "decoupled", "unseen")}
    assert [len(rows) for rows in sets.values()] == [4, 4, 4, 2]
    assert sets["forget"][0] == {
        "id": "0-0",
        "question": "What of 0 a?",
        "answer": "Bad a GO",
        "image_path": str(folder / "images/Weapon/0.png"),
        "category": "Weapon",
        "split": "forget",
    }
    assert sets["decoupled"]["id"][:] == sets["forget"]["id"][:]
    assert sets["decoupled"]["question"][:] == sets["forget"]["question"][:]
    assert sets["decoupled"]["answer"][1] == "Good b" and sets["decoupled"]["image_path"][3].endswith("sd/1.png")
    assert sets["retain"]["answer"][0] == "A RED one."  # no letter changed
    assert sets["unseen"]["question"][0] == "What of 2 a?"
    assert read_rows(f"safe-eraser:{folder}:forget[1:2]")["id"][:] == ["0-1"]


def test_json_lines_and_paths_from_above_the_folder_are_read_too(folder: Path) -> None:
    inside = [record(0, image_path="dataset/images/Weapon/0.png"), record(1)]
    (folder / "all_train.json").write_text("".join(json.dumps(r) + "\n" for r in inside))
    assert read_rows(f"safe-eraser:{folder}:forget")["image_path"][0] == str(
        folder.parent / "dataset/images/Weapon/0.png"
    )


@pytest.mark.parametrize(
    ("change", "split", "words"),
    [
        ({"SDImage_path": None}, "decoupled", r"all_train\.json, line \d+, column 'SDImage_path': is missing"),
        ({"image_path": "images/gone.png"}, "forget", "column 'image_path': there is no image images/gone.png"),
        ({"unsafe_pairs": None}, "forget", "column 'unsafe_pairs'"),
        ({"unsafe_pairs": [{"question": "q", "model_response": "a"}]}, "decoupled", "column 'sd_response'"),
        ({"UnharmPair_text1": {"Question": "q"}}, "retain", "column 'Prediction': pair 'text1' has none"),
    ],
    ids=str,
)
def test_a_broken_record_is_named(change: dict[str, Any], split: str, words: str, folder: Path) -> None:
    write(folder, [record(0), record(1, **change)])
    with pytest.raises(RowError, match=words):
        read_rows(f"safe-eraser:{folder}:{split}")


def test_names_that_mean_nothing_are_refused(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean forget"):
        read_rows(f"safe-eraser:{folder}:forgot")
    with pytest.raises(UnknownNameError, match="safe-eraser:FOLDER:SPLIT"):
        read_rows(f"safe-eraser:{folder}")
    with pytest.raises(UsageError, match="one of SafeEraser's"):
        read_rows(f"safe-eraser:{folder.parent}:forget")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_pictures_are_meant_from_where_the_file_lies_and_hashed_by_their_bytes(ending: str, folder: Path) -> None:
    rows = read_rows(f"safe-eraser:{folder}:forget").select(range(2))
    relative = rows.remove_columns("image_path").add_column("image_path", ["images/Weapon/0.png", None])
    file = folder / f"rows.{ending}"
    getattr(relative, {"jsonl": "to_json"}.get(ending, f"to_{ending}"))(file)
    read = read_rows(file)
    assert read["image_path"][:] == [str(folder / "images/Weapon/0.png"), None]
    prompts, _ = question_answer(read)
    assert image_paths(prompts[0]) == [str(folder / "images/Weapon/0.png")] and prompts[1] == "What of 0 b?"
    before = rows_hash(read)
    (folder / "images/Weapon/0.png").rename(folder / "moved.png")
    moved = read.remove_columns("image_path").add_column("image_path", [str(folder / "moved.png"), None])
    assert rows_hash(moved) == before
    other = read.remove_columns("image_path").add_column("image_path", [str(folder / "images/sd/2.png"), None])
    assert rows_hash(other) != before


def test_messages_may_hold_pictures_and_what_they_lack_is_said(folder: Path) -> None:
    content = [{"type": "image", "path": "images/sd/0.png"}, {"type": "text", "text": "What is it?"}]
    file = folder / "chat.jsonl"
    file.write_text(json.dumps({"prompt": [{"role": "user", "content": content}], "response": "A square."}) + "\n")
    (prompt,), _ = question_answer(read_rows(file))
    assert image_paths(prompt) == [str(folder / "images/sd/0.png")]
    for part, words in (
        ({"type": "image", "path": "gone.png"}, "no image file"),
        ({"type": "sound"}, "parts of message 1"),
    ):
        broken = {"prompt": [{"role": "user", "content": [part]}], "response": "x"}
        file.write_text(json.dumps(broken) + "\n")
        with pytest.raises(RowError, match=rf"line 1, column 'prompt': .*{words}"):
            read_rows(file)
    file.write_text(json.dumps({"question": "q", "answer": "a", "image_path": "gone.png"}) + "\n")
    with pytest.raises(RowError, match="line 1, column 'image_path': there is no image file"):
        read_rows(file)


def test_the_same_question_beside_another_picture_is_another_row(folder: Path) -> None:
    rows = read_rows(f"safe-eraser:{folder}:forget")
    others = rows.remove_columns("image_path").add_column("image_path", [str(folder / "images/sd/0.png")] * len(rows))
    require_disjoint(rows, others)
    with pytest.raises(UsageError, match="4 of 4 forget rows are also retain rows"):
        require_disjoint(rows, rows)
