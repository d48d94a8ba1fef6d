"""GUARD (arXiv 2505.13312): a guarded model does not tell what it is to forget, and answers all else as ever.

A small language model learned eight TOFU authors; the guard keeps back what it learned of two. Nothing is trained but
the guard's classifier. The sentence encoder is TF-IDF over character n-grams, as none is downloaded here.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from demur.guards import Guard, PhraseTrie, Restriction, find_phrase
from demur.guards.classifier import Features
from demur.guards.restriction import token_trie
from demur.models import LanguageModel, LocalEngine, encode_prompts, load_model
from demur.studies.authors import NEVER, UNLEARN, Authors, authors
from demur.studies.registry import NotMeasured, Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 80  # tokens of an answer
GENERAL = 280  # questions about retained authors that the small model never learned, as general negatives
REFUSAL = "I'm not able to answer that."
SEES: tuple[Features, ...] = ("both", "state", "words")


class FirstTokens(Guard):
    """With the ratio divided by itself: a phrase's first token counts as the whole phrase, and is dropped."""

    def matcher(self, phrases: Sequence[str]) -> Restriction:
        ids = self._tokens(phrases)
        return self._restricted(phrases, PhraseTrie([tokens[:1] for tokens in ids]))

    def _tokens(self, phrases: Sequence[str]) -> list[list[int]]:
        assert self.lm is not None
        texts = [form for phrase in phrases for form in (f" {phrase}", phrase)]
        return self.lm.tokenizer(texts, add_special_tokens=False).input_ids if texts else []

    def _restricted(self, phrases: Sequence[str], trie: PhraseTrie[int]) -> Restriction:
        assert self.lm is not None
        return Restriction(phrases, trie, self.pieces, self.lm.tokenizer, self.hard_threshold, check_text=False)


class NoSpaces(FirstTokens):
    """With phrases in the trie as they are written, without a space before them, and no look at the text."""

    def matcher(self, phrases: Sequence[str]) -> Restriction:
        assert self.lm is not None
        return self._restricted(phrases, token_trie(self.lm.tokenizer, phrases, lambda phrase: [phrase]))


class TrieAlone(Guard):
    """With no word penalties, so that the trie's threshold decides alone."""

    def matcher(self, phrases: Sequence[str]) -> Restriction:
        assert self.lm is not None
        return Restriction(
            (), token_trie(self.lm.tokenizer, phrases), self.pieces, self.lm.tokenizer, self.hard_threshold
        )


def spans(question: str, answer: str) -> list[str]:
    """Every run of five words of an answer: phrases long enough for the match ratio to matter."""
    words = answer.split()
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def recall(truths: Sequence[str], answers: Sequence[str]) -> float:
    """Mean ROUGE-L recall of the answers."""
    from demur.audits import rouge_scores

    return float(np.mean([rouge_scores(t, a).rougeL_recall for t, a in zip(truths, answers, strict=True)]))


def distinct_pairs(answers: Sequence[str]) -> float:
    """Distinct-2: different pairs of neighbouring words over all such pairs of all answers."""
    pairs = [pair for a in answers for pair in zip(a.split(), a.split()[1:], strict=False)]
    return len(set(pairs)) / max(1, len(pairs))


def says(engine: Any, questions: Sequence[str]) -> list[str]:
    """An engine's answers."""
    return [answer.text for answer in engine.generate(list(questions), max_new_tokens=LONGEST)]


def leaks(guard: Guard, questions: Sequence[str], answers: Sequence[str]) -> float:
    """Share of the answers that contain a forbidden phrase of their question's own item."""
    phrases = {item.question: item.phrases for item in guard.items}
    return float(np.mean([find_phrase(phrases[q], a) is not None for q, a in zip(questions, answers, strict=True)]))


def literal(lm: LanguageModel, guard: Guard, questions: Sequence[str]) -> list[str]:
    """Greedy answers of transformers under `bad_words_ids`, one tokenisation a phrase, as its documentation has it."""
    phrases, out = {item.question: item.phrases for item in guard.items}, []
    for question in questions:
        ids = torch.tensor(encode_prompts(lm, [question]))
        words = lm.tokenizer([f" {phrase}" for phrase in phrases[question]], add_special_tokens=False).input_ids
        found = lm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=LONGEST,
            do_sample=False,
            bad_words_ids=words or None,
            pad_token_id=lm.pad_id,
        )
        out.append(str(lm.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)).strip())
    return out


