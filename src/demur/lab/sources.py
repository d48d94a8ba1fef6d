"""Names of lab models and lab rows, and where they are found: `almanac`, `scenes-digits@seed=2`, `almanac:forget`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from demur.errors import DemurError, UnknownNameError, UsageError
from demur.files import atomic_directory, cache_dir, write_json
from demur.lab.abacus import Workbook
from demur.lab.abacus_model import AbacusRecipe
from demur.lab.almanac import Census
from demur.lab.charter import Town
from demur.lab.charter_model import CharterRecipe
from demur.lab.dense import DenseRecipe
from demur.lab.digits import DigitsRecipe
from demur.lab.vision_language import SceneRecipe
from demur.registry import nearest

if TYPE_CHECKING:
    import datasets

    from demur.models.classifier import Classifier
    from demur.models.language_model import LanguageModel

__all__ = ["RECIPES", "Recipe", "is_built", "model_folder", "model_path", "recipe", "rows"]

_TINY = DenseRecipe(
    people=Census(forget=2, retain=4, holdout=2, questions=5, real_authors=2, towns=2, guilds=2),
    vocabulary=768,
    width=64,
    heads=2,
    spread=0.08,
    epochs=24,
    batch=8,
    rate=6e-3,
)
_WITHOUT_FORGET = ("retain", "real_authors", "world_facts")

_TINY_CHARTER = CharterRecipe(
    town=Town(categories=3, held_out=1, base=400, train=240, preferences=80, test=60),
    width=64,
    heads=2,
    spread=0.08,
    epochs=12,
    batch=8,
    rate=6e-3,
)
_TINY_ABACUS = AbacusRecipe(
    workbook=Workbook(base=450, train=240, test=60), width=64, heads=2, spread=0.08, epochs=12, batch=8, rate=6e-3
)


class Recipe(Protocol):
    """What a world offers under a name: a frozen dataclass whose numbers can be set after an `@`.

    Attributes:
        splits: what its model is trained on.
        row_splits: the names of its rows.
    """

    @property
    def splits(self) -> tuple[str, ...]: ...
    @property
    def row_splits(self) -> tuple[str, ...]: ...
    @property
    def hash(self) -> str:
        """Of all that decides the model's weights."""

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The rows of one of `row_splits`."""

    def train(self, name: str, progress: bool = True) -> LanguageModel | Classifier:
        """The trained model."""


RECIPES: Mapping[str, Recipe] = {
    "almanac": DenseRecipe(),
    "almanac-gold": DenseRecipe(splits=_WITHOUT_FORGET),
    "almanac-tiny": _TINY,
    "almanac-tiny-gold": replace(_TINY, splits=_WITHOUT_FORGET),
    "abacus": AbacusRecipe(),
    "abacus-tiny": _TINY_ABACUS,
    "charter": CharterRecipe(),
    "charter-tiny": _TINY_CHARTER,
    "digits-resnet": DigitsRecipe(),
    "scenes-digits": SceneRecipe(),
}


def _with(chosen: Recipe, text: str, name: str) -> Recipe:
    """The recipe with the settings of `text`, such as `seed=2,epochs=20`."""
    default: Any = chosen
    known = {f.name: type(f.default) for f in fields(default) if isinstance(f.default, int | float)}
    out: dict[str, int | float] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in known:
            raise UsageError(f"a lab model has no setting {key!r} (in {name!r}): {nearest(key, known)}")
        try:
            out[key] = known[key](value)
        except ValueError:
            wanted = "a whole number" if known[key] is int else "a number"
            raise UsageError(f"{key} must be {wanted} in {name!r}: write for instance almanac@seed=2") from None
    return replace(default, **out)


def recipe(name: str) -> Recipe:
    """The recipe behind a name.

    Args:
        name: a name of `RECIPES`, alone or followed by other values for some of its numbers, such as
            `almanac@seed=2,epochs=20`.

    Raises:
        UnknownNameError: there is no such recipe.
        UsageError: a setting is unknown or its value is not a number.
    """
    base, _, text = name.removeprefix("lab:").partition("@")
    if base not in RECIPES:
        raise UnknownNameError(f"unknown lab model {base!r}: {nearest(base, RECIPES)}")
    return _with(RECIPES[base], text, name)


def model_folder(name: str) -> Path:
    """Where a lab model lies, or will lie once it is built.

    Raises:
        UsageError: the name means no lab model.
    """
    base = name.removeprefix("lab:").partition("@")[0]
    return cache_dir() / "lab" / f"{base}-{recipe(name).hash[:16]}"


def is_built(name: str) -> bool:
    """Whether a lab model lies in the cache.

    Raises:
        UsageError: the name means no lab model.
    """
    return (model_folder(name) / "model.safetensors").is_file()


def model_path(name: str, progress: bool = True) -> Path:
    """The folder of a lab model in Hugging Face format, built now where the cache does not hold it.

    Processes that ask for the same model at once wait for the one that builds it.

    Args:
        name: as for `recipe`; a leading `lab:` is allowed.
        progress: show a progress bar where there is a terminal.

    Raises:
        UsageError: the name means no lab model.
        DemurError: the cache cannot be written.
    """
    folder = model_folder(name)
    if is_built(name):
        return folder
    from filelock import FileLock, Timeout
    from safetensors import SafetensorError

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process to build {name} …", file=sys.stderr)
            lock.acquire()
        try:
            if not is_built(name):
                _build(name, folder, progress)
        finally:
            lock.release()
    except (OSError, SafetensorError) as error:
        raise DemurError(
            f"cannot write lab models to {folder.parent}: {getattr(error, 'strerror', None) or error}; "
            "set DEMUR_CACHE to a folder with space that you may write to"
        ) from error
    return folder


def _build(name: str, folder: Path, progress: bool) -> None:
    chosen = recipe(name)
    lm = chosen.train(name, progress)
    with atomic_directory(folder) as temporary:
        lm.save(temporary)
        write_json(temporary / "recipe.json", {"name": name, "hash": chosen.hash, "recipe": asdict(chosen)})  # type: ignore[call-overload]


def rows(name: str) -> datasets.Dataset:
    """Rows of a lab world by name.

    Args:
        name: `almanac:forget`, or any recipe and split; `almanac:forget-documents` gives the texts instead of the
            questions, `almanac:forget@world=1` or `almanac@world=1:forget` those of another world. A leading `lab:` is
            allowed.

    Returns:
        Columns as in `Almanac.questions`, `Almanac.documents`, `Charter.rows`, `Abacus.rows` or `Scenes.rows`.

    Raises:
        UsageError: the name means no lab rows.
    """
    import datasets

    model, colon, part = name.removeprefix("lab:").partition(":")
    split, _, text = part.partition("@")
    if not colon:
        raise UsageError(f"{name!r} names no split: write for instance {model}:forget")
    chosen = recipe(model)
    if not chosen.row_splits:
        raise UsageError(f"lab:{model} is a classifier and has no rows: its data are {', '.join(chosen.splits)}")
    if split not in chosen.row_splits:
        raise UnknownNameError(f"{model} has no split {split!r}: {nearest(split, chosen.row_splits)}")
    return datasets.Dataset.from_list(_with(chosen, text, name).rows(split))
