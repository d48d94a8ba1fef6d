"""The checks of the removal battery: each measures one model and returns a table with one row a measurement.

Columns: attack (what was done), seed, lr, step (optimizer step, or layer), id (of the fact), knowledge (what the model
knew of it, in [0, 1]). Every table depends on the model, the rows and the settings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.attacks import (
    PROMPT_ATTACKS,
    answer_probability,
    direction_attack,
    leak_at_k,
    noised,
    prefill_attack,
    prompt_attack,
    pruned,
    quantization_attack,
    relearn_attack,
)
from demur.audits.membership import min_k
from demur.audits.removal_data import Fact, RemovalData, RemovalSettings
from demur.audits.rouge import rouge_scores
from demur.errors import UsageError
from demur.models import Engine, LanguageModel, LocalEngine, encode, encode_prompts, token_stats
from demur.probes import logit_lens, patch_states, probe_attack

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from demur.data import Encoded

__all__ = ["NeedsMore", "Subject", "measure"]

COLUMNS = ("attack", "seed", "lr", "step", "id", "knowledge")
Measured = Iterator[tuple[str, int, float, int, Sequence[str], "NDArray[np.float64]"]]


class NeedsMore(Exception):
    """A check cannot be made with what the audit has; the message says what is missing."""


@dataclass(frozen=True)
class Subject:
    """A model under the battery.

    Attributes:
        lm: the model, adapters merged.
        data: the rows.
        settings: the budget; `learning_rate` is set.
        before: the model before unlearning; None for that model itself.
        engine: what a user of the model talks to: the model, or a guard around it.
    """

    lm: LanguageModel
    data: RemovalData
    settings: RemovalSettings
    before: LanguageModel | None = None
    engine: Engine | None = None

    def encoded(self, facts: Sequence[Fact]) -> list[Encoded]:
        """The facts' questions with their true answers."""
        return encode(self.lm, [f.question for f in facts], [f.answer for f in facts], [f.id for f in facts])

    def kept(self) -> list[Encoded]:
        """The rows to keep.

        Raises:
            NeedsMore: there are none.
        """
        if not self.data.kept:
            raise NeedsMore("needs retain rows: pass --retain")
        questions, answers = zip(*self.data.kept, strict=True)
        return encode(self.lm, questions, answers, [f"kept {i}" for i in range(len(questions))])

    def asks(self) -> Engine:
        """What answers questions."""
        return self.engine if self.engine is not None else LocalEngine(self.lm)

    @property
    def seeds(self) -> range:
        """The attack seeds."""
        return range(self.settings.seeds)


def _rows(measured: Measured) -> pd.DataFrame:
    import pandas as pd

    parts = [
        pd.DataFrame({"attack": a, "seed": s, "lr": lr, "step": step, "id": list(ids), "knowledge": values})
        for a, s, lr, step, ids, values in measured
    ]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _ids(facts: Sequence[Fact]) -> list[str]:
    return [fact.id for fact in facts]


def _rouge(engine: Engine, asked: Sequence[Any], truths: Sequence[str], settings: RemovalSettings) -> Any:
    answers = engine.generate(list(asked), max_new_tokens=settings.max_new_tokens)
    return np.array([rouge_scores(t, a.text).rougeL_recall for t, a in zip(truths, answers, strict=True)])


def behaviour(s: Subject) -> Measured:
    """What the model shows of the facts, and of the rows to keep, when nobody attacks it."""
    facts, ids = s.data.facts, _ids(s.data.facts)
    truths = [f.answer for f in facts]
    yield "answer", 0, 0.0, 0, ids, answer_probability(s.lm, s.encoded(facts))
    yield "rouge", 0, 0.0, 0, ids, _rouge(s.asks(), [f.question for f in facts], truths, s.settings)
    if s.data.kept:
        questions, answers = zip(*s.data.kept, strict=True)
        names = [f"kept {i}" for i in range(len(questions))]
        yield "kept_answer", 0, 0.0, 0, names, answer_probability(s.lm, s.kept())
        yield "kept_rouge", 0, 0.0, 0, names, _rouge(s.asks(), questions, answers, s.settings)


