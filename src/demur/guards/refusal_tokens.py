"""A model that says first whether it refuses, with a dial on how readily (arXiv 2412.06748).

The probability of the first token is read from one forward pass over the prompt; the dial decides which token is said;
the rest of the answer follows from it. The token itself is recorded and never shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from demur.data.batch import Batch, Encoded, collate
from demur.data.builders.refusal_tokens import RefusalTokenConfig
from demur.errors import UsageError
from demur.files import atomic_directory, write_json
from demur.guards.refusal_scores import OWN, RefusalDial, RefusalScores, choose_tokens
from demur.guards.registry import GUARD_FILE, guards, read_guard_file
from demur.models import Engine, Generation, LanguageModel, LocalEngine, ResponseScore, encode, encode_prompts
from demur.models.chat import picture_source
from demur.models.head import capture_hidden
from demur.models.scored import checked_head, forward_inputs, unwrapped
from demur.models.token_statistics import token_stats

if TYPE_CHECKING:
    from demur.data.rows import Prompt

__all__ = ["RefusalGeneration", "RefusalTokenGuard", "last_logits", "load_refusal_tokens", "token_ids"]

KIND = "refusal-tokens"
_FORMAT = 1


@dataclass(frozen=True)
class RefusalGeneration(Generation):
    """An answer with the token that it began with.

    Attributes:
        token: the first token; the answer's text does not show it.
        category: whose refusal it is; None where the token does not refuse.
        refusal: the refusal score: probability of the likeliest category's token.
    """

    token: str = ""
    category: str | None = None
    refusal: float = float("nan")


class RefusalTokenGuard:
    """An engine around a model that was taught refusal tokens.

    Prompts are stripped of the tokens, in every turn, so that nobody can put them there; so is every answer.

    Args:
        engine: a `LocalEngine` or a `LanguageModel`.
        config: the tokens; by default what `refusal_tokens.json` beside the model says.
        dial: how readily it refuses.

    Raises:
        UsageError: the engine's logits cannot be seen, the model has no refusal tokens, a token is not in its
            vocabulary, or the dial names a category without one.
    """

    def __init__(
        self,
        engine: Engine | LanguageModel,
        config: RefusalTokenConfig | None = None,
        dial: RefusalDial | None = None,
    ) -> None:
        engine = LocalEngine(engine) if isinstance(engine, LanguageModel) else engine
        if not isinstance(engine, LocalEngine):
            raise UsageError("refusal tokens are read from a model's logits: load the model on this machine")
        if config is None:
            if engine.lm.path is None:
                raise UsageError(f"{engine.lm.name} has no folder to read its refusal tokens from: pass config=")
            config = RefusalTokenConfig.load(engine.lm.path)
        self.engine, self.config = engine, config
        self._ids = token_ids(engine.lm, config)
        self.dial = dial or RefusalDial()
        self.dial.thresholds(config)

    @property
    def lm(self) -> LanguageModel:
        """The guarded model."""
        return self.engine.lm

    def refusal_scores(self, prompts: Sequence[Prompt], progress: Callable[[int], Any] | None = None) -> RefusalScores:
        """What the model would say first, from one forward pass over each prompt, at the dial's temperature.

        Args:
            prompts: texts or conversations.
            progress: called with the number of prompts done since the last call.
        """
        shown = [self.config.strip_prompt(prompt) for prompt in prompts]
        rows = [
            Encoded(ids, 0, pixels=picture_source(self.lm, prompt)[1])
            for ids, prompt in zip(encode_prompts(self.lm, shown), shown, strict=True)
        ]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))
        parts = []
        for start in range(0, len(rows), self.engine.batch_size):
            chosen = order[start : start + self.engine.batch_size]
            logits = last_logits(self.lm, collate([rows[i] for i in chosen], self.lm.pad_id, "left"))
            parts.append(RefusalScores.from_logits(self.config, self._ids, logits, self.dial.temperature))
            if progress is not None:
                progress(len(chosen))
        return _joined(parts, order, self.config, self.dial.temperature)

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

        Returns:
            A `RefusalGeneration` a prompt; its refusal token does not count among the new tokens.
        """
        scores = self.refusal_scores(prompts)
        chosen = choose_tokens(scores, self.dial)
        first = np.where(chosen == OWN, scores.other_ids, np.array(self._ids)[np.maximum(chosen, 0)])
        shown = [self.config.strip_prompt(prompt) for prompt in prompts]
        out: dict[int, Generation] = {}
        refusal = scores.refusal
        for marked in (True, False):
            rows = np.flatnonzero((chosen != OWN) == marked).tolist()
            if not rows:
                continue
            answers = self.engine.generate(
                [shown[i] for i in rows],
                max_new_tokens=max_new_tokens + marked,
                temperature=temperature,
                top_p=top_p,
                stop=stop,
                seed=seed,
                prefill=[[int(first[i])] for i in rows],
            )
            for i, answer in zip(rows, answers, strict=True):
                place = int(chosen[i])
                token = self.config.tokens[place] if marked else str(self.lm.tokenizer.decode([int(first[i])]))
                out[i] = RefusalGeneration(
                    self.config.strip(answer.text).strip(),
                    answer.token_ids,
                    answer.finish,
                    token=token,
                    category=self.config.categories[place - 1] if place > 0 else None,
                    refusal=float(refusal[i]),
                )
        return [out[i] for i in range(len(prompts))]

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """How likely each response is once the token that the dial gives its prompt has been said."""
        if len(prompts) != len(responses):
            raise UsageError(f"{len(prompts)} prompts but {len(responses)} responses")
        chosen = choose_tokens(self.refusal_scores(prompts), self.dial)
        shown = [self.config.strip_prompt(prompt) for prompt in prompts]
        before = ["" if place == OWN else self.config.tokens[place] for place in chosen]
        rows = encode(self.lm, shown, [token + text for token, text in zip(before, responses, strict=True)])
        rows = [replace(r, prompt_length=r.prompt_length + bool(t)) for r, t in zip(rows, before, strict=True)]
        stats = token_stats(self.lm, rows, moments=False, batch_size=self.engine.batch_size)
        return [ResponseScore(float(s.logps.sum()), len(s.logps)) for s in stats]

    def save(self, folder: str | Path) -> None:
        """Write the tokens and the dial, without the model, as a guard that `open_guard` opens."""
        with atomic_directory(folder) as inner:
            write_json(
                inner / GUARD_FILE,
                {
                    "kind": KIND,
                    "format": _FORMAT,
                    "model": {"name": self.lm.name, "template": self.lm.template},
                    "weights": self.lm.weights_hash(),
                    "tokens": self.config.as_json(),
                    "dial": self.dial.as_json(),
                },
            )


