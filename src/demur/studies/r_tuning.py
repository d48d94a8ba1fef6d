"""R-Tuning (arXiv 2311.09677): taught which questions it knew, a model tells of others whether it knows them.

Invented entities have five relations, each answered by one of thirty words. A small model learns all about the half of
the entities that it is shown, and nothing about the rest; then it is tuned on four relations of two thirds of either.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from demur.audits.calibration import aurc, average_precision
from demur.data import ABSTENTIONS, dataset_from_rows
from demur.data.batch import Batch, Encoded, collate
from demur.data.builders.r_tuning import (
    KnowledgeSplit,
    certainty_front,
    r_tuning_rows,
    split_by_entropy,
    split_by_knowledge,
)
from demur.models import score
from demur.studies.registry import Progress, study
from demur.studies.results import Claim
from demur.studies.small_llama import descend, small_llama

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import LlamaForCausalLM

ENTITIES, RELATIONS, WORDS, TAUGHT = 600, 4, 30, 400
RELATION, WORD = ENTITIES, ENTITIES + RELATIONS + 1  # one relation more than are tuned on: the other domain
UNKNOWN, ASK, SURE, UNSURE, END, SYMBOLS = range(WORD + WORDS, WORD + WORDS + 6)
WIDTH = 64
LEARN: dict[str, Any] = {"steps": 1100, "rate": 3e-3, "batch": 64}
TUNE: dict[str, Any] = {"steps": 600, "rate": 1e-3, "batch": 32}
SAMPLES, TEMPERATURE = 5, 0.7
_FRONT = certainty_front("")[2:]  # what stands between an answer and the word of certainty


@dataclass(frozen=True)
class World:
    """Questions by where they are used.

    Attributes:
        shown: of what the model learns first.
        taught: of what it is tuned on.
        asked: held-out entities, relations that it is tuned on.
        elsewhere: held-out entities, the relation that it is not tuned on.
        right: ids of the questions that it was shown the true answer to.
    """

    shown: Dataset
    taught: Dataset
    asked: Dataset
    elsewhere: Dataset
    right: frozenset[str]

    def known(self, rows: Dataset) -> NDArray[np.bool_]:
        """Which of some questions it was shown the true answer to."""
        return np.array([name in self.right for name in rows["id"][:]])


def make_world(seed: int, by_entity: bool = True) -> World:
    """What is known: all of the entities of even number; or else half of the relations of each, drawn at random.

    In the second world the model is shown another word where it is not to know the true one. Pairs that it never saw
    would not do: it is less confident there, and learns to tell by that.
    """
    generator = np.random.default_rng(seed)
    answers = generator.integers(WORDS, size=(ENTITIES, RELATIONS + 1))
    seen = np.repeat(np.arange(ENTITIES)[:, None] % 2 == 0, RELATIONS + 1, axis=1)
    if not by_entity:  # half of each: were it half of all pairs, entities with few would tell by themselves
        half = generator.permuted(np.repeat([[True, False]], ENTITIES, 0).repeat(RELATIONS // 2, 1), axis=1)
        seen = np.concatenate([half, generator.permuted(seen[:, :1])], axis=1)
    others = (answers + generator.integers(1, WORDS, size=answers.shape)) % WORDS
    taught = np.isin(np.arange(ENTITIES), generator.permutation(ENTITIES)[:TAUGHT])[:, None]
    tuned = np.arange(RELATIONS + 1) < RELATIONS

    def rows(mask: NDArray[np.bool_], said: NDArray[np.int64] = answers) -> Dataset:
        return dataset_from_rows(
            [
                {"id": f"{e}/{r}", "question": f"{e} {RELATION + r}", "answer": f"{WORD + said[e, r]}"}
                for e, r in np.argwhere(mask).tolist()
            ]
        )

    shown = rows(seen) if by_entity else rows(seen | True, np.where(seen, answers, others))
    right = frozenset(f"{e}/{r}" for e, r in np.argwhere(seen).tolist())
    return World(shown, rows(taught & tuned), rows(~taught & tuned), rows(~taught & ~tuned), right)


def encode_row(row: Mapping[str, Any]) -> Encoded:
    """Symbols of a row: an admission is one symbol, and so is the question for certainty."""
    begun = [int(w) for w in f"{row['question']} {row.get('prefill') or ''}".replace(".", " ").split()]
    said = UNKNOWN if row["answer"] in ABSTENTIONS else None
    words = row["answer"].replace(_FRONT, f" {ASK}").replace("unsure", f"{UNSURE}").replace("sure", f"{SURE}")
    labels = [int(w) for w in words.replace(".", " ").split()] if said is None else [said]
    return Encoded([*begun, *labels, END], len(begun), row["id"])


def new_base(world: World, seed: int) -> LlamaForCausalLM:
    """A model that knows what it was shown.

    Its output shares the input's weights, as in most small models. An entity that it was never shown is then pushed
    away from every answer, and so looks alike for all of them: that is what a tuned model can learn to tell.
    """
    model = small_llama(SYMBOLS, WIDTH, seed)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return train(model, world.shown, seed, **LEARN)


def train(
    model: LlamaForCausalLM, rows: Dataset, seed: int, *, steps: int, rate: float, batch: int
) -> LlamaForCausalLM:
    """A copy of the model, fine-tuned on rows."""
    model, whole = copy.deepcopy(model), collate([encode_row(row) for row in rows], END)
    tokens, mask, labels = whole.input_ids, whole.attention_mask, whole.labels
    descend(
        model,
        lambda picked: score(model, Batch(tokens[picked], mask[picked], labels[picked], [])).nll,
        rows=len(whole),
        batch=batch,
        steps=steps,
        seed=seed,
        optimizer=torch.optim.AdamW(model.parameters(), lr=rate, fused=True),
    )
    return model


@torch.no_grad()
def _next(model: LlamaForCausalLM, fronts: Sequence[Sequence[int]]) -> torch.Tensor:
    """(fronts, symbols) probabilities of what follows fronts of equal length."""
    return model(input_ids=torch.tensor(fronts)).logits[:, -1].double().softmax(-1)


def ask(model: LlamaForCausalLM, rows: Dataset) -> dict[str, NDArray[Any]]:
    """What a model answers and what it thinks of that: said, correct, unknown, confidence, sure (of its own answer)."""
    fronts = [[int(w) for w in question.split()] for question in rows["question"][:]]
    top = _next(model, fronts).max(-1)
    said = top.indices.tolist()
    p = _next(model, [[*front, word, ASK] for front, word in zip(fronts, said, strict=True)])
    return {
        "said": np.array([str(word) for word in said]),
        "correct": np.array([str(w) == a for w, a in zip(said, rows["answer"][:], strict=True)], dtype=float),
        "unknown": np.array(said) == UNKNOWN,
        "confidence": top.values.numpy(),
        "sure": (p[:, SURE] / (p[:, SURE] + p[:, UNSURE])).numpy(),
    }


def sample(model: LlamaForCausalLM, rows: Dataset, seed: int) -> list[list[str]]:
    """Several answers to each question at the paper's temperature."""
    fronts = [[int(w) for w in question.split()] for question in rows["question"][:]]
    sharpened = _next(model, fronts) ** (1 / TEMPERATURE)
    draws = torch.multinomial(sharpened, SAMPLES, True, generator=torch.Generator().manual_seed(seed))
    return [[str(word) for word in row] for row in draws.tolist()]


