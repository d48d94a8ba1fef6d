"""Which prompts concern the forget set, and which of its items each is after: what fitting a guard gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.guards.classifier import Features, FitReport, PromptClassifier, Seen, fit_classifier
from demur.guards.detector import prompt_embeddings
from demur.guards.encoders import Encoder
from demur.guards.memory import ForgetItem, Memory, prompt_text
from demur.models import Engine, LocalEngine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data.rows import Prompt

__all__ = ["Eye", "FittedState"]


@dataclass(frozen=True)
class Eye:
    """What a guard looks at of a prompt.

    Attributes:
        engine: what it guards; only a `LocalEngine` shows hidden states.
        layer: decoder layer of the states.
        features: states, words, or both.
    """

    engine: Engine
    layer: int
    features: Features

    def states(self, prompts: Sequence[Prompt]) -> NDArray[np.float32] | None:
        """(n, hidden) mean hidden states; None where they are not looked at, or cannot be seen."""
        if self.features == "words" or not isinstance(self.engine, LocalEngine):
            return None
        return prompt_embeddings(self.engine.lm, prompts, self.layer, self.engine.batch_size)

    def words(self, memory: Memory, prompts: Sequence[Prompt]) -> Any:
        """(n, d) text vectors; None where they are not looked at."""
        return None if self.features == "state" else memory.vectors([prompt_text(p) for p in prompts])

    def see(self, memory: Memory, prompts: Sequence[Prompt]) -> Seen:
        """Both."""
        return Seen(self.states(prompts), self.words(memory, prompts))


@dataclass(frozen=True)
class FittedState:
    """Everything that fitting gave, besides the settings.

    Attributes:
        items: the forget set.
        memory: the encoder and the items' keys.
        classifier: of prompts.
        features: what the classifier was fitted on, under `forget` and `negatives`.
    """

    items: list[ForgetItem]
    memory: Memory
    classifier: PromptClassifier
    features: dict[str, Seen]

    @classmethod
    def fit(
        cls,
        eye: Eye,
        items: list[ForgetItem],
        encoder: Encoder,
        negatives: Sequence[Prompt],
        *,
        key: str,
        seed: int,
        progress: Callable[[int, int], Any] | None = None,
    ) -> tuple[FittedState, FitReport]:
        """Remember the items by their `key`, and fit a classifier of their questions and other prompts.

        Raises:
            UsageError: there are no negatives, or the encoder does not give one vector a text.
        """
        memory = Memory(encoder)
        memory.remember([getattr(item, key) for item in items])
        features = {
            "forget": eye.see(memory, [item.question for item in items]),
            "negatives": eye.see(memory, negatives),
        }
        classifier, report = fit_classifier(features["forget"], features["negatives"], seed, progress)
        return cls(items, memory, classifier, features), report

    def refitted(self, items: list[ForgetItem], forget: Seen, seed: int) -> FittedState:
        """The same memory with a classifier of other items' questions."""
        classifier, _ = fit_classifier(forget, self.features["negatives"], seed)
        return FittedState(items, self.memory, classifier, {**self.features, "forget": forget})

    def probabilities(self, eye: Eye, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """(n,) probability that each prompt concerns the forget set."""
        return self.classifier.probabilities(eye.see(self.memory, prompts)) if len(prompts) else np.zeros(0)

    def flagged(self, eye: Eye, prompts: Sequence[Prompt], threshold: float) -> NDArray[np.bool_]:
        """(n,) whether each prompt's probability reaches a threshold.

        The model reads only those prompts that its state could decide: where the words say so much that it could not,
        the verdict is theirs.
        """
        if not len(prompts):
            return np.zeros(0, bool)
        words = eye.words(self.memory, prompts)
        low, high = (np.broadcast_to(bound, len(prompts)) for bound in self.classifier.bounds(words))
        out = low >= threshold
        open_ = np.flatnonzero((low < threshold) & (high >= threshold))
        if len(open_):
            seen = Seen(eye.states([prompts[i] for i in open_.tolist()]), None if words is None else words[open_])
            out[open_] = self.classifier.probabilities(seen) >= threshold
        return out
