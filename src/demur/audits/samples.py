"""What a suite's scoring pass found, and keeping it: on disk, and in the cache for the next audit of the same model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from demur.files import atomic_directory, cache_dir, hash_json, writable_cache, write_json

if TYPE_CHECKING:
    import pandas as pd

    from demur.models import LanguageModel

__all__ = ["Samples", "cached_pass"]


@dataclass(frozen=True)
class Samples:
    """What a scoring pass found, one table a data set.

    Attributes:
        tables: data set → table with one row a sample; what was not measured is absent.
        model: what the user calls the model.
        facts: where the numbers come from: hashes, settings, seconds.
    """

    tables: Mapping[str, pd.DataFrame]
    model: str = "model"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path) -> None:
        """Write one Parquet file a table and `facts.json`, all or nothing."""
        with atomic_directory(folder) as temporary:
            for name, table in self.tables.items():
                table.to_parquet(temporary / f"{name}.parquet", index=False)
            write_json(temporary / "facts.json", {"model": self.model, "tables": list(self.tables), **self.facts})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            OSError, ValueError, KeyError: the folder is not there, or holds something else.
        """
        import pandas as pd

        folder = Path(folder)
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in facts.pop("tables")}
        return cls(tables, facts.pop("model"), facts)


AnySamples = TypeVar("AnySamples", bound=Samples)


def cached_pass(
    kind: type[AnySamples], lm: LanguageModel, parts: Sequence[Any], measure: Callable[[], AnySamples]
) -> AnySamples:
    """A scoring pass, from the cache where the same weights met the same work before.

    Args:
        kind: class of the samples.
        lm: the model; its weights and its tokenizer are part of the key.
        parts: what else decides the numbers, as JSON: a version, the rows' hash, the settings.
        measure: makes the pass where the cache has none.
    """
    key = hash_json([*parts, lm.weights_hash(), _tokenizer_hash(lm)])
    folder = cache_dir() / "audits" / key
    found = _kept(kind, folder)
    if found is None:
        from filelock import FileLock

        writable_cache()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{key}.lock")):  # audits that run at once do not measure the same twice
            found = _kept(kind, folder)
            if found is None:
                found = measure()
                found.save(folder)
    return dataclasses.replace(found, model=lm.name)


def _kept(kind: type[AnySamples], folder: Path) -> AnySamples | None:
    try:
        return kind.load(folder)
    except (OSError, ValueError, KeyError):  # absent, or not what `save` writes: to be measured and replaced
        return None


def _tokenizer_hash(lm: LanguageModel) -> str:
    tokenizer: Any = lm.tokenizer
    inner = getattr(tokenizer, "backend_tokenizer", None)
    words = inner.to_str() if inner is not None else tokenizer.get_vocab()
    special = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    return hash_json([words, special, lm.template, tokenizer.chat_template])