@guards.register(KIND, paper="2412.06748")
def load_refusal_tokens(folder: str | Path, engine: Engine | LanguageModel) -> RefusalTokenGuard:
    """A saved dial around an engine.

    Args:
        folder: what `RefusalTokenGuard.save` wrote.
        engine: a `LocalEngine` or a `LanguageModel` with the weights that the dial was set for.

    Raises:
        UsageError: the folder holds something else, or the model has other weights.
    """
    said = read_guard_file(folder)
    try:
        if said["kind"] != KIND or said["format"] != _FORMAT:
            raise UsageError(f"{folder} holds a guard of kind {said['kind']!r}, format {said['format']}: save it anew")
        config = RefusalTokenConfig.from_json(said["tokens"], str(folder))
        guard = RefusalTokenGuard(engine, config, RefusalDial(**said["dial"]))
        if guard.lm.weights_hash() != said["weights"]:
            raise UsageError(
                f"the dial in {folder} was set for other weights ({said['model']['name']}) than {guard.lm.name} has: "
                "calibrate it for this model"
            )
    except (KeyError, TypeError) as error:
        raise UsageError(f"{folder} holds no whole guard: {type(error).__name__}: {error}") from error
    return guard


def _joined(
    parts: Sequence[RefusalScores], order: Sequence[int], config: RefusalTokenConfig, temperature: float
) -> RefusalScores:
    """The scores of batches, back in the order of the prompts."""
    if not parts:
        none = np.zeros(0)
        return RefusalScores(config, np.zeros((0, len(config.tokens))), none, none.astype(np.int64), none, temperature)
    back = np.argsort(order)
    return RefusalScores(
        config,
        np.concatenate([part.logps for part in parts])[back],
        np.concatenate([part.others for part in parts])[back],
        np.concatenate([part.other_ids for part in parts])[back],
        np.concatenate([part.other_logps for part in parts])[back],
        temperature,
    )


def token_ids(lm: LanguageModel, config: RefusalTokenConfig) -> list[int]:
    """The ids of `config.tokens`.

    Raises:
        UsageError: a token is not one token of the model's vocabulary. Taking the last id of its pieces instead would
            be that of a bracket, which says nothing.
    """
    vocabulary = lm.tokenizer.get_vocab()
    missing = [token for token in config.tokens if token not in vocabulary]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in the vocabulary of {lm.name}: teach it "
            "with demur refuse MODEL --method refusal-tokens"
        )
    return [vocabulary[token] for token in config.tokens]


@torch.no_grad()
def last_logits(lm: LanguageModel, batch: Batch) -> torch.Tensor:
    """(batch, vocab) logits of the token that follows each sequence.

    Raises:
        UsageError: a sequence is padded on the right, where its last token is not in the last place.
    """
    if not bool(batch.attention_mask[:, -1].all()):
        raise UsageError("the batch is padded on the right, so that its last place is padding: collate it on the left")
    lm.model.eval()
    head, batch = checked_head(lm.model), batch.to(lm.device)
    with capture_hidden(unwrapped(lm.model)) as captured:
        lm.model(**forward_inputs(lm.model, batch), use_cache=False)
    return head.logits(captured[0][:, -1])