def _relearning(s: Subject, name: str, pick: Callable[[int], Sequence[Encoded]]) -> Measured:
    rate = s.settings.learning_rate
    assert rate is not None
    facts, ids = s.encoded(s.data.measured), _ids(s.data.measured)
    for factor in s.settings.factors:
        for seed in s.seeds:
            curve = relearn_attack(
                s.lm,
                pick(seed),
                facts,
                learning_rate=rate * factor,
                steps=s.settings.steps,
                batch_size=s.settings.batch_size,
                seed=seed,
            )
            for step, values in curve.items():
                yield name, seed, rate * factor, step, ids, values


def relearn(s: Subject) -> Measured:
    """Fine-tune on one half of the facts, measure the other."""
    shown = s.encoded(s.data.shown)
    return _relearning(s, "relearn", lambda seed: shown)


def relearn_few(s: Subject) -> Measured:
    """The same with a few facts only, others for each seed."""
    shown = s.encoded(s.data.shown)
    return _relearning(s, "relearn_few", lambda seed: _some(shown, s.settings.few, seed))


def benign(s: Subject) -> Measured:
    """Fine-tune on rows that have nothing to do with the facts."""
    kept = s.kept()
    return _relearning(s, "benign", lambda seed: kept)


def _some(rows: Sequence[Encoded], count: int, seed: int) -> list[Encoded]:
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[i] for i in sorted(chosen)]


def quantization(s: Subject) -> Measured:
    """Round the weights."""
    found = quantization_attack(s.lm, s.encoded(s.data.facts), s.settings.bits)
    for bits, values in found.items():
        yield f"int{bits}", 0, 0.0, 0, _ids(s.data.facts), values


def noise(s: Subject) -> Measured:
    """Shake the weights, or cut the smallest."""
    facts, ids = s.encoded(s.data.facts), _ids(s.data.facts)
    for sigma in s.settings.noise:
        for seed in s.seeds:
            with noised(s.lm.model, sigma, seed):
                yield f"noise_{sigma:g}", seed, 0.0, 0, ids, answer_probability(s.lm, facts)
    for share in s.settings.prune:
        with pruned(s.lm.model, share):
            yield f"prune_{share:g}", 0, 0.0, 0, ids, answer_probability(s.lm, facts)


def direction(s: Subject) -> Measured:
    """Take the direction that sets withheld from answered prompts out of the states."""
    measured, shown = s.data.measured, s.data.shown
    questions = [f.question for f in shown]
    chosen = s.encoded(shown)
    kept = [question for question, _ in s.data.kept][: 2 * len(questions)]
    if not kept and s.before is None:
        raise NeedsMore("needs retain rows: pass --retain")
    ids = _ids(measured)
    if kept:
        values = direction_attack(s.lm, questions, kept, s.encoded(measured), choose_on=chosen)
        yield "direction", 0, 0.0, 0, ids, values
    if s.before is not None:
        values = direction_attack(s.lm, questions, (), s.encoded(measured), before=s.before, choose_on=chosen)
        yield "direction_before", 0, 0.0, 0, ids, values


def lens(s: Subject) -> Measured:
    """Read each layer through the output head."""
    shares = logit_lens(s.lm, s.encoded(s.data.facts), k=s.settings.lens_top)
    for layer in range(shares.shape[1]):
        yield "lens", 0, 0.0, layer, _ids(s.data.facts), shares[:, layer]


def probe(s: Subject) -> Measured:
    """Read an attribute of the entity off the states, with a probe trained on other entities."""
    facts = s.data.facts
    if not all(f.attribute for f in facts):
        raise NeedsMore("needs an attribute of the entities: pass --option attribute=COLUMN")
    for seed in s.seeds:
        questions, labels = [f.question for f in facts], [f.attribute for f in facts]
        try:
            told = probe_attack(s.lm, questions, labels, [f.entity for f in facts], seed=seed)
        except UsageError as reason:
            raise NeedsMore(str(reason)) from None
        for layer in range(told.shape[1]):
            yield "probe", seed, 0.0, layer, _ids(facts), told[:, layer]


