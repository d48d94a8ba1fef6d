"""GUARD: a model answers as if it had forgotten, with its weights as they are (arXiv 2505.13312).

A small classifier decides from a prompt's words and hidden state whether it concerns the forget set. If so, the closest
forget item is looked up, its key phrases become forbidden, and the answer is the best that a beam search finds without
them. All other prompts get the model's ordinary answer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from demur.errors import UsageError
from demur.guards.answer_text import answer_as_text
from demur.guards.beam_search import Dropped, Found, beam_search
from demur.guards.classifier import Features, FitReport
from demur.guards.encoders import Encoder, choose_encoder
from demur.guards.memory import ForgetItem, forget_items, prompt_text
from demur.guards.phrases import find_phrase, key_phrases
from demur.guards.recogniser import Eye, FittedState
from demur.guards.restriction import Pieces, Restriction, last_word, token_trie, words_of
from demur.models import Engine, Generation, LanguageModel, LocalEngine, ResponseScore, encode_prompts

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    from demur.data.rows import Prompt

__all__ = ["Explanation", "Guard"]

REFUSAL = "I'm sorry, I can't help with that."


@dataclass(frozen=True)
class Explanation:
    """What the guard makes of one prompt.

    Attributes:
        probability: that the prompt concerns the forget set.
        flagged: whether that reaches the threshold.
        item: the forget item that lies closest, whether flagged or not.
        similarity: cosine of prompt and item.
        answer: what the guard answers.
        dropped: continuations that were not allowed; empty for a prompt that is not flagged, and on an engine whose
            tokens cannot be seen.
    """

    probability: float
    flagged: bool
    item: ForgetItem
    similarity: float
    answer: Generation
    dropped: tuple[Dropped, ...]


class Guard:
    """An engine that answers for another one, and keeps back what its forget set says.

    On a `LocalEngine` the method is the paper's, but that prompts are also classified by their words. On any other
    engine, whose hidden states and logits cannot be seen, they are classified by their words alone, and answers are
    read as text: one that says a forbidden phrase, or a word too near to one, is asked for again, and refused at last.

    Args:
        engine: what to guard; a `LanguageModel` is wrapped in a `LocalEngine`.
        forget: rows with questions and answers, or pairs of texts; kept at run time and in the saved guard.
        encoder: text → vectors; None fits TF-IDF over character n-grams, "embeddings" takes the mean of the model's
            input embeddings, any callable is used as it is.
        extractor: question and answer → the phrases that must not be said.
        beam_width: beams a prompt.
        hard_threshold: match ratio in the trie at which a continuation is dropped; 1 drops what completes a phrase,
            less drops beginnings too, more drops nothing.
        soft_threshold: cosine between a word and a phrase at which the word is dropped; below it the cosine is
            taken off the log-probability.
        prompt_threshold: probability from which a prompt is flagged.
        features: what prompts are classified by: "state", the model's own, is the paper's; "words" is the encoder's
            vector; "both" weighs the two by what they say of prompts that they were not fitted on.
        layer: decoder layer of the state; -2 is transformers' `hidden_states[-2]`.
        key: what of a forget item the prompt is compared with: "question", or "answer" as in the paper.
        on_dead_end: where no continuation is allowed: "eos" ends the answer where it stands, "refuse" and any other
            text answer with a refusal or that text instead. Never the unguarded answer.
        resamples: on engines other than a `LocalEngine`, how often an answer is asked for again.
        seed: of the classifier.

    Raises:
        UsageError: the forget set is empty, or a setting is out of range.
    """

    def __init__(
        self,
        engine: Engine | LanguageModel,
        forget: Dataset | Iterable[tuple[str, str]],
        *,
        encoder: Encoder | Literal["embeddings"] | None = None,
        extractor: Callable[[str, str], Sequence[str]] = key_phrases,
        beam_width: int = 7,
        hard_threshold: float = 1.0,
        soft_threshold: float = 0.5,
        prompt_threshold: float = 0.5,
        features: Features = "both",
        layer: int = -2,
        key: Literal["question", "answer"] = "question",
        on_dead_end: str = "eos",
        resamples: int = 8,
        seed: int = 0,
    ) -> None:
        _check_settings(beam_width, hard_threshold, soft_threshold, key, features, resamples)
        self.engine: Engine = LocalEngine(engine) if isinstance(engine, LanguageModel) else engine
        if features == "state" and self.lm is None:
            raise UsageError("features='state' needs a model on this machine: other engines show no hidden states")
        self._extractor, self._encoder_choice = extractor, encoder
        self.beam_width, self.hard_threshold, self.soft_threshold = beam_width, hard_threshold, soft_threshold
        self.prompt_threshold, self.features, self.layer, self.key = prompt_threshold, features, layer, key
        self.on_dead_end, self.resamples, self.seed = on_dead_end, resamples, seed
        self._items = forget_items(forget, extractor)
        if not self._items:
            raise UsageError("the forget set is empty: there is nothing to guard")
        self._state: FittedState | None = None
        self._restriction = functools.lru_cache(maxsize=1024)(self._restrict)

    @property
    def items(self) -> list[ForgetItem]:
        """The forget set, with the phrases that each item forbids."""
        return list(self._items)

    @property
    def lm(self) -> LanguageModel | None:
        """The guarded model, where its hidden states and logits can be seen."""
        return self.engine.lm if isinstance(self.engine, LocalEngine) else None

    def fit(self, negatives: Iterable[Prompt], progress: Callable[[int, int], Any] | None = None) -> FitReport:
        """Fit the classifier, and the default encoder on the texts of both kinds.

        Args:
            negatives: prompts that are to get the ordinary answer: of the retain set, and general ones.
            progress: called with epochs done and epochs in all.

        Raises:
            UsageError: there are no negatives, or the encoder does not give one vector a text.
        """
        asked = list(negatives)
        texts = [text for item in self._items for text in (item.question, item.answer)]
        encoder = choose_encoder(self._encoder_choice, [*texts, *(prompt_text(p) for p in asked)], self.lm)
        state, report = FittedState.fit(
            self._eye, self._items, encoder, asked, key=self.key, seed=self.seed, progress=progress
        )
        self.restore(state)
        return report

    def classify(self, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """(n,) probability that each prompt concerns the forget set.

        Raises:
            UsageError: the guard is not fitted.
        """
        return self.state().probabilities(self._eye, prompts)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Generation]:
        """Answer each prompt; see `Engine.generate`.

        Prompts that are not flagged get the guarded engine's own answer. Flagged ones get the best answer of a beam
        search: on a `LocalEngine` temperature and top_p do not concern them.

        Raises:
            UsageError: the guard is not fitted, or as the guarded engine does.
        """
        flagged = self.state().flagged(self._eye, prompts, self.prompt_threshold)
        options: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed}
        options |= {"max_new_tokens": max_new_tokens, "stop": stop}
        out: list[Generation | None] = [None] * len(prompts)
        plain, held = np.flatnonzero(~flagged).tolist(), np.flatnonzero(flagged).tolist()
        if plain or not len(prompts):
            for i, answer in zip(plain, self.engine.generate([prompts[i] for i in plain], **options), strict=True):
                out[i] = answer
        if held:
            asked = [prompts[i] for i in held]
            found, _ = self.state().memory.nearest([prompt_text(p) for p in asked])
            for i, answer in zip(held, self._answer(asked, [self._items[k].id for k in found], options), strict=True):
                out[i] = answer
        return [answer for answer in out if answer is not None]

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """The guarded engine's own scores: the weights are as they were, and so are all likelihoods."""
        return self.engine.score(prompts, responses)

    def explain(self, prompt: Prompt, max_new_tokens: int = 200) -> Explanation:
        """What the guard makes of a prompt, and what it keeps back.

        Raises:
            UsageError: the guard is not fitted.
        """
        p = float(self.classify([prompt])[0])
        found, similar = self.state().memory.nearest([prompt_text(prompt)])
        item, dropped = self._items[found[0]], list[Dropped]()
        options: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "seed": 0}
        options |= {"max_new_tokens": max_new_tokens, "stop": ()}
        flagged = p >= self.prompt_threshold
        if flagged:
            (answer,) = self._answer([prompt], [item.id], options, dropped)
        else:
            (answer,) = self.engine.generate([prompt], **options)
        return Explanation(p, flagged, item, float(similar[0]), answer, tuple(dropped))

    def add(self, pairs: Dataset | Iterable[tuple[str, str]]) -> list[str]:
        """Guard more pairs; the model is left alone, and a fitted classifier is fitted again.

        Args:
            pairs: rows with questions and answers, or pairs of texts.

        Returns:
            The new items' ids.

        Raises:
            UsageError: the encoder's vectors have another dimension than before.
        """
        new = forget_items(pairs, self._extractor, taken={item.id for item in self._items})
        self._items += new
        if self._state is not None and new:
            memory, features = self._state.memory, self._state.features
            memory.remember([getattr(item, self.key) for item in new])
            seen = self._eye.see(memory, [item.question for item in new])
            self.restore(self._state.refitted(self._items, features["forget"].joined(seen), self.seed))
        return [item.id for item in new]

    def remove(self, ids: Iterable[str]) -> None:
        """Guard some items no longer; the model is left alone, and a fitted classifier is fitted again.

        Raises:
            UsageError: an id is unknown, or nothing would be left to guard.
        """
        gone = {str(i) for i in ids}
        unknown = gone - {item.id for item in self._items}
        if unknown:
            raise UsageError(f"the guard has no forget item {sorted(unknown)[0]!r}")
        kept = [k for k, item in enumerate(self._items) if item.id not in gone]
        if not kept:
            raise UsageError("the forget set would be empty: use the model without a guard")
        self._items = [self._items[k] for k in kept]
        if self._state is not None:
            self._state.memory.keep(kept)
            self.restore(self._state.refitted(self._items, self._state.features["forget"].at(kept), self.seed))

    def save(self, folder: str | Path) -> None:
        """Write the fitted guard, its forget set included, without the model: JSON and safetensors, no pickle.

        Raises:
            UsageError: the guard is not fitted.
        """
        from demur.guards.saving import save_guard

        save_guard(self, folder)

    @classmethod
    def load(cls, folder: str | Path, engine: Engine | LanguageModel, encoder: Encoder | None = None) -> Guard:
        """A saved guard.

        Args:
            folder: what `save` wrote.
            engine: what it is to guard; a model must have the weights that the guard was fitted on.
            encoder: the encoder it was fitted with, where that was one of the caller's own.

        Raises:
            UsageError: the folder holds no guard, it belongs to another model, or an encoder is missing or another.
        """
        from demur.guards.saving import load_guard

        return load_guard(folder, engine, encoder)

    def state(self) -> FittedState:
        """What fitting gave.

        Raises:
            UsageError: the guard is not fitted.
        """
        if self._state is None:
            raise UsageError("the guard is not fitted: call fit(negatives) with prompts that it is to let through")
        return self._state

    def restore(self, state: FittedState) -> None:
        """Take the place of a guard that was fitted before."""
        self._items, self._state = list(state.items), state
        self._restriction.cache_clear()

    def matcher(self, phrases: Sequence[str]) -> Restriction:
        """What forbids `phrases` while an answer is decoded.

        Raises:
            UsageError: the engine's tokens cannot be seen.
        """
        if self.lm is None:
            raise UsageError("a matcher needs a model on this machine: other engines' answers are read as text")
        trie = token_trie(self.lm.tokenizer, phrases)
        return Restriction(phrases, trie, self.pieces, self.lm.tokenizer, self.hard_threshold)

    @property
    def _eye(self) -> Eye:
        return Eye(self.engine, self.layer, self.features)

    @functools.cached_property
    def pieces(self) -> Pieces:
        """The model's tokens as text."""
        assert self.lm is not None
        return Pieces(self.lm.tokenizer, self.lm.model.get_output_embeddings().weight.shape[0])

    def _restrict(self, item: str) -> Restriction:
        (phrases,) = (known.phrases for known in self._items if known.id == item)
        return self.matcher(phrases)

    def _answer(
        self,
        prompts: Sequence[Prompt],
        items: Sequence[str],
        options: Mapping[str, Any],
        dropped: list[Dropped] | None = None,
    ) -> list[Generation]:
        """Guarded answers to flagged prompts, each kept from saying what its item forbids."""
        engine, memory = self.engine, self.state().memory
        if not isinstance(engine, LocalEngine):
            by_id = {item.id: item.phrases for item in self._items}
            forbidden = [functools.partial(self._says, by_id[item]) for item in items]
            return answer_as_text(engine, prompts, forbidden, self._refusal, self.resamples, options)
        encoded = encode_prompts(engine.lm, prompts)
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        out: dict[int, Generation] = {}
        for start in range(0, len(order), engine.batch_size):
            chosen = order[start : start + engine.batch_size]
            restrictions = [self._restriction(items[i]) for i in chosen]
            found = beam_search(
                engine.lm,
                [encoded[i] for i in chosen],
                restrictions,
                width=self.beam_width,
                max_new_tokens=options["max_new_tokens"],
                word_penalties=lambda wanted: memory.penalise(wanted, self.soft_threshold),
                stop=options["stop"],
                dropped=dropped,
            )
            for i, best, restriction in zip(chosen, found, restrictions, strict=True):
                out[i] = self._generation(best, restriction, options["stop"])
        return [out[i] for i in range(len(encoded))]

    def _generation(self, found: Found, restriction: Restriction, stop: Sequence[str]) -> Generation:
        assert self.lm is not None
        text, tokens = str(self.lm.tokenizer.decode(list(found.tokens), skip_special_tokens=True)), found.tokens
        if found.finish == "length":
            return Generation(text.strip(), tokens, "length")
        if found.finish == "dead end":
            if self.on_dead_end != "eos":
                text, tokens = self._refusal, ()
            elif restriction.leak(text) is not None or self._says(restriction.phrases, last_word(text)):
                text, tokens = text[: len(text) - len(last_word(text))], ()
            return Generation("" if restriction.leak(text) is not None else text.strip(), tokens, "stop")
        cuts = [text.index(s) for s in stop if s in text]
        return Generation(text[: min(cuts, default=len(text))].strip(), tokens, "stop")

    @property
    def _refusal(self) -> str:
        return REFUSAL if self.on_dead_end in ("eos", "refuse") else self.on_dead_end

    def _says(self, phrases: tuple[str, ...], text: str) -> bool:
        """Whether a text says a forbidden phrase, or a word too near to one."""
        if self.hard_threshold <= 1 and find_phrase(phrases, text) is not None:
            return True
        words = list(dict.fromkeys(words_of(text)))
        return bool(np.isinf(self.state().memory.word_costs(words, phrases, self.soft_threshold)).any())


def _check_settings(width: int, hard: float, soft: float, key: str, features: str, resamples: int) -> None:
    if width < 1:
        raise UsageError(f"beam_width must be at least 1, not {width}")
    if hard <= 0 or soft <= 0:
        raise UsageError(f"hard_threshold and soft_threshold must be above 0, not {hard} and {soft}")
    if key not in ("question", "answer"):
        raise UsageError(f"key must be 'question' or 'answer', not {key!r}")
    if features not in ("both", "state", "words"):
        raise UsageError(f"features must be 'both', 'state' or 'words', not {features!r}")
    if resamples < 0:
        raise UsageError(f"resamples must not be negative, it is {resamples}")