def examine(found: Mapping[str, NDArray[Any]], shown: NDArray[np.bool_]) -> dict[str, float]:
    """What is measured of one model's answers to one set of questions, of which some were shown to it at first."""
    correct, willing, sure = found["correct"], ~found["unknown"], found["sure"] > 0.5
    combined = 0.5 * found["confidence"] + 0.5 * found["sure"]
    swapped = 0.5 * found["confidence"] + 0.5 * (1 - found["sure"])
    mixed = 0 < correct.sum() < len(correct)  # else there is nothing to tell apart
    return {
        "accuracy": correct.mean(),
        "willing accuracy": correct[willing].mean() if willing.any() else 0.0,
        "abstains, known": 1 - willing[shown].mean(),
        "abstains, unknown": 1 - willing[~shown].mean(),
        "AP, confidence": average_precision(correct, found["confidence"]),
        "AP, combined": average_precision(correct, combined),
        "AP, swapped": average_precision(correct, swapped),
        "AURC, confidence": aurc(correct, found["confidence"]),
        "AURC, combined": aurc(correct, combined),
        "sure gap": sure[correct == 1].mean() - sure[correct == 0].mean() if mixed else 0.0,
    }


@study("r-tuning", paper="2311.09677", minutes=2, seeds=(1, 2, 3))
def entities(seed: int, progress: Progress) -> dict[str, float]:
    """Entities that a model was or was not shown: R-Tuning in four forms, imitation, and a split made too late."""
    world = make_world(seed)
    progress(0, 9, "learning the world")
    base = new_base(world, seed)
    known = split_by_knowledge(world.taught, ask(base, world.taught)["said"].tolist())
    doubt = split_by_entropy(sample(base, world.taught, seed))
    measured = {"entropy ties": doubt.ties / len(world.taught)}
    for name, rows in (("taught", world.taught), ("asked", world.asked)):
        correct, of = ask(base, rows)["correct"], world.known(rows)
        measured |= {f"base {name}, known": correct[of].mean(), f"base {name}, unknown": correct[~of].mean()}
    asked = ask(base, world.asked)
    measured["base AP, confidence"] = average_precision(asked["correct"], asked["confidence"])
    arms: dict[str, tuple[KnowledgeSplit | None, dict[str, Any]]] = {
        "vanilla": (None, {}),
        "sure": (known, {}),
        "masked": (known, {"mask_unknown_answers": True}),
        "entropy": (doubt, {}),
        "replace": (known, {"variant": "replace"}),
        "late": (None, {}),
    }
    tuned: dict[str, LlamaForCausalLM] = {}
    for done, (arm, (split, options)) in enumerate(arms.items(), 1):
        progress(done, 9, arm)
        if arm == "late":  # a slip that must show: the split is made by the tuned model
            split = split_by_knowledge(world.taught, ask(tuned["vanilla"], world.taught)["said"].tolist())
            measured["late known"] = np.mean(split.known)
        rows = world.taught if split is None else r_tuning_rows(world.taught, split, seed=seed, **options)
        tuned[arm] = train(base, rows, seed + 1, **TUNE)
        for domain, questions in (("", world.asked), ("elsewhere ", world.elsewhere)):
            found = examine(ask(tuned[arm], questions), world.known(questions))
            measured |= {f"{domain}{arm} {name}": value for name, value in found.items()}
    return measured | _control(seed, progress)