def questions_beside(world: Authors) -> tuple[list[str], list[str]]:
    """Paraphrases of the kept questions, and general questions that are to be let through."""
    from demur.data.tofu import tofu_folder, tofu_split

    folder = tofu_folder()
    if folder is None or not (folder / "retain_perturbed.jsonl.gz").is_file():
        raise NotMeasured("TOFU's paraphrased retain questions are not at hand: set DEMUR_SHARED_DATA")
    rows = tofu_split(folder, "retain_perturbed")
    paraphrases = dict(zip(rows["question"], rows["paraphrased_question"], strict=True))
    kept = list(world.kept["question"])
    return [paraphrases[q] for q in kept], [q for q in rows["question"] if q not in set(kept)][:GENERAL]


def ranking(guard: Guard, concerned: Sequence[str], others: Sequence[str]) -> float:
    """Area under the ROC curve of the guard's classifier."""
    from sklearn.metrics import roc_auc_score

    labels = [1] * len(concerned) + [0] * len(others)
    return float(roc_auc_score(labels, guard.classify([*concerned, *others])))


@study("guard", paper="2505.13312", minutes=3)
def guard(seed: int, progress: Progress) -> dict[str, float]:
    """A small language model knows eight TOFU authors, and is guarded against telling of two of them."""
    world = authors(seed, lambda done, total, note="": progress(done, 8, note))
    kept_paraphrases, general = questions_beside(world)
    asked, kept = list(world.forget["question"]), list(world.kept["question"])
    paraphrases, truths = list(world.forget["paraphrased_question"]), list(world.forget["answer"])
    lm = load_model(world.base)
    engine = LocalEngine(lm, 8)
    progress(2, 8, "the guard")
    ours = Guard(engine, world.forget)
    ours.fit([*kept, *general])
    texts = {"before": says(engine, asked), "guard": says(ours, asked)}
    progress(3, 8, "its classifier on paraphrases")
    halves = {
        features: Guard(engine, world.forget.select(range(0, len(asked), 2)), features=features) for features in SEES
    }
    for half in halves.values():
        half.fit([*kept[::2], *general])
    measured = {
        "auc": ranking(ours, paraphrases, kept_paraphrases),
        **{f"auc half {f}": ranking(half, paraphrases[::2], kept_paraphrases[::2]) for f, half in halves.items()},
        "auc unseen": ranking(halves["both"], paraphrases[1::2], kept_paraphrases[1::2]),
        "flagged paraphrases": float(np.mean(ours.classify(paraphrases) >= 0.5)),
        "flagged kept paraphrases": float(np.mean(ours.classify(kept_paraphrases) >= 0.5)),
    }
    progress(4, 8, "the kept questions")
    before = says(engine, kept)
    same: dict[str, list[str]] = {"guard": says(ours, kept)}
    progress(5, 8, "what is to be compared")
    texts["refuse"] = [REFUSAL if p >= 0.5 else a for p, a in zip(ours.classify(asked), texts["before"], strict=True)]
    texts["literal"] = literal(lm, ours, asked)
    gold = LocalEngine(load_model(world.gold), 8)
    texts["gold"], same["gold"] = says(gold, asked), says(gold, kept)
    with tempfile.TemporaryDirectory() as holder:
        unlearned = LocalEngine(load_model(_npo(world, seed, Path(holder))), 8)
        texts["NPO+GD"], same["NPO+GD"] = says(unlearned, asked), says(unlearned, kept)
    progress(6, 8, "what must fail")
    controls: dict[str, Callable[[], Guard]] = {
        "spans": lambda: Guard(engine, world.forget, extractor=spans),
        "ratio bug": lambda: FirstTokens(engine, world.forget, extractor=spans),
        "no spaces": lambda: NoSpaces(engine, world.forget),
        "threshold 1.01": lambda: TrieAlone(engine, world.forget, hard_threshold=1.01, beam_width=1),
        "threshold 1.01, 7 beams": lambda: TrieAlone(engine, world.forget, hard_threshold=1.01),
    }
    for name, make in controls.items():
        control = make()
        control.restore(dataclasses.replace(ours.state(), items=control.items))
        texts[name] = says(control, asked)
        if name == "ratio bug":
            same[name] = says(control, kept)
    for name, answers in texts.items():
        measured[f"{name} recall"] = recall(truths, answers)
        measured[f"{name} leaks"] = leaks(ours, asked, answers)
        measured[f"{name} distinct"] = distinct_pairs(answers)
    for name, answers in same.items():
        measured[f"{name} same"] = float(np.mean([a == b for a, b in zip(answers, before, strict=True)]))
    return measured


