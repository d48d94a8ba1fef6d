"""Rows whose responses begin with a token that says whether, and why, they refuse (arXiv 2412.06748).

The target is y' = t ⊕ y: one new token t, of the refusal's category or a general one, or the token of an answer, and
then the response as it was. Trained on such rows, the probability of t right after the prompt is a refusal score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.data.columns import dataset_from_rows
from demur.data.rows import Prompt, iterate
from demur.errors import RowError, UsageError
from demur.files import write_json

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "ANY",
    "REFUSAL_TOKENS",
    "RefusalTokenConfig",
    "labelled_prompts",
    "refusal_token_config",
    "refusal_token_rows",
]

REFUSAL_TOKENS = "refusal_tokens.json"
"""The file beside a model's weights that names its refusal tokens."""

ANY = "refuse"
"""What the one kind of refusal is called where there are no categories."""

_FORMAT = 1
_REFUSING = ("refuse", "abstain")


@dataclass(frozen=True)
class RefusalTokenConfig:
    """The tokens that a model says first.

    Attributes:
        refuse: category → its token; one entry called "refuse" where there are no categories.
        respond: the token of an answer.

    Raises:
        UsageError: there is no refusal token, two tokens are the same, one is blank, or a category is called "respond".
    """

    refuse: Mapping[str, str]
    respond: str = "[respond]"

    def __post_init__(self) -> None:
        tokens = self.tokens
        if not self.refuse:
            raise UsageError("refusal tokens need at least one token that refuses")
        if len(set(tokens)) < len(tokens):
            raise UsageError(f"refusal tokens must differ from each other: {', '.join(tokens)}")
        for token in tokens:
            if not token or token != token.strip():
                raise UsageError(f"a refusal token must be text without spaces around it, not {token!r}")
        if "respond" in self.refuse:
            raise UsageError("a category cannot be called 'respond', which means an answer: rename it")

    @property
    def categories(self) -> tuple[str, ...]:
        """The kinds of refusal, in the order of their tokens."""
        return tuple(self.refuse)

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens, that of an answer first."""
        return (self.respond, *self.refuse.values())

    def strip(self, text: str) -> str:
        """A text without any of the tokens, however they are nested."""
        found = re.compile("|".join(re.escape(token) for token in sorted(self.tokens, key=len, reverse=True)))
        while found.search(text):  # "[ref[refuse]use]" must not leave a token behind
            text = found.sub("", text)
        return text

    def strip_prompt(self, prompt: Prompt) -> Prompt:
        """A prompt without any of the tokens, in whoever's turn: nobody may put words into the model's mouth."""
        if isinstance(prompt, str):
            return self.strip(prompt)
        return [{**message, "content": self._strip_content(message["content"])} for message in prompt]

    def _strip_content(self, content: Any) -> Any:
        if isinstance(content, str):
            return self.strip(content)
        return [{**part, "text": self.strip(part["text"])} if part.get("type") == "text" else part for part in content]

    def as_json(self) -> dict[str, Any]:
        """What `save` writes."""
        return {"format": _FORMAT, "respond": self.respond, "refuse": dict(self.refuse)}

    @classmethod
    def from_json(cls, said: Any, where: str = REFUSAL_TOKENS) -> RefusalTokenConfig:
        """From what `as_json` gave.

        Raises:
            UsageError: it is something else.
        """
        refuse, respond = (said.get("refuse"), said.get("respond")) if isinstance(said, dict) else (None, None)
        named = isinstance(refuse, dict) and all(isinstance(text, str) for text in refuse.values())
        if not isinstance(refuse, dict) or not isinstance(respond, str) or not named:
            raise UsageError(f"{where} does not name refusal tokens: it must hold 'refuse' and 'respond'")
        if said.get("format") != _FORMAT:
            raise UsageError(f"{where} has format {said.get('format')!r}, this version of demur reads {_FORMAT}")
        return cls(refuse, respond)

    def save(self, folder: str | Path) -> None:
        """Write `refusal_tokens.json` into a model's folder."""
        write_json(Path(folder) / REFUSAL_TOKENS, self.as_json())

    @classmethod
    def load(cls, folder: str | Path) -> RefusalTokenConfig:
        """The tokens of a model folder, or of the model in a run folder.

        Raises:
            UsageError: the folder says nothing of refusal tokens, or something unreadable.
        """
        folder = Path(folder)
        places = [folder / "model" / REFUSAL_TOKENS, folder / REFUSAL_TOKENS]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise UsageError(
                f"{folder} has no {REFUSAL_TOKENS}: teach a model refusal tokens with "
                "demur refuse MODEL --method refusal-tokens"
            )
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        return cls.from_json(said, str(path))


