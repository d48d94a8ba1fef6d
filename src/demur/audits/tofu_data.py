"""What goes into a TOFU audit and what comes out of its scoring pass."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from demur.audits.membership import ATTACKS
from demur.audits.samples import Samples
from demur.errors import UsageError
from demur.files import hash_json
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["DEFAULT_ATTACKS", "TABLES", "Compat", "TofuData", "TofuSamples", "TofuSettings"]

TABLES = ("forget", "retain", "real_authors", "world_facts", "holdout")
"""The data sets of a TOFU audit."""

DEFAULT_ATTACKS = tuple(a for a in ATTACKS if a != "gradnorm")
"""All attacks that cost nothing beyond the scoring pass."""

Compat = Literal["open-unlearning"]
QuestionKey = Literal["question", "paraphrased_question"]


@dataclass(frozen=True)
class TofuData:
    """The rows of a TOFU audit.

    Attributes:
        forget: what was to be forgotten; columns question, answer, and for the truth ratio paraphrased_answer and
            perturbed_answer (a list).
        retain: what was to be kept; the same columns.
        real_authors, world_facts: questions about the world; columns question, answer, perturbed_answer.
        holdout: rows like the forget rows that the model has never seen; columns question, answer.
    """

    forget: Dataset
    retain: Dataset | None = None
    real_authors: Dataset | None = None
    world_facts: Dataset | None = None
    holdout: Dataset | None = None

    @classmethod
    def read(cls, **sources: str | Path | None) -> TofuData:
        """Read the sets from files, folders or hub names; a set whose source is None is left out.

        Raises:
            UsageError: the forget set is missing, a name is unknown, or a set is empty or lacks a column.
        """
        from demur.data import read_rows

        for name in sources:
            if name not in TABLES:
                raise UsageError(f"a TOFU audit has no set {name!r}: {nearest(name, TABLES)}")
        if sources.get("forget") is None:
            raise UsageError("a TOFU audit needs the forget rows: pass --forget")
        return cls(
            **{
                name: read_rows(source, required=("question", "answer"))
                for name, source in sources.items()
                if source is not None
            }
        )

    @property
    def sets(self) -> dict[str, Dataset]:
        """The sets that are there, by name, in the order of `TABLES`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def hash(self) -> str:
        """SHA-256 (hex) over what the rows say and what they are called."""
        from demur.data import rows_hash

        return hash_json({name: [rows_hash(rows), list(rows["id"])] for name, rows in self.sets.items()})


@dataclass(frozen=True)
class TofuSettings:
    """How a TOFU audit measures.

    Attributes:
        compat: "open-unlearning" repeats that code's tokenisation, attention mask and scores to the letter; None
            measures what the definitions say.
        generation: answer the questions, for ROUGE.
        max_new_tokens: longest answer.
        attacks: membership attacks, of `membership.ATTACKS`.
        k: share of tokens that min-k and min-k++ look at.
        question_key: which question the forget and retain rows are asked.
        batch_size: answers in one forward pass; no score depends on it.
        system_prompt, date_string: compat only: what open-unlearning's model configuration puts into the chat template
            (for Llama 3: "You are a helpful assistant." and "10 Apr 2025").

    Raises:
        UsageError: a setting is unknown or out of range.
    """

    compat: Compat | None = None
    generation: bool = True
    max_new_tokens: int = 200
    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    k: float = 0.4
    question_key: QuestionKey = "question"
    batch_size: int = 32
    system_prompt: str | None = None
    date_string: str | None = None

    def __post_init__(self) -> None:
        if self.compat not in (None, "open-unlearning"):
            raise UsageError(f"unknown compatibility {self.compat!r}: the only one is 'open-unlearning'")
        for attack in self.attacks:
            if attack not in ATTACKS:
                raise UsageError(f"unknown membership attack {attack!r}: {nearest(attack, ATTACKS)}")
        if self.question_key not in ("question", "paraphrased_question"):
            raise UsageError(f"question_key must be 'question' or 'paraphrased_question', not {self.question_key!r}")
        if not 0.0 < self.k <= 1.0 or self.max_new_tokens < 1 or self.batch_size < 1:
            raise UsageError("an audit needs 0 < k <= 1, max_new_tokens >= 1 and batch_size >= 1")
        if self.compat is None and (self.system_prompt or self.date_string):
            raise UsageError("system_prompt and date_string belong to compat='open-unlearning'")

    @property
    def suite(self) -> str:
        """The suite's name in results."""
        return "tofu" if self.compat is None else f"tofu-{self.compat}"


class TofuSamples(Samples):
    """What the scoring pass found, one table a data set.

    The tables have the columns id, prompt, truth, generation, probability, probability_normalised, loss,
    paraphrased_loss, perturbed_losses, truth_ratio, truth_share, exact_memorization, extraction_strength,
    rouge1_recall, rougeL_recall, rougeL_f1, tokens, and on the forget and hold-out rows mia_zlib, mia_min_k,
    mia_min_k_plus_plus, mia_gradnorm.
    """
