"""The MUSE suite's scoring pass: from a model and rows to tables of samples."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from demur.audits.gradnorm import gradient_norms
from demur.audits.guarded import answering
from demur.audits.muse_data import KNOWMEM, PRIVLEAK, VERBMEM, MuseData, MuseSettings
from demur.audits.open_unlearning_scoring import compat_continue, compat_generate, compat_token_stats
from demur.audits.roles import Progress
from demur.audits.rouge import rouge_scores
from demur.audits.samples import Samples
from demur.audits.token_scores import counter, known_beginning, token_scores
from demur.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.data import Encoded
    from demur.models import LanguageModel, Prompt, TokenStats

__all__ = ["STOP", "muse_samples"]

STOP = ("\n\n", "\nQuestion", "Question:")
"""Texts that end an answer to a question."""

Report = Callable[[int], Any] | None
Row = dict[str, Any]


def muse_samples(
    lm: LanguageModel,
    data: MuseData,
    settings: MuseSettings | None = None,
    progress: Progress | None = None,
    guard: str | None = None,
) -> Samples:
    """Score a model on the rows of a MUSE audit.

    Args:
        lm: the model.
        data: the rows.
        settings: how to measure.
        progress: called with what is being done, how much of it is done and how much there is.
        guard: folder of a guard that answers and goes on with texts in the model's place.

    Raises:
        UsageError: a row does not fit into the model's context, or has no token to score; or a guard is to stand before
            the answers of another code.
    """
    import pandas as pd

    settings = settings or MuseSettings()
    if guard is not None and settings.compat is not None:
        raise UsageError(f"with compat={settings.compat} the answers are those of that code: audit the guard without")
    started = time.perf_counter()
    tables: dict[str, list[Row]] = {}
    for name in (n for n in data.sets if n in KNOWMEM):
        if settings.generation:
            shots = data.sets.get(f"{name}_icl")
            tables[name] = _answer(lm, data.sets[name], shots, settings, progress, guard)
    for name in (n for n in data.sets if n in VERBMEM):
        tables[name] = _complete(lm, data.sets[name], settings, progress, guard)
    for name in (n for n in data.sets if n in PRIVLEAK):
        tables[name] = _attack(lm, data.sets[name], settings, progress)
    facts = {
        "settings": dataclasses.asdict(settings),
        "data": data.hash(),
        "seconds": time.perf_counter() - started,
    }
    return Samples({name: pd.DataFrame(rows) for name, rows in tables.items()}, lm.name, facts)


def _compared(rows: Dataset, prompts: Sequence[str], pairs: Sequence[tuple[str, str]], stem: bool) -> list[Row]:
    """A row of scores for each pair of what the model said and the truth."""
    return [
        {
            "id": str(name),
            "prompt": prompt,
            "truth": truth,
            "generation": said,
            **dataclasses.asdict(rouge_scores(truth, said, stem)),
        }
        for name, prompt, (said, truth) in zip(rows["id"][:], prompts, pairs, strict=True)
    ]


def _answer(
    lm: LanguageModel,
    rows: Dataset,
    shots: Dataset | None,
    settings: MuseSettings,
    progress: Progress | None,
    guard: str | None,
) -> list[Row]:
    """Answers to questions, after in-context examples of questions with answers."""
    questions, truths = rows["question"][:], rows["answer"][:]
    examples = list(zip(shots["question"][:], shots["answer"][:], strict=True)) if shots is not None else []
    report = counter(progress, "answering questions", len(questions))
    prompts: list[Prompt]
    if settings.compat == "muse_bench":
        front = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in examples)
        prompts = [f"{front}Question: {question}\nAnswer: " for question in questions]
        lm = dataclasses.replace(lm, template="raw")
    else:
        turns = [
            {"role": role, "content": text}
            for pair in examples
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        prompts = [[*turns, {"role": "user", "content": question}] for question in questions]
    options: dict[str, Any] = {"max_new_tokens": settings.knowmem_tokens, "stop": STOP}
    if settings.compat == "open-unlearning":
        pairs = compat_generate(lm, prompts, truths, settings, report, **options)
    else:
        options |= {} if guard else {"progress": report}
        made = answering(lm, guard, settings.batch_size).generate(prompts, **options)
        pairs = [(answer.text, truth) for answer, truth in zip(made, truths, strict=True)]
    return _compared(rows, questions, pairs, stem=settings.compat != "muse_bench")


def _complete(
    lm: LanguageModel, rows: Dataset, settings: MuseSettings, progress: Progress | None, guard: str | None
) -> list[Row]:
    """How well the model goes on with texts: by its own words, and by what it thinks of the true continuation."""
    from demur.models import encode_completion

    prompts, truths = rows["prompt"][:], rows["gt"][:]
    compat = settings.compat == "open-unlearning"
    encoded = encode_completion(
        lm, prompts, truths, rows["id"][:], max_length=settings.max_length, insert_space=True, compat=compat
    )
    stats = _stats(lm, encoded, settings, progress, "scoring continuations")
    scores = [token_scores(lm, s, strict=not compat, ended=compat) for s in stats]
    if settings.generation:
        pairs = _continue(lm, prompts, truths, encoded, stats, settings, progress, guard)
        table = _compared(rows, prompts, pairs, stem=settings.compat != "muse_bench")
    else:
        names = zip(rows["id"][:], prompts, truths, strict=True)
        table = [{"id": str(name), "prompt": prompt, "truth": truth} for name, prompt, truth in names]
    return [{**row, **more} for row, more in zip(table, scores, strict=True)]


def _continue(
    lm: LanguageModel,
    prompts: Sequence[str],
    truths: Sequence[str],
    encoded: Sequence[Encoded],
    stats: Sequence[TokenStats],
    settings: MuseSettings,
    progress: Progress | None,
    guard: str | None,
) -> list[tuple[str, str]]:
    """What the model goes on with, and what it is compared with.

    By default the two have the same number of tokens, so that a perfect memory scores 1 however short its text is.
    """
    from demur.models import LocalEngine, encode_prompts

    report, longest = counter(progress, "going on with texts", len(prompts)), settings.verbmem_tokens
    if settings.compat == "open-unlearning":
        tokens = [(e.input_ids[: e.prompt_length], e.label_ids) for e in encoded]
        return compat_continue(lm, tokens, settings.batch_size, report, max_new_tokens=longest)

    def text(ids: Sequence[int]) -> str:
        return str(lm.tokenizer.decode(list(ids), skip_special_tokens=True))

    counts = [min(longest, len(s.token_ids)) for s in stats]
    bare = dataclasses.replace(lm, template="raw")
    if guard is not None:
        guarded = answering(bare, guard, settings.batch_size).generate(prompts, max_new_tokens=max(counts))
        return _cut([list(a.token_ids) or lm.tokenizer(a.text)["input_ids"] for a in guarded], stats, counts, text)
    prefill = [
        known_beginning(lm, item, s, front)
        for item, s, front in zip(encoded, stats, encode_prompts(bare, prompts), strict=True)
    ]
    if settings.compat == "muse_bench":
        made = LocalEngine(bare, settings.batch_size).generate(
            prompts, max_new_tokens=longest, prefill=prefill, progress=report
        )
        cut = [text(ids[:longest]) for ids in lm.tokenizer(list(truths), verbose=False)["input_ids"]]
        return [(said.text, truth) for said, truth in zip(made, cut, strict=True)]
    made = LocalEngine(bare, settings.batch_size).generate(
        prompts, max_new_tokens=max(counts), prefill=prefill, progress=report
    )
    return _cut([answer.token_ids for answer in made], stats, counts, text)


def _cut(
    said: Sequence[Sequence[int]],
    stats: Sequence[TokenStats],
    counts: Sequence[int],
    text: Callable[[Any], str],
) -> list[tuple[str, str]]:
    """As many tokens of what was said as of what is true."""
    return [
        (text(ids[:count]).strip(), text(known.token_ids[:count]).strip())
        for ids, known, count in zip(said, stats, counts, strict=True)
    ]


def _attack(lm: LanguageModel, rows: Dataset, settings: MuseSettings, progress: Progress | None) -> list[Row]:
    """What an outsider sees of whole texts."""
    from demur.models import encode_completion

    texts, compat = rows["text"][:], settings.compat == "open-unlearning"
    length = lm.context or 2**31 if settings.compat == "muse_bench" else settings.max_length
    encoded = encode_completion(lm, [""] * len(texts), texts, rows["id"][:], max_length=length, compat=compat)
    table = []
    for item, text, stats in zip(encoded, texts, _stats(lm, encoded, settings, progress, "scoring texts"), strict=True):
        scores = token_scores(lm, stats, attacks=settings.attacks, k=settings.k, strict=not compat, ended=compat)
        table.append({"id": item.id, "truth": text, **scores})
    if "gradnorm" in settings.attacks:
        report = counter(progress, "taking gradients", len(encoded))
        norms = gradient_norms(lm, encoded, strict=not compat, mask_pads=compat, progress=report)
        for row, norm in zip(table, norms, strict=True):
            row["mia_gradnorm"] = float(norm)
    return table


def _stats(
    lm: LanguageModel, encoded: Sequence[Encoded], settings: MuseSettings, progress: Progress | None, stage: str
) -> list[TokenStats]:
    from demur.models import token_stats

    report = counter(progress, stage, len(encoded))
    if settings.compat == "open-unlearning":
        return compat_token_stats(lm, encoded, settings.batch_size, report)
    moments = stage == "scoring texts" and "min_k_plus_plus" in settings.attacks
    return token_stats(lm, encoded, moments=moments, batch_size=settings.batch_size, progress=report)
