"""What a guard remembers: the forget items, which of them a prompt is after, and how near words are to phrases."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.data import question_answer
from demur.guards.encoders import Encoder, TfidfEncoder, as_array, cosines, unit_rows
from demur.guards.phrases import normalise

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    from demur.data.rows import Prompt
    from demur.guards.restriction import Restriction

__all__ = ["ForgetItem", "Memory", "forget_items", "prompt_text", "word_penalty"]


@dataclass(frozen=True)
class ForgetItem:
    """A question and answer that the model is to act as if it had forgotten.

    Attributes:
        id: its name in the guard.
        question, answer: the pair.
        phrases: what an answer to a prompt about it must not say.
    """

    id: str
    question: str
    answer: str
    phrases: tuple[str, ...]


def prompt_text(prompt: Prompt) -> str:
    """What the user asks: the text, or a conversation's last user turn."""
    if isinstance(prompt, str):
        return prompt
    return next((m["content"] for m in reversed(prompt) if m["role"] == "user"), prompt[-1]["content"])


def forget_items(
    rows: Dataset | Iterable[tuple[str, str]],
    extractor: Callable[[str, str], Sequence[str]],
    taken: Collection[str] = (),
) -> list[ForgetItem]:
    """Items of rows with questions and answers, or of pairs of texts.

    Args:
        rows: their column `id`, where they have one, names the items; an id that is taken gives way to a number.
        extractor: question and answer → phrases.
        taken: ids that are in use.
    """
    from datasets import Dataset

    ids: Sequence[str | None]
    if isinstance(rows, Dataset):
        prompts, answers = question_answer(rows)
        questions = [prompt_text(p) for p in prompts]
        ids = [str(i) for i in rows["id"]] if "id" in rows.column_names else [None] * len(answers)
    else:
        pairs = list(rows)
        questions, answers = [question for question, _ in pairs], [answer for _, answer in pairs]
        ids = [None] * len(pairs)
    used, out = set(taken), []
    for name, question, answer in zip(ids, questions, answers, strict=True):
        if name is None or name in used:
            name = next(str(n) for n in itertools.count(len(used)) if str(n) not in used)
        used.add(name)
        phrases = dict.fromkeys(p for p in extractor(question, answer) if normalise(p))
        out.append(ForgetItem(name, question, answer, tuple(phrases)))
    return out


def word_penalty(cosine: NDArray[np.float32], threshold: float) -> NDArray[np.float64]:
    """P of words whose nearest forbidden phrase has this cosine: ∞ from `threshold` on, else the cosine, at least 0."""
    # Cosines are sums of float32: one that is 0.5 but for its last bits reaches a threshold of 0.5.
    return np.where(cosine >= threshold - 1e-6, np.inf, np.maximum(cosine, 0.0).astype(np.float64))


class Memory:
    """Vectors of the forget items, and of the words that beams come to.

    Args:
        encoder: text → vectors.
        keys: (items, d) unit rows, where they were computed before.

    Attributes:
        encoder: as given.
        keys: what prompts are compared with, one row an item; None before `remember`.

    Raises:
        UsageError: `encoder` gives vectors of another dimension than `keys` have.
    """

    def __init__(self, encoder: Encoder, keys: Any = None) -> None:
        self.encoder, self.keys = encoder, keys
        self._index: Any = None  # the keys by n-gram; to turn them round anew for every prompt takes far longer
        self._words: dict[str, NDArray[np.float32]] = {}
        self._phrases = functools.lru_cache(maxsize=1024)(self.vectors)
        if keys is not None:
            unit_rows(encoder(["a"]), keys.shape[1])

    def vectors(self, texts: Sequence[str]) -> Any:
        """(n, d) unit rows, sparse where the encoder's are.

        Raises:
            UsageError: the encoder gives something else than one vector a text, or another dimension than before.
        """
        if isinstance(self.encoder, TfidfEncoder):
            return self.encoder(texts)  # of unit length as it comes
        return unit_rows(self.encoder(list(texts)), None if self.keys is None else self.keys.shape[1], len(texts))

    def remember(self, texts: Sequence[str]) -> None:
        """Append the keys of new items."""
        new, self._index = self.vectors(texts), None
        if self.keys is None:
            self.keys = new
        elif hasattr(new, "toarray"):
            from scipy.sparse import vstack

            self.keys = vstack([self.keys, new], format="csr")
        else:
            self.keys = np.concatenate([self.keys, new])

    def keep(self, places: Sequence[int]) -> None:
        """Forget all items' keys but those at `places`."""
        self.keys, self._index = self.keys[list(places)], None

    def nearest(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The place of the closest item for each text, and its cosine."""
        if self._index is None:
            self._index = self.keys.T.tocsr() if hasattr(self.keys, "toarray") else self.keys.T
        similar = as_array(self.vectors(texts) @ self._index)
        best = similar.argmax(1)
        return best, similar[np.arange(len(best)), best]

    def word_costs(self, words: Sequence[str], phrases: tuple[str, ...], threshold: float) -> NDArray[np.float64]:
        """P_word = max_f cos(word, f) over the phrases f, ∞ from the threshold on."""
        if not phrases or not len(words):
            return np.zeros(len(words))
        return word_penalty(cosines(self._word_vectors(words), self._phrases(phrases)).max(1), threshold)

    def penalise(self, wanted: Sequence[tuple[Restriction, str]], threshold: float) -> None:
        """Fill in what words cost under restrictions; all words of a step are encoded at once."""
        words = {word: place for place, word in enumerate(dict.fromkeys(word for _, word in wanted))}
        vectors = self._word_vectors(list(words))
        by_restriction: dict[Restriction, list[str]] = {}
        for restriction, word in wanted:
            by_restriction.setdefault(restriction, []).append(word)
        for restriction, new in by_restriction.items():
            costs = np.zeros(len(new))
            if restriction.phrases:
                rows = vectors[[words[word] for word in new]]
                costs = word_penalty(cosines(rows, self._phrases(restriction.phrases)).max(1), threshold)
            restriction.penalties.update(zip(new, costs.tolist(), strict=True))

    def _word_vectors(self, words: Sequence[str]) -> Any:
        if hasattr(self.keys, "toarray"):  # character n-grams: as quick to compute as to look up
            return self.vectors(words)
        new = [word for word in words if word not in self._words]
        if new:
            self._words.update(zip(new, self.vectors(new), strict=True))
        return np.stack([self._words[word] for word in words])
