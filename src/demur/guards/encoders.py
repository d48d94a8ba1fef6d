"""Text as vectors, for finding the forget item that a prompt is after and for comparing words with phrases.

An encoder is any callable from a list of n texts to n vectors, (n, d) as an array or a sparse matrix; for instance
`SentenceTransformer(...).encode`. Nothing is downloaded here: the default is TF-IDF over character n-grams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.models import LanguageModel

__all__ = ["Encoder", "MeanEmbedding", "TfidfEncoder", "as_array", "choose_encoder", "cosines", "unit_rows"]

Encoder = Callable[[list[str]], Any]

_FEATURES = 16_384


class TfidfEncoder:
    """TF-IDF over the character n-grams (3 to 5) of words, as scikit-learn computes it; unit length, sparse.

    Args:
        texts: what n-grams and their document frequencies are taken from; the most frequent 16,384 are kept.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        vectorizer = _vectorizer().fit(list(texts))
        self._set(vectorizer.vocabulary_, vectorizer.idf_)

    @classmethod
    def restore(cls, vocabulary: Sequence[str], idf: NDArray[np.float32]) -> TfidfEncoder:
        """The encoder with these n-grams, in the order of its columns, and their inverse document frequencies."""
        encoder = cls.__new__(cls)
        encoder._set({gram: column for column, gram in enumerate(vocabulary)}, idf)
        return encoder

    def _set(self, vocabulary: Mapping[str, int], idf: NDArray[np.float32]) -> None:
        # Scikit-learn's own transform takes longer to begin than a word takes to encode.
        self._analyze = _vectorizer().build_analyzer()
        self._columns = dict(vocabulary)
        self.idf = np.asarray(idf, dtype=np.float32)

    @property
    def vocabulary(self) -> list[str]:
        """The n-grams in the order of the columns."""
        return sorted(self._columns, key=self._columns.__getitem__)

    def __call__(self, texts: Sequence[str]) -> Any:
        """(n, d) sparse rows of unit length; a text without any known n-gram is all zeros."""
        from scipy.sparse import csr_matrix

        columns: list[int] = []
        values: list[NDArray[np.float32]] = []
        ends = [0]
        for text in texts:
            counts: dict[int, int] = {}
            for gram in self._analyze(text):
                column = self._columns.get(gram)
                if column is not None:
                    counts[column] = counts.get(column, 0) + 1
            row = self.idf[list(counts)] * np.fromiter(counts.values(), np.float32, len(counts))
            values.append(row / (np.linalg.norm(row) or 1.0))
            columns += counts
            ends.append(len(columns))
        data = np.concatenate(values) if values else np.zeros(0, np.float32)
        return csr_matrix((data, columns, ends), shape=(len(texts), len(self.idf)))


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), max_features=_FEATURES, dtype=np.float32)


class MeanEmbedding:
    """The mean of a language model's own input embeddings over a text's tokens.

    Args:
        lm: whose embeddings and tokenizer.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, hidden) means; a text without tokens is all zeros."""
        table = self._lm.model.get_input_embeddings().weight.detach()  # type: ignore[operator]
        ids = self._lm.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False).input_ids
        rows = [table[row].float().mean(0) if row else table.new_zeros(table.shape[1]).float() for row in ids]
        return np.stack([row.cpu().numpy() for row in rows])


def choose_encoder(
    choice: Encoder | Literal["embeddings"] | None, texts: Sequence[str], lm: LanguageModel | None
) -> Encoder:
    """An encoder by what was asked for.

    Args:
        choice: one of the caller's own, "embeddings" for the model's, None for TF-IDF.
        texts: what TF-IDF is fitted on.
        lm: the model; None where there is none on this machine.

    Raises:
        UsageError: the choice is none of these, or "embeddings" without a model.
    """
    if choice is None:
        return TfidfEncoder(texts)
    if not isinstance(choice, str):
        return choice
    if choice != "embeddings" or lm is None:
        raise UsageError(
            f"encoder={choice!r} cannot be used here: pass a callable, None, or 'embeddings' for a model on this "
            "machine"
        )
    return MeanEmbedding(lm)


def unit_rows(vectors: Any, dimension: int | None = None, count: int | None = None) -> Any:
    """An encoder's output as float32 rows of unit length, sparse where it was sparse; zero rows stay zero.

    Args:
        vectors: (n, d) what the encoder gave: an array, a tensor or a sparse matrix.
        dimension: what d must be; None for any.
        count: what n must be; None for any.

    Raises:
        UsageError: it is no table of numbers, or n or d is another.
    """
    from scipy.sparse import csr_matrix, issparse
    from sklearn.preprocessing import normalize

    rows = csr_matrix(vectors) if issparse(vectors) else np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or (count is not None and rows.shape[0] != count):
        raise UsageError(f"the encoder must give one vector a text, (n, d); it gave shape {tuple(rows.shape)}")
    if dimension is not None and rows.shape[1] != dimension:
        raise UsageError(
            f"the encoder gives vectors of dimension {rows.shape[1]}, the guard's forget items have {dimension}: "
            "use the encoder that the guard was fitted with"
        )
    return normalize(rows)


def cosines(first: Any, second: Any) -> NDArray[np.float32]:
    """(n, m) cosines between two sets of unit rows, each dense or sparse."""
    return as_array(first @ second.T)


def as_array(rows: Any) -> NDArray[np.float32]:
    """A table of numbers, sparse or not, as an array."""
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float32)
