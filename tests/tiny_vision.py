"""A tiny random vision-language model that reads the scenes, for tests of what wraps such a model."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from demur.lab import SceneRecipe, new_vision_model
from demur.models import LanguageModel

RECIPE = replace(SceneRecipe(), width=16, heads=2, layers=2)


def tiny_vision(seed: int = 0) -> LanguageModel:
    """The same weights at each call."""
    lm = new_vision_model(replace(RECIPE, seed=seed), "tiny vision")
    lm.model.eval()
    return lm


@cache
def tiny_vision_folder(holder: Path) -> Path:
    """The same as a model folder inside `holder`."""
    folder = holder / "tiny-vision"
    if not folder.is_dir():
        tiny_vision().save(folder)
    return folder
