"""The TOFU suite's one scoring pass: from a model and rows to tables of samples.

The answer, its paraphrase and its false variants of a question are scored together and share the reading of the
question. Per-token log-probabilities, hits and moments of that one pass serve probability, memorisation, truth ratio
and all membership attacks but the gradient norm. Generation starts from the part of the true answer that the scoring
pass already found to be what the model says.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from demur.audits.gradnorm import gradient_norms
from demur.audits.membership import min_k, min_k_plus_plus, zlib_score
from demur.audits.memorisation import (
    exact_memorization,
    extraction_strength,
    mean_nll,
    normalised_probability,
    probability,
)
from demur.audits.open_unlearning_scoring import compat_encode, compat_generate, compat_token_stats
from demur.audits.rouge import rouge_scores
from demur.audits.tofu_data import TofuData, TofuSamples, TofuSettings
from demur.audits.truth_ratio import truth_ratios, truth_shares
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.data import Encoded
    from demur.models import Engine, LanguageModel, TokenStats

__all__ = ["Fluency", "Progress", "tofu_samples"]

Progress = Callable[[str, int, int], Any]
"""Called with what is being done, how much of it is done, and how much there is."""

Fluency = Callable[[Sequence[str]], Sequence[float]]
"""Scores texts; high is fluent."""

_ATTACKED = ("forget", "holdout")


class _Wanted(NamedTuple):
    """One answer to be scored."""

    table: str
    row: int
    kind: str  # "answer", "paraphrase" or "false"
    prompt: str
    response: str


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
    wanted = [w for name in data.sets for w in _wanted(data, name, settings)]
    names = {name: list(rows["id"]) for name, rows in data.sets.items()}
    encoded, stats = _score(lm, wanted, names, settings, progress)
    scored = time.perf_counter()
    tables: dict[str, list[dict[str, Any]]] = {name: [{"id": str(i)} for i in ids] for name, ids in names.items()}
    answers = []
    for index, (want, values) in enumerate(zip(wanted, stats, strict=True)):
        row = tables[want.table][want.row]
        if want.kind == "answer":
            answers.append(index)
            row |= {"prompt": want.prompt, "truth": want.response, **_answer_scores(lm, want, values, settings)}
        elif want.kind == "paraphrase":
            row["paraphrased_loss"] = mean_nll(values.logps)
        else:
            row.setdefault("perturbed_losses", []).append(mean_nll(values.logps))
    for row in (r for rows in tables.values() for r in rows):
        row |= _comparisons(row)
    asked = [i for i in answers if wanted[i].table != "holdout"]
    if settings.generation:
        pairs = _generate(
            lm,
            [wanted[i] for i in asked],
            [encoded[i] for i in asked],
            [stats[i] for i in asked],
            settings,
            engine,
            progress,
        )
        for i, (answer, truth) in zip(asked, pairs, strict=True):
            row = tables[wanted[i].table][wanted[i].row]
            row |= {"truth": truth, "generation": answer, **dataclasses.asdict(rouge_scores(truth, answer))}
        if fluency is not None:
            for row, value in zip(tables["forget"], fluency([r["generation"] for r in tables["forget"]]), strict=True):
                row["fluency"] = float(value)
    generated = time.perf_counter()
    if "gradnorm" in settings.attacks:
        _add_gradient_norms(lm, tables, wanted, encoded, answers, settings, progress)
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
    key = settings.question_key if name in ("forget", "retain") else "question"
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
        if paraphrase is not None and name in ("forget", "retain"):
            out.append(_Wanted(name, i, "paraphrase", question, paraphrase))
        out += [_Wanted(name, i, "false", question, text) for text in false or ()]
    return out


def _score(
    lm: LanguageModel,
    wanted: Sequence[_Wanted],
    names: dict[str, list[str]],
    settings: TofuSettings,
    progress: Progress | None,
) -> tuple[list[Encoded], list[TokenStats]]:
    from demur.models import encode, token_stats

    prompts, responses = [w.prompt for w in wanted], [w.response for w in wanted]
    ids = [f"{names[w.table][w.row]} ({w.kind}, {w.table})" for w in wanted]
    report = _counter(progress, "scoring answers", len(wanted))
    if settings.compat is not None:
        encoded = compat_encode(lm, prompts, responses, ids, settings)
        return encoded, compat_token_stats(lm, encoded, settings.batch_size, report)
    encoded = encode(lm, prompts, responses, ids)
    moments = [w.kind == "answer" and w.table in _ATTACKED and "min_k_plus_plus" in settings.attacks for w in wanted]
    return encoded, token_stats(lm, encoded, moments=moments, batch_size=settings.batch_size, progress=report)


def _counter(progress: Progress | None, stage: str, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, done, total)

    return add


def _answer_scores(lm: LanguageModel, want: _Wanted, stats: TokenStats, settings: TofuSettings) -> dict[str, Any]:
    strict = settings.compat is None
    out: dict[str, Any] = {
        "tokens": len(stats.logps),
        "loss": mean_nll(stats.logps),
        "probability": probability(stats.logps),
        "exact_memorization": exact_memorization(stats.hits),
        "extraction_strength": extraction_strength(stats.hits, strict),
    }
    if want.table in _ATTACKED:
        if "zlib" in settings.attacks:
            text = str(lm.tokenizer.decode(stats.token_ids.tolist(), skip_special_tokens=True))
            out["mia_zlib"] = zlib_score(out["loss"], text)
        if "min_k" in settings.attacks:
            out["mia_min_k"] = min_k(stats.logps, settings.k, strict)
        if "min_k_plus_plus" in settings.attacks:
            out["mia_min_k_plus_plus"] = min_k_plus_plus(stats.logps, stats.mu, stats.sigma2, settings.k, strict)
    return out


def _comparisons(row: dict[str, Any]) -> dict[str, float]:
    """Scores that set the true answer against the false ones; empty where a row has no false answers."""
    false = row.get("perturbed_losses")
    if not false:
        return {}
    true = row.get("paraphrased_loss", row["loss"])
    return {
        "truth_ratio": float(truth_ratios(true, false)),
        "truth_share": float(truth_shares(true, false)),
        "probability_normalised": normalised_probability(row["probability"], np.exp(-np.asarray(false))),
    }


def _generate(
    lm: LanguageModel,
    wanted: Sequence[_Wanted],
    encoded: Sequence[Encoded],
    stats: Sequence[TokenStats],
    settings: TofuSettings,
    engine: Engine | None,
    progress: Progress | None,
) -> list[tuple[str, str]]:
    """The answer to each question and the truth that it is compared with."""
    from demur.models import LocalEngine, encode_prompts

    report = _counter(progress, "answering questions", len(wanted))
    if settings.compat is not None and engine is None:
        return compat_generate(lm, [w.prompt for w in wanted], [w.response for w in wanted], settings, report)
    prompts = [w.prompt for w in wanted]
    truths = [w.response.strip() for w in wanted]
    if engine is not None:
        made = engine.generate(prompts, max_new_tokens=settings.max_new_tokens)
        return [(g.text, truth) for g, truth in zip(made, truths, strict=True)]
    fronts = encode_prompts(lm, prompts)
    prefill = [_known(e, front, s) for e, front, s in zip(encoded, fronts, stats, strict=True)]
    made = LocalEngine(lm, settings.batch_size).generate(
        prompts, max_new_tokens=settings.max_new_tokens, prefill=prefill, progress=report
    )
    return [(g.text, truth) for g, truth in zip(made, truths, strict=True)]


def _known(item: Encoded, front: list[int], stats: TokenStats) -> list[int]:
    """The beginning of the true answer that greedy decoding would produce, by the scoring pass."""
    if item.input_ids[: item.prompt_length] != front:
        return []  # the tokenizer merged across the border: the prompt alone reads differently
    wrong = np.flatnonzero(~stats.hits)
    return stats.token_ids[: int(wrong[0]) if wrong.size else len(stats.hits)].tolist()


def _add_gradient_norms(
    lm: LanguageModel,
    tables: dict[str, list[dict[str, Any]]],
    wanted: Sequence[_Wanted],
    encoded: Sequence[Encoded],
    answers: Sequence[int],
    settings: TofuSettings,
    progress: Progress | None,
) -> None:
    attacked = [i for i in answers if wanted[i].table in _ATTACKED]
    compat = settings.compat is not None
    norms = gradient_norms(
        lm,
        [encoded[i] for i in attacked],
        strict=not compat,
        mask_pads=compat,
        progress=_counter(progress, "taking gradients", len(attacked)),
    )
    for i, norm in zip(attacked, norms, strict=True):
        tables[wanted[i].table][wanted[i].row]["mia_gradnorm"] = math.nan if np.isnan(norm) else float(norm)