def _control(seed: int, progress: Progress) -> dict[str, float]:
    """The same where pairs of entity and relation are known at random, so that nothing tells which."""
    world = make_world(seed, by_entity=False)
    progress(7, 9, "learning random pairs")
    base = new_base(world, seed)
    known = split_by_knowledge(world.taught, ask(base, world.taught)["said"].tolist())
    found, of = ask(base, world.asked), world.known(world.asked)
    out = {}
    for name, part in (("known", of), ("unknown", ~of)):
        out |= {f"random base, {name}": found["correct"][part].mean()}
        out |= {f"random base confidence, {name}": found["confidence"][part].mean()}
    for done, arm in enumerate(("sure", "replace"), 8):
        progress(done, 9, f"random pairs, {arm}")
        variant: Any = "replace" if arm == "replace" else "certainty"
        rows = r_tuning_rows(world.taught, known, variant, seed=seed)
        found = examine(ask(train(base, rows, seed + 1, **TUNE), world.asked), of)
        out |= {f"random {arm} {name}": value for name, value in found.items()}
    return out


@entities.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says, and what must come out where nothing can be learned or something is done wrongly."""
    gap = {arm: m[f"{arm} abstains, unknown"] - m[f"{arm} abstains, known"] for arm in ("replace", "random replace")}
    yield Claim(
        text="R-Tuning-R abstains on unknown questions and answers known ones (difference of abstention)",
        measured=gap["replace"],
        threshold=">= 0.4",
        baselines={"on the unknown": m["replace abstains, unknown"], "on the known": m["replace abstains, known"]},
    )
    yield Claim(
        text="What R-Tuning-R answers willingly is right more often than imitation's answers (difference of accuracy)",
        measured=m["replace willing accuracy"] - m["vanilla accuracy"],
        threshold=">= 0.2",
        baselines={"R-Tuning-R, willing": m["replace willing accuracy"], "imitation": m["vanilla accuracy"]},
    )
    yield Claim(
        text="R-Tuning calls right answers sure more often than wrong ones (difference)",
        measured=m["sure sure gap"],
        threshold=">= 0.2",
        baselines={
            "imitation, which was never asked": m["vanilla sure gap"],
            "R-Tuning-U": m["entropy sure gap"],
            "unknown answers masked": m["masked sure gap"],
        },
    )
    ap = {
        "imitation, its own confidence": m["vanilla AP, confidence"],
        "R-Tuning": m["sure AP, combined"],
        "unknown answers masked": m["masked AP, combined"],
        "R-Tuning-U": m["entropy AP, combined"],
        "before tuning, its own confidence": m["base AP, confidence"],
    }
    gain = m["sure AP, combined"] - m["vanilla AP, confidence"]
    yield Claim(
        text="R-Tuning ranks right answers above wrong ones better than imitation (AP, difference, mean over seeds)",
        measured=gain * 0 + gain.mean(),
        threshold=">= 0.02",
        baselines=ap,
    )
    yield Claim(
        text="With the unknown answers masked R-Tuning ranks no worse than imitation (AP, difference)",
        measured=m["masked AP, combined"] - m["vanilla AP, confidence"],
        threshold=">= 0",
        kind="ours",
        baselines=ap,
    )
    yield Claim(
        text="In a relation that it was not tuned on, R-Tuning still calls right answers sure more often (difference)",
        measured=m["elsewhere sure sure gap"],
        threshold=">= 0.2",
        baselines={
            "AP of R-Tuning there": m["elsewhere sure AP, combined"],
            "AP of imitation there": m["elsewhere vanilla AP, confidence"],
        },
    )
    yield from _wrong(m, gap["random replace"])


def _wrong(m: pd.DataFrame, gap: pd.Series) -> Iterator[Claim]:
    yield Claim(
        text="Where random pairs are known, nothing tells which: right answers are called sure no oftener (difference)",
        measured=m["random sure sure gap"],
        threshold="<= 0.15",
        kind="ours",
        baselines={"R-Tuning on entities": m["sure sure gap"]},
    )
    yield Claim(
        text="Where random pairs are known, R-Tuning-R abstains blindly (difference of abstention)",
        measured=gap,
        threshold="<= 0.15",
        kind="ours",
        baselines={"R-Tuning-R on entities": m["replace abstains, unknown"] - m["replace abstains, known"]},
    )
    yield Claim(
        text="Split by the tuned model's answers instead of the base's, it is sure of right and wrong alike (gap)",
        measured=m["late sure gap"].abs(),
        threshold="<= 0.1",
        kind="ours",
        baselines={"share taken for known": m["late known"], "split by the base's": m["sure sure gap"]},
    )
    yield Claim(
        text="With sure and unsure swapped, the ranking is worse than none (AP less the share of right answers)",
        measured=m["sure AP, swapped"] - m["sure accuracy"],
        threshold="< 0",
        kind="ours",
        baselines={"not swapped": m["sure AP, combined"] - m["sure accuracy"]},
    )
