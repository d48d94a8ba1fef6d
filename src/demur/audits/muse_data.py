"""What goes into a MUSE audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from demur.audits.membership import ATTACKS
from demur.audits.tofu_data import DEFAULT_ATTACKS
from demur.errors import UsageError
from demur.files import hash_json
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["AUC_RETRAIN", "KNOWMEM", "PRIVLEAK", "TABLES", "VERBMEM", "MuseData", "MuseSettings"]

KNOWMEM = ("forget_knowmem", "retain_knowmem")
VERBMEM = ("forget_verbmem", "retain_verbmem", "holdout_verbmem")
PRIVLEAK = ("forget", "holdout")
TABLES = (*KNOWMEM, *(f"{name}_icl" for name in KNOWMEM), *VERBMEM, *PRIVLEAK)
"""The data sets of a MUSE audit: questions with their in-context examples, beginnings of texts, and whole texts."""

AUC_RETRAIN = {"News": 1 - 0.4772, "Books": 1 - 0.5393}
"""The min-k AUC of MUSE's own retrained models, 1 where every forget text is recognised; MUSE counts from the other
end."""

Compat = Literal["open-unlearning", "muse_bench"]
_SUITES = {None: "muse", "open-unlearning": "muse-open-unlearning", "muse_bench": "muse-bench"}


@dataclass(frozen=True)
class MuseData:
    """The rows of a MUSE audit.

    Attributes:
        sets: name of `TABLES` → rows: question and answer in `…_knowmem` and `…_knowmem_icl`, prompt and gt in
            `…_verbmem`, text in `forget` and `holdout`.
    """

    sets: Mapping[str, Dataset]

    @classmethod
    def read(cls, **sources: str | Path | None) -> MuseData:
        """Read the sets from files, folders or hub names; a set whose source is None is left out.

        A set of beginnings may also be given as whole texts; half of each then is what the model is prompted with.

        Raises:
            UsageError: a name is unknown, nothing is to be measured, or a set is empty or lacks a column.
        """
        from demur.data import completion_rows, is_text, read_rows

        found: dict[str, Dataset] = {}
        for name, source in sources.items():
            if name not in TABLES:
                raise UsageError(f"a MUSE audit has no set {name!r}: {nearest(name, TABLES)}")
            if source is None:
                continue
            if name in VERBMEM:
                rows = read_rows(source)
                found[name] = completion_rows(rows) if is_text(rows) else read_rows(source, required=("prompt", "gt"))
            else:
                found[name] = read_rows(source, required=("text",) if name in PRIVLEAK else ("question", "answer"))
        if not {*found} - {f"{name}_icl" for name in KNOWMEM}:
            raise UsageError("a MUSE audit needs rows to measure on: pass --forget muse:News:raw:forget, or --rows")
        return cls({name: found[name] for name in TABLES if name in found})

    def hash(self) -> str:
        """SHA-256 (hex) over what the rows say and what they are called."""
        from demur.data import rows_hash

        return hash_json({name: [rows_hash(rows), list(rows["id"])] for name, rows in self.sets.items()})


@dataclass(frozen=True)
class MuseSettings:
    """How a MUSE audit measures.

    Attributes:
        compat: "open-unlearning" or "muse_bench" (MUSE's own code) to repeat that code to the letter; None measures
            what the definitions say.
        generation: let the model answer and go on with texts, for ROUGE.
        knowmem_tokens, verbmem_tokens: longest answer, and longest continuation.
        max_length: texts are cut to this many tokens, prompts apart.
        attacks: membership attacks, of `membership.ATTACKS`.
        k: share of tokens that min-k and min-k++ look at.
        reference_auc: what privacy leakage is measured against where there is no reference model; .5 by default, in
            muse_bench's flavour the constant of its corpus.
        batch_size: texts in one forward pass; no score depends on it.
        system_prompt, date_string: open-unlearning only: what its model configuration puts into the chat template.

    Raises:
        UsageError: a setting is unknown or out of range.
    """

    compat: Compat | None = None
    generation: bool = True
    knowmem_tokens: int = 32
    verbmem_tokens: int = 128
    max_length: int = 2048
    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    k: float = 0.4
    reference_auc: float | None = None
    batch_size: int = 32
    system_prompt: str | None = None
    date_string: str | None = None

    def __post_init__(self) -> None:
        if self.compat not in _SUITES:
            raise UsageError(
                f"unknown compatibility {self.compat!r}: {nearest(str(self.compat), filter(None, _SUITES))}"
            )
        for attack in self.attacks:
            if attack not in ATTACKS:
                raise UsageError(f"unknown membership attack {attack!r}: {nearest(attack, ATTACKS)}")
        counts = (self.knowmem_tokens, self.verbmem_tokens, self.max_length, self.batch_size)
        if not 0.0 < self.k <= 1.0 or min(counts) < 1:
            raise UsageError("a MUSE audit needs 0 < k <= 1, and token counts and batch_size of at least 1")
        if self.reference_auc is not None and not 0.0 <= self.reference_auc < 1.0:
            raise UsageError(f"reference_auc is an AUC of at least 0 and below 1, not {self.reference_auc}")
        if self.compat != "open-unlearning" and (self.system_prompt or self.date_string):
            raise UsageError("system_prompt and date_string belong to compat='open-unlearning'")

    @property
    def suite(self) -> str:
        """The suite's name in results."""
        return _SUITES[self.compat]