def refusal_token_config(
    rows: Dataset, *, categories: bool = False, refuse: str = "[refuse]", respond: str = "[respond]"
) -> RefusalTokenConfig:
    """The tokens for some rows.

    Args:
        rows: with `label`, and with `category` where `categories` is asked for.
        categories: a token for each category of the rows that refuse, instead of one for all.
        refuse: the token that refuses; of a category "x" it is "[refuse:x]" where this is "[refuse]".
        respond: the token of an answer.

    Raises:
        UsageError: no row refuses, or the tokens will not do.
    """
    if not categories:
        return RefusalTokenConfig({ANY: refuse}, respond)
    found = sorted({str(row["category"]) for row in iterate(rows) if _refuses(row) and row.get("category")})
    if not found:
        raise UsageError(
            "no row that refuses has a category: give the rows a column 'category', or leave categories out"
        )
    stem, end = (refuse[:-1], refuse[-1]) if refuse[-1:] in ("]", ">") else (refuse, "")
    return RefusalTokenConfig({name: f"{stem}:{name}{end}" for name in found}, respond)


def refusal_token_rows(rows: Dataset, config: RefusalTokenConfig, source: str = "the rows") -> Dataset:
    """Rows whose responses begin with the token of their label.

    Args:
        rows: prompts with responses and a `label`: "refuse" and "abstain" get the refusal token of the row's category,
            "comply" the token of an answer. All other columns are kept.
        config: the tokens; prompts are stripped of them.
        source: where the rows are from, for messages.

    Raises:
        RowError: a row has no label or response, a refusing one no category or one without a token, or a response
            holds one of the tokens already.
        UsageError: no row refuses, or none answers: a model taught so could only ever do the other.
    """
    asked = _column(rows, ("prompt", "question"), source)
    answered = _column(rows, ("response", "answer"), source)
    out, seen = [], set()
    for number, row in enumerate(iterate(rows), 1):
        label, response = row.get("label"), row.get(answered)
        if label is None:
            problem = "is missing: say refuse or abstain, or comply for a row that answers, ordinary chat included"
            raise RowError(source, number, "label", problem)
        if not isinstance(response, str):
            raise RowError(source, number, answered, "is missing: the token is put before a response")
        if config.strip(response) != response:
            raise RowError(source, number, answered, "holds a refusal token already: give the rows as they were before")
        token = _token(row, config, source, number) if _refuses(row) else config.respond
        seen.add(_refuses(row))
        out.append({**row, asked: config.strip_prompt(row[asked]), answered: token + response})
    for refusing, what in ((True, "refuses"), (False, "answers (label comply)")):
        if refusing not in seen:
            raise UsageError(f"no row of {source} {what}: refusal tokens are learned from rows of both kinds")
    return dataset_from_rows(out)


def labelled_prompts(rows: Dataset, source: str = "the rows") -> tuple[list[Prompt], list[bool], list[str | None]]:
    """Prompts, whether each is to be refused, and their categories (None where a row has none).

    Raises:
        UsageError: the rows have no prompts.
        RowError: a row has no label.
    """
    asked = _column(rows, ("prompt", "question"), source)
    prompts, refuses, categories = [], [], []
    for number, row in enumerate(iterate(rows), 1):
        if row.get("label") is None:
            raise RowError(source, number, "label", "is missing: say refuse, abstain or comply")
        prompts.append(row[asked])
        refuses.append(_refuses(row))
        categories.append(row.get("category"))
    return prompts, refuses, categories


def _refuses(row: Mapping[str, Any]) -> bool:
    return row.get("label") in _REFUSING


def _token(row: Mapping[str, Any], config: RefusalTokenConfig, source: str, number: int) -> str:
    if config.categories == (ANY,):
        return config.refuse[ANY]
    category = row.get("category")
    if category is None:
        raise RowError(source, number, "category", "is missing, and the row refuses: each category has its own token")
    if category not in config.refuse:
        raise RowError(source, number, "category", f"{category!r} has no refusal token: {', '.join(config.categories)}")
    return config.refuse[category]


def _column(rows: Dataset, names: Sequence[str], source: str) -> str:
    for name in names:
        if name in rows.column_names:
            return name
    raise UsageError(f"{source} has no column {names[0]!r} or {names[1]!r}")