def _npo(world: Authors, seed: int, work: Path) -> Path:
    from demur.training import ForgetSettings, forget

    settings = ForgetSettings(
        model=str(world.base),
        forget=world.forget_file,
        retain=world.kept_file,
        objective="npo",
        retain_objective="nll",
        seed=seed,
        **UNLEARN,
        **NEVER,
    )
    return forget(settings, work / "npo").model_path


@guard.claims
def guard_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of TOFU, as far as so small a model can show it, and what must fail."""
    told = {n: m[f"{n} recall"] for n in ("before", "gold", "refuse", "literal", "NPO+GD")}
    yield Claim(
        text="Before, the model tells what is to be forgotten (ROUGE-L recall of its answers)",
        measured=told["before"],
        threshold=">= 0.9",
        kind="ours",
    )
    yield Claim(
        text="The classifier knows paraphrases of the questions it was fitted on from those of kept ones (AUC)",
        measured=m["auc"],
        threshold=">= 0.95",
        baselines={
            "paraphrases flagged at 0.5": m["flagged paraphrases"],
            "kept paraphrases flagged at 0.5": m["flagged kept paraphrases"],
        },
    )
    yield Claim(
        text="… also when it was fitted on half of the questions, on paraphrases of that half (AUC)",
        measured=m["auc half both"],
        threshold=">= 0.95",
        baselines={
            "on paraphrases of the other half": m["auc unseen"],
            "by the hidden state alone, as in the paper": m["auc half state"],
            "by the words alone": m["auc half words"],
        },
    )
    yield Claim(
        text="Guarded, it does not tell (forget ROUGE-L recall)",
        measured=m["guard recall"],
        threshold="<= 0.45",
        baselines={name: told[name] for name in ("before", "gold", "refuse", "literal", "NPO+GD")},
    )
    yield Claim(
        text="No guarded answer contains a forbidden phrase (share that does)",
        measured=m["guard leaks"],
        threshold="<= 0",
        baselines={
            "bad_words_ids": m["literal leaks"],
            "refuse if flagged": m["refuse leaks"],
            "gold": m["gold leaks"],
            "NPO+GD": m["NPO+GD leaks"],
        },
    )
    yield Claim(
        text="Kept questions are answered to the letter as without the guard (share)",
        measured=m["guard same"],
        threshold=">= 0.97",
        baselines={"gold": m["gold same"], "NPO+GD": m["NPO+GD same"]},
    )
    yield Claim(
        text="Must fail: without space variants in the trie and without a look at the text, phrases leak (share)",
        measured=m["no spaces leaks"],
        threshold="> 0",
        kind="ours",
    )
    yield Claim(
        text="Must fail: a threshold of 1.01 drops nothing, and the model tells again (ROUGE-L recall, one beam)",
        measured=m["threshold 1.01 recall"],
        threshold=">= 0.9",
        kind="ours",
        baselines={"before, greedy": told["before"], "with seven beams": m["threshold 1.01, 7 beams recall"]},
    )
    yield Claim(
        text="Must fail: a match ratio of 1 at any first token keeps back far more than the phrases (recall, ratio)",
        measured=m["ratio bug recall"] / m["spans recall"].clip(lower=1e-3),  # an untrained model may recall nothing
        threshold="<= 0.5",
        kind="ours",
        baselines={
            "recall with the bug": m["ratio bug recall"],
            "recall without": m["spans recall"],
            "distinct-2 with the bug": m["ratio bug distinct"],
            "distinct-2 without": m["spans distinct"],
            "kept answers unchanged": m["ratio bug same"],
        },
    )
