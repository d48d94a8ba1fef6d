"""The settings of a run that makes a classifier forget."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from demur.settings import Settings

__all__ = ["EditSettings"]


class EditSettings(Settings):
    """Settings of `demur forget --task image-classification` and `--task tabular`."""

    task: Literal["image-classification", "tabular"] = Field(description="what the classifier reads")
    model: str = Field(description="folder, hub name, lab model or package.module:function")
    data: str = Field(description="the rows that it was trained on")
    test: str | None = Field(None, description="rows that it was not trained on")
    target: str | None = Field(None, description="column of a table that holds the class")
    forget: str = Field(description="class:NAME, group:NUMBER, random:SHARE or rows:FILE")
    method: str = Field(description="how it is made to forget")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the method")
    seed: int = Field(0, ge=0, lt=2**32)
