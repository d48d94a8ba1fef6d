"""Names find rows and models; a model is trained once, however many ask for it, and never left half written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from demur.errors import DemurError, UnknownNameError, UsageError
from demur.files import hash_file
from demur.lab import almanac, dense, sources
from demur.lab.almanac import SPLITS, Almanac
from demur.lab.dense import train_dense
from demur.models.language_model import load_model

QUICK = "almanac-tiny@epochs=1"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of one test's own."""
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were trained since."""
    names: list[str] = []

    def train(recipe: dense.DenseRecipe, name: str, progress: bool) -> object:
        names.append(name)
        return train_dense(recipe, name, progress)

    monkeypatch.setattr(dense, "train_dense", train)
    return names


def test_second_call_reads_the_cache(cache: Path, trained: list[str]) -> None:
    first = sources.model_path(QUICK)
    written = hash_file(first / "model.safetensors")
    assert sources.model_path("lab:" + QUICK) == first
    assert trained == [QUICK]
    assert hash_file(first / "model.safetensors") == written


def test_every_setting_is_part_of_the_key() -> None:
    names = ["almanac", "almanac@seed=1", "almanac@epochs=3", "almanac@world=1", "almanac-gold", "almanac@rate=0.001"]
    assert len({sources.model_folder(name) for name in names}) == len(names)
    assert sources.model_folder("almanac@seed=0") == sources.model_folder("almanac")
    assert sources.model_folder("almanac@seed=1,epochs=3") == sources.model_folder("almanac@epochs=3,seed=1")


def test_a_reworded_world_is_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources.model_folder("almanac")
    monkeypatch.setattr(almanac, "TOWN_TOPICS", almanac.TOWN_TOPICS[:2])
    for cached in (dense._world, dense._text_hash):
        cached.cache_clear()
    assert sources.model_folder("almanac") != before
    monkeypatch.undo()
    for cached in (dense._world, dense._text_hash):
        cached.cache_clear()
    assert sources.model_folder("almanac") == before


def test_two_processes_at_once_train_it_once(cache: Path) -> None:
    code = (
        "from demur.lab import sources, dense\n"
        "quiet = dense.train_dense\n"
        "def train(*a):\n    print('trained'); return quiet(*a)\n"
        "dense.train_dense = train\n"
        f"print(sources.model_path({QUICK!r}))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].split() for process in both]
    assert all(process.returncode == 0 for process in both)
    assert sorted(map(len, said)) == [1, 2], "one of them trains, the other waits or finds it done"
    assert {lines[-1] for lines in said} == {str(sources.model_folder(QUICK))}
    assert [p.name for p in (cache / "lab").iterdir() if not p.name.startswith(".")] == [
        sources.model_folder(QUICK).name
    ]


def test_a_failed_build_leaves_nothing_and_the_next_one_succeeds(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sources, "write_json", fail)
        with pytest.raises(KeyboardInterrupt):
            sources.model_path(QUICK)
    assert not sources.is_built(QUICK)
    assert [p for p in (cache / "lab").iterdir() if p.is_dir()] == []
    assert (sources.model_path(QUICK) / "recipe.json").is_file()


def test_a_folder_without_weights_is_built_again(cache: Path, trained: list[str]) -> None:
    folder = sources.model_path(QUICK)
    (folder / "model.safetensors").unlink()
    assert (sources.model_path(QUICK) / "model.safetensors").is_file()
    assert len(trained) == 2


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "file"))
    with pytest.raises(DemurError, match="set DEMUR_CACHE"):
        sources.model_path(QUICK)


def test_lab_models_load_by_name(tiny_model: Path) -> None:
    lm = load_model("lab:almanac-tiny", device="cpu")
    assert lm.path == tiny_model
    assert lm.template == "chat"
    assert lm.context == 512


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("almanak", UnknownNameError, "did you mean almanac"),
        ("almanac@sed=1", UsageError, "did you mean seed"),
        ("almanac@seed=one", UsageError, "seed must be a whole number"),
        ("almanac@seed", UsageError, "seed must be a whole number"),
        ("almanac@rate=fast", UsageError, "rate must be a number"),
        ("almanac@epochs=0", UsageError, "epochs must be positive"),
    ],
)
def test_names_that_mean_no_model_are_refused(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sources.model_path(name)


@pytest.mark.parametrize("split", SPLITS)
def test_rows_by_name_are_those_of_the_world(split: str) -> None:
    world = Almanac()
    assert sources.rows(f"almanac:{split}").to_list() == world.questions(split)
    assert sources.rows(f"lab:almanac-gold:{split}")["question"] == [r["question"] for r in world.questions(split)]
    assert sources.rows(f"almanac:{split}-documents").to_list() == world.documents(split)


def test_rows_of_another_world_are_others() -> None:
    others = Almanac(1).questions("forget")
    assert sources.rows("almanac:forget@world=1").to_list() == others
    assert sources.rows("almanac@world=1,seed=2:forget").to_list() == others


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("almanac", "names no split"),
        ("almanac:forgot", "did you mean forget"),
        ("charter:tran", "did you mean train"),
        ("abacus:hardest", "did you mean hard"),
        ("almanack:forget", "did you mean almanac"),
    ],
)
def test_names_that_mean_no_rows_are_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sources.rows(name)
