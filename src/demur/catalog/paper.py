"""One record a paper, read from `papers.yaml` beside this file and checked when it is read."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

__all__ = ["Paper", "find_papers", "papers"]

Room = Literal[
    "data",
    "objectives",
    "training",
    "editing",
    "protect",
    "probes",
    "images",
    "text",
    "regret",
    "guards",
    "attacks",
    "audits",
]
EntryPoint = Annotated[str, Field(pattern=r"^(objective|command|python):\S+$")]

_WEIGHTS = {"slug": 6.0, "arxiv": 6.0, "title": 4.0, "entry_points": 3.0, "rooms": 2.0, "summary": 1.0}


class Paper(BaseModel):
    """One paper.

    Attributes:
        slug: the name used everywhere: file names (with `_`), studies, documentation.
        title: its title.
        arxiv: its arXiv id.
        year: the year of its first arXiv version.
        rooms: the rooms it lives in, the main one first.
        summary: one sentence: what it does.
        status: "built" or "planned".
        study: slug of the study that re-checks its claim; only when built.
        entry_points: what a user calls, as `objective:NAME`, `command:VERB` or `python:MODULE.NAME`; only when built.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slug: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str = Field(min_length=1)
    arxiv: str = Field(pattern=r"^\d{4}\.\d{4,5}$")
    year: int
    rooms: tuple[Room, ...] = Field(min_length=1)
    summary: str = Field(min_length=1)
    status: Literal["planned", "built"]
    study: str | None = None
    entry_points: tuple[EntryPoint, ...] = ()

    @model_validator(mode="after")
    def _built_means_usable(self) -> Paper:
        if self.status == "built" and not (self.study and self.entry_points):
            raise ValueError(f"{self.slug} is built, so it must name a study and its entry points")
        if self.status == "planned" and (self.study or self.entry_points):
            raise ValueError(f"{self.slug} is planned, so it can have neither a study nor entry points")
        return self

    @property
    def url(self) -> str:
        """Where the paper can be read."""
        return f"https://arxiv.org/abs/{self.arxiv}"


@cache
def _read() -> tuple[Paper, ...]:
    text = files("demur.catalog").joinpath("papers.yaml").read_text(encoding="utf-8")
    return tuple(TypeAdapter(list[Paper]).validate_python(yaml.safe_load(text)))


def papers() -> list[Paper]:
    """All papers, sorted by slug."""
    return list(_read())


def _relevance(paper: Paper, word: str) -> float:
    best = 0.0
    for field, weight in _WEIGHTS.items():
        value = getattr(paper, field)
        text = (value if isinstance(value, str) else " ".join(value)).casefold()
        if word in text:
            whole = word in text.replace(":", " ").replace("-", " ").split() or word == text
            best = max(best, weight * (2.0 if word == text else 1.5 if whole else 1.0))
    if word in (str(paper.year), paper.status):
        best = max(best, 2.0)
    return best


def find_papers(query: str = "") -> list[Paper]:
    """The papers in which every word of `query` occurs, best match first.

    All fields are searched without regard to case. A match counts more in the slug, the arXiv id and the title than in
    the entry points, the rooms and the summary, and more as a whole word than as part of one. An empty query finds all.
    """
    words = query.casefold().split()
    scored = [(paper, [_relevance(paper, word) for word in words]) for paper in papers()]
    found = [(sum(scores), paper) for paper, scores in scored if all(scores)]
    return [paper for _, paper in sorted(found, key=lambda pair: -pair[0])]