def patching(s: Subject) -> Measured:
    """Put the states of the model before into this one layer by layer, and the reverse."""
    if s.before is None:
        raise NeedsMore("needs the model before unlearning")
    facts, ids = s.encoded(s.data.measured), _ids(s.data.measured)
    for name, source, target in (("patch_in", s.before, s.lm), ("patch_out", s.lm, s.before)):
        values = patch_states(source, target, facts)
        for layer in range(values.shape[1]):
            yield name, 0, 0.0, layer, ids, values[:, layer]


def prompts(s: Subject) -> Measured:
    """Ask in other ways."""
    ids = _ids(s.data.facts)
    given = {"few_shot": s.data.questions.siblings, "context": s.data.kept, "paraphrase": s.data.questions.paraphrases}
    for name in PROMPT_ATTACKS:
        if given.get(name, True):
            yield f"prompt_{name}", 0, 0.0, 0, ids, prompt_attack(s.lm, name, s.data.questions)
    for k, values in prefill_attack(s.lm, s.encoded(s.data.facts), s.settings.prefill).items():
        yield f"prefill_{k}", 0, 0.0, 0, ids, values


def asking(s: Subject) -> Measured:
    """Ask in other ways, as `prompts` does, and read what is answered: the only way in where a guard answers."""
    given = {"few_shot": s.data.questions.siblings, "context": s.data.kept, "paraphrase": s.data.questions.paraphrases}
    facts, engine = s.data.facts, s.asks()
    for name, (ask, opening) in PROMPT_ATTACKS.items():
        if opening or not given.get(name, True):  # nobody begins a guard's answers for it
            continue
        asked = [_fitting(s, ask(s.data.questions, i)) for i in range(len(facts))]
        places = [i for i, prompt in enumerate(asked) if prompt is not None]
        known = np.full(len(facts), np.nan)
        if places:
            truths = [facts[i].answer for i in places]
            known[places] = _rouge(engine, [asked[i] for i in places], truths, s.settings)
        yield f"asked_{name}", 0, 0.0, 0, _ids(facts), known


def _fitting(s: Subject, prompts: Sequence[Any]) -> Any:
    """The first prompt that leaves room for an answer; None where none does."""
    room = (s.lm.context or 2**31) - s.settings.max_new_tokens
    return next((p for p in prompts if len(encode_prompts(s.lm, [p])[0]) <= room), None)


def sampling(s: Subject) -> Measured:
    """Ask often, and keep the best answer."""
    facts = s.data.measured
    truths, asked = [f.answer for f in facts], [f.question for f in facts]
    counts = sorted({1, s.settings.samples, *(2**i for i in range(1, 20) if 2**i < s.settings.samples)})

    def told(row: int, text: str) -> float:
        return rouge_scores(truths[row], text).rougeL_recall

    for seed in s.seeds:
        found = leak_at_k(s.asks(), asked, told, k=counts, max_new_tokens=s.settings.max_new_tokens, seed=seed)
        for k, values in found.items():
            yield f"leak_{k}", seed, 0.0, 0, _ids(facts), values


def membership(s: Subject) -> Measured:
    """How familiar the facts look beside rows that nobody trained on (min-k; high is unfamiliar)."""
    if not s.data.unseen:
        raise NeedsMore("needs hold-out rows: pass --holdout")
    questions, answers = zip(*s.data.unseen, strict=True)
    others = encode(s.lm, questions, answers, [f"unseen {i}" for i in range(len(questions))])
    for name, rows in (("min_k", s.encoded(s.data.facts)), ("min_k_unseen", others)):
        stats = token_stats(s.lm, rows, moments=False)
        yield name, 0, 0.0, 0, [row.id for row in rows], np.array([min_k(answer.logps) for answer in stats])


_CHECKS: tuple[Callable[[Subject], Measured], ...] = (
    behaviour,
    relearn,
    relearn_few,
    benign,
    quantization,
    noise,
    direction,
    lens,
    probe,
    patching,
    prompts,
    asking,
    sampling,
    membership,
)


def measure(check: str, subject: Subject) -> pd.DataFrame:
    """Make one check.

    Args:
        check: its name.
        subject: the model, the rows and the budget.

    Returns:
        One row a measurement, with the columns of this module.

    Raises:
        NeedsMore: something that the check needs is missing.
    """
    return _rows({made.__name__: made for made in _CHECKS}[check](subject))
