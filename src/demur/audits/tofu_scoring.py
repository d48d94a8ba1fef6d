"""The TOFU suite's one scoring pass: from a model and rows to tables of samples.

The answer, its paraphrase and its false variants of a question are scored together and share the reading of the
question. Per-token log-probabilities, hits and moments of that one pass serve probability, memorisation, truth ratio
and all membership attacks but the gradient norm. Generation starts from the part of the true answer that the scoring
pass already found to be what the model says.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from demur.audits.gradnorm import gradient_norms
from demur.audits.memorisation import mean_nll, normalised_probability
from demur.audits.open_unlearning_scoring import compat_encode, compat_generate, compat_token_stats
from demur.audits.roles import Progress
from demur.audits.rouge import rouge_scores
from demur.audits.tofu_data import TofuData, TofuSamples, TofuSettings
from demur.audits.token_scores import counter, known_beginning, token_scores
from demur.audits.truth_ratio import truth_ratios, truth_shares
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.data import Encoded
    from demur.models import Engine, LanguageModel, TokenStats

__all__ = ["Fluency", "Progress", "tofu_samples"]

Fluency = Callable[[Sequence[str]], Sequence[float]]
"""Scores texts; high is fluent."""

_ATTACKED = ("forget", "holdout")
_PARAPHRASED = ("forget", "retain")  # their truth is told in other words, for the truth ratio


class _Wanted(NamedTuple):
    """One answer to be scored."""

    table: str
    row: int
    kind: str  # "answer", "paraphrase" or "false"
    prompt: str
    response: str


class _Answer(NamedTuple):
    """The true answer to one question: its tokens, what the model makes of them, and the row it is recorded in."""

    want: _Wanted
    encoded: Encoded
    stats: TokenStats
    row: dict[str, Any]


def tofu_samples(
    lm: LanguageModel,
    data: TofuData,
    settings: TofuSettings | None = None,
    *,
    engine: Engine | None = None,
    fluency: Fluency | None = None,
    progress: Progress | None = None,
) -> TofuSamples:
    """Score a model on the rows of a TOFU audit.

    Args:
        lm: the model.
        data: the rows.
        settings: how to measure.
        engine: answers the questions in place of the model itself, for instance a guard around it.
        fluency: scores the answers on the forget set.
        progress: see `Progress`.

    Raises:
        UsageError: a column that the settings need is missing, or a row does not fit into the model's context.
    """
    import pandas as pd

    settings = settings or TofuSettings()
    started = time.perf_counter()
    tables: dict[str, list[dict[str, Any]]] = {
        name: [{"id": str(i)} for i in rows["id"]] for name, rows in data.sets.items()
    }
    answers = _score(lm, [w for name in data.sets for w in _wanted(data, name, settings)], tables, settings, progress)
    scored = time.perf_counter()
    if settings.generation:
        _add_generations(lm, answers, settings, engine, progress)
        if fluency is not None:
            answered = [row for row in tables["forget"] if row["generation"] is not None]
            for row, value in zip(answered, fluency([r["generation"] for r in answered]), strict=True):
                row["fluency"] = float(value)
    generated = time.perf_counter()
    if "gradnorm" in settings.attacks:
        _add_gradient_norms(lm, [a for a in answers if a.want.table in _ATTACKED], settings, progress)
    facts = {
        "settings": dataclasses.asdict(settings),
        "data": data.hash(),
        "seconds": {
            "scoring": scored - started,
            "generation": generated - scored,
            "gradients": time.perf_counter() - generated,
        },
    }
    return TofuSamples({name: pd.DataFrame(rows) for name, rows in tables.items()}, lm.name, facts)


def _wanted(data: TofuData, name: str, settings: TofuSettings) -> list[_Wanted]:
    rows = data.sets[name]
    key = settings.question_key if name in _PARAPHRASED else "question"
    if key not in rows.column_names:
        raise UsageError(f"the {name} rows have no column {key!r}: they have {', '.join(rows.column_names)}")
    questions, answers = list(rows[key]), list(rows["answer"])
    if None in questions:
        raise UsageError(f"row {questions.index(None) + 1} of the {name} rows has no {key}")
    nothing = [None] * len(rows)
    with_options = name != "holdout"
    known = rows.column_names if with_options else ()
    paraphrases = rows["paraphrased_answer"] if "paraphrased_answer" in known else nothing
    perturbed = rows["perturbed_answer"] if "perturbed_answer" in known else nothing
    out = []
    for i, (question, answer, paraphrase, false) in enumerate(
        zip(questions, answers, paraphrases, perturbed, strict=True)
    ):
        out.append(_Wanted(name, i, "answer", question, answer))
        if paraphrase is not None and name in _PARAPHRASED:
            out.append(_Wanted(name, i, "paraphrase", question, paraphrase))
        out += [_Wanted(name, i, "false", question, text) for text in false or ()]
    return out


def _score(
    lm: LanguageModel,
    wanted: Sequence[_Wanted],
    tables: dict[str, list[dict[str, Any]]],
    settings: TofuSettings,
    progress: Progress | None,
) -> list[_Answer]:
    """Score all answers, true and false, and record in the tables what follows from their tokens."""
    encoded, stats = _token_stats(lm, wanted, tables, settings, progress)
    answers = []
    for want, item, values in zip(wanted, encoded, stats, strict=True):
        row = tables[want.table][want.row]
        if want.kind == "answer":
            attacks = settings.attacks if want.table in _ATTACKED else ()
            scores = token_scores(lm, values, attacks=attacks, k=settings.k, strict=settings.compat is None)
            row |= {"prompt": want.prompt, "truth": want.response, **scores}
            answers.append(_Answer(want, item, values, row))
        elif want.kind == "paraphrase":
            row["paraphrased_loss"] = mean_nll(values.logps)
        else:
            row.setdefault("perturbed_losses", []).append(mean_nll(values.logps))
    for answer in answers:
        answer.row.update(_comparisons(answer.row, answer.want.table in _PARAPHRASED))
    return answers


def _token_stats(
    lm: LanguageModel,
    wanted: Sequence[_Wanted],
    tables: dict[str, list[dict[str, Any]]],
    settings: TofuSettings,
    progress: Progress | None,
) -> tuple[list[Encoded], list[TokenStats]]:
    from demur.models import encode, token_stats

    prompts, responses = [w.prompt for w in wanted], [w.response for w in wanted]
    ids = [f"{tables[w.table][w.row]['id']} ({w.kind}, {w.table})" for w in wanted]
    report = counter(progress, "scoring answers", len(wanted))
    if settings.compat is not None:
        encoded = compat_encode(lm, prompts, responses, ids, settings)
        return encoded, compat_token_stats(lm, encoded, settings.batch_size, report)
    encoded = encode(lm, prompts, responses, ids)
    moments = [w.kind == "answer" and w.table in _ATTACKED and "min_k_plus_plus" in settings.attacks for w in wanted]
    return encoded, token_stats(lm, encoded, moments=moments, batch_size=settings.batch_size, progress=report)


def _comparisons(row: dict[str, Any], paraphrased: bool) -> dict[str, float]:
    """Scores that set the true answer against the false ones, as far as the row has what they need."""
    false = row.get("perturbed_losses")
    if not false:
        return {}
    out = {"probability_normalised": normalised_probability(row["probability"], np.exp(-np.asarray(false)))}
    true = row.get("paraphrased_loss") if paraphrased else row["loss"]
    if true is not None:
        out |= {"truth_ratio": float(truth_ratios(true, false)), "truth_share": float(truth_shares(true, false))}
    return out


def _add_generations(
    lm: LanguageModel,
    answers: Sequence[_Answer],
    settings: TofuSettings,
    engine: Engine | None,
    progress: Progress | None,
) -> None:
    """Let the model, or the engine around it, answer all questions but the hold-out ones, and compare."""
    asked = [a for a in answers if a.want.table != "holdout"]
    prompts, truths = [a.want.prompt for a in asked], [a.want.response for a in asked]
    report = counter(progress, "answering questions", len(asked))
    if engine is not None:
        made = engine.generate(prompts, max_new_tokens=settings.max_new_tokens)
        texts = [None if g.finish == "error" else g.text for g in made]
    elif settings.compat is not None:
        pairs = compat_generate(lm, prompts, truths, settings, report, max_new_tokens=settings.max_new_tokens)
        texts, truths = [text for text, _ in pairs], [truth for _, truth in pairs]
    else:
        texts = _generate(lm, asked, settings, report)
    for answer, text, truth in zip(asked, texts, truths, strict=True):
        answer.row.update(truth=truth.strip(), generation=text)
        if text is not None:
            answer.row.update(dataclasses.asdict(rouge_scores(truth, text)))


def _generate(
    lm: LanguageModel, asked: Sequence[_Answer], settings: TofuSettings, report: Callable[[int], None] | None
) -> list[str | None]:
    from demur.models import LocalEngine, encode_prompts

    prompts = [a.want.prompt for a in asked]
    fronts = encode_prompts(lm, prompts)
    prefill = [known_beginning(lm, a.encoded, a.stats, front) for a, front in zip(asked, fronts, strict=True)]
    engine = LocalEngine(lm, settings.batch_size)
    made = engine.generate(prompts, max_new_tokens=settings.max_new_tokens, prefill=prefill, progress=report)
    return [g.text for g in made]


def _add_gradient_norms(
    lm: LanguageModel, answers: Sequence[_Answer], settings: TofuSettings, progress: Progress | None
) -> None:
    compat = settings.compat is not None
    report = counter(progress, "taking gradients", len(answers))
    norms = gradient_norms(lm, [a.encoded for a in answers], strict=not compat, mask_pads=compat, progress=report)
    for answer, norm in zip(answers, norms, strict=True):
        answer.row["mia_gradnorm"] = float(norm)
