"""What a model with refusal tokens would say first, and the dial that decides what it does say (arXiv 2412.06748).

Everything here is arithmetic on one forward pass: thresholds, temperatures of a pass, biases and whole curves are tried
without asking the model again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.data.builders.refusal_tokens import RefusalTokenConfig
from demur.errors import UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["COMPARE", "OWN", "RefusalDial", "RefusalScores", "choose_tokens"]

COMPARE = -1.0
"""The threshold that compares: refuse where the refusal token is at least as likely as that of an answer."""

OWN = -1
"""What `choose_tokens` gives where the model's own likeliest token stands and is none of the refusal tokens."""


@dataclass(frozen=True)
class RefusalDial:
    """How readily a model refuses.

    Attributes:
        threshold: probability from which a refusal token is said: one for all categories, or category → threshold, and
            categories that are left out are not meddled with. -1 compares with the token of an answer instead.
        temperature: of the softmax that makes the probabilities; it changes what a threshold means.
        logit_bias: category (or "respond") → what is added to its token's logit before the softmax.

    Raises:
        UsageError: a threshold is neither -1 nor a number from 0, the temperature is not above 0, or a bias is not
            finite.
    """

    threshold: float | Mapping[str, float] = COMPARE
    temperature: float = 1.0
    logit_bias: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in self.threshold.values() if isinstance(self.threshold, Mapping) else [self.threshold]:
            if not (_is_number(value) and (value == COMPARE or 0 <= value < math.inf)):
                raise UsageError(f"a refusal threshold must be -1 (compare) or a number from 0, not {value!r}")
        if not _is_number(self.temperature) or not 0 < self.temperature < math.inf:
            raise UsageError(f"the temperature of refusal scores must be above 0, not {self.temperature!r}")
        for name, bias in self.logit_bias.items():
            if not _is_number(bias) or not math.isfinite(bias):
                raise UsageError(f"the logit bias of {name!r} must be a finite number, not {bias!r}")

    def thresholds(self, config: RefusalTokenConfig) -> NDArray[np.float64]:
        """(categories,) the threshold of each, nan where it is not meddled with.

        Raises:
            UsageError: the dial names a category that the model has no token for.
        """
        by_name = self.threshold if isinstance(self.threshold, Mapping) else {}
        for name in (*by_name, *(n for n in self.logit_bias if n != "respond")):
            if name not in config.refuse:
                raise UsageError(f"no refusal token for category {name!r}: {nearest(name, config.categories)}")
        if not isinstance(self.threshold, Mapping):
            return np.full(len(config.categories), float(self.threshold))
        return np.array([by_name.get(name, math.nan) for name in config.categories], dtype=np.float64)

    def as_json(self) -> dict[str, Any]:
        """As it is written into a guard's folder."""
        threshold = dict(self.threshold) if isinstance(self.threshold, Mapping) else self.threshold
        return {"threshold": threshold, "temperature": self.temperature, "logit_bias": dict(self.logit_bias)}


@dataclass(frozen=True)
class RefusalScores:
    """The first token's distribution after each of n prompts, as far as refusing is concerned.

    Attributes:
        config: the tokens.
        logps: (n, 1 + categories) log-probabilities of `config.tokens` in the softmax over the whole vocabulary.
        others: (n,) log-probability of all other tokens together.
        other_ids, other_logps: (n,) the likeliest of these, and its log-probability.
        temperature: of the softmax.
    """

    config: RefusalTokenConfig
    logps: NDArray[np.float64]
    others: NDArray[np.float64]
    other_ids: NDArray[np.int64]
    other_logps: NDArray[np.float64]
    temperature: float = 1.0

    @classmethod
    def from_logits(
        cls, config: RefusalTokenConfig, ids: Sequence[int], logits: Tensor, temperature: float = 1.0
    ) -> RefusalScores:
        """From next-token logits.

        Args:
            config: the tokens.
            ids: their ids, in the order of `config.tokens`.
            logits: (n, vocab) after the prompts.
            temperature: what they are divided by.
        """
        import torch

        own = torch.tensor(list(ids), device=logits.device)
        scaled = logits.double() / temperature
        total = scaled.logsumexp(1, keepdim=True)
        logps = scaled[:, own] - total
        rest = scaled.index_fill(1, own, -math.inf)
        highest, place = rest.max(1)
        others = rest.logsumexp(1) - total[:, 0]
        log_highest = highest - total[:, 0]
        found = [part.cpu().numpy() for part in (logps, others, place, log_highest)]
        return cls(config, found[0], found[1], found[2], found[3], temperature)

    def __len__(self) -> int:
        return len(self.logps)

    @property
    def respond(self) -> NDArray[np.float64]:
        """(n,) probability of the token of an answer."""
        return np.asarray(np.exp(self.logps[:, 0]))

    @property
    def refuse(self) -> NDArray[np.float64]:
        """(n, categories) probability of each category's token."""
        return np.asarray(np.exp(self.logps[:, 1:]))

    @property
    def top(self) -> NDArray[np.intp]:
        """(n,) number of the likeliest category."""
        return np.asarray(self.logps[:, 1:].argmax(1))

    @property
    def refusal(self) -> NDArray[np.float64]:
        """(n,) the refusal score: probability of the likeliest category's token."""
        return np.asarray(np.exp(self.logps[:, 1:].max(1)))

    def biased(self, bias: Mapping[str, float]) -> RefusalScores:
        """The same had these numbers been added to the tokens' logits before the softmax."""
        if not any(bias.values()):
            return self
        shift = np.array([bias.get(name, 0.0) for name in ("respond", *self.config.categories)]) / self.temperature
        moved = self.logps + shift
        total = np.logaddexp.reduce(np.column_stack([moved, self.others]), axis=1)
        return replace(
            self, logps=moved - total[:, None], others=self.others - total, other_logps=self.other_logps - total
        )

    def take(self, rows: Any) -> RefusalScores:
        """The scores of some rows, by number or by mask."""
        parts = {name: getattr(self, name)[rows] for name in ("logps", "others", "other_ids", "other_logps")}
        return replace(self, **parts)


def choose_tokens(scores: RefusalScores, dial: RefusalDial) -> NDArray[np.int64]:
    """Which token is said first.

    With c* the likeliest category: where the dial controls it, c* is said if p[c*] ≥ T (for T = -1 if p[c*] is at least
    p[respond]) and the token of an answer otherwise; where it does not, the model's own likeliest token of all.

    Args:
        scores: from a pass at the dial's temperature.
        dial: thresholds and biases.

    Returns:
        (n,) places in `config.tokens`: 0 for an answer, 1 + c for category c; `OWN` for some other token.

    Raises:
        UsageError: the scores are of another temperature, or the dial names an unknown category.
    """
    if scores.temperature != dial.temperature:
        raise UsageError(
            f"these scores were made at temperature {scores.temperature:g} and the dial is for {dial.temperature:g}: "
            "score the prompts again"
        )
    thresholds = dial.thresholds(scores.config)
    scores = scores.biased(dial.logit_bias)
    top, wanted = scores.top, thresholds[scores.top]
    refusing = np.where(wanted == COMPARE, scores.logps[:, 1:].max(1) >= scores.logps[:, 0], scores.refusal >= wanted)
    own = np.where(scores.logps.max(1) >= scores.other_logps, scores.logps.argmax(1), OWN)
    return np.where(np.isnan(wanted), own, np.where(refusing, 1 + top, 0)).astype(np.int64)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
