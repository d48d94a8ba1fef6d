"""The abstention suite: does a model know what it knows, say so, and hold back where it does not?

Each question is answered once, greedily. What the model thinks of its answer is read in three ways (Zhang et al. 2024,
arXiv 2311.09677, section 3): the probability of its own tokens, the probability of "sure" beside "unsure" when it is
asked about its certainty, and the mean of both. Average precision, calibration and risk at every coverage follow.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from demur.audits.abstention_metrics import abstention_results
from demur.audits.answer_judges import refuses
from demur.audits.calibration import sequence_confidence
from demur.audits.guarded import answering, guard_of
from demur.audits.request import AuditRequest
from demur.audits.roles import Progress, RoleProgress, Suite, audit_roles, make_settings
from demur.audits.samples import Samples, cached_pass
from demur.audits.suite_report import Role, SuiteReport
from demur.audits.suites import suites
from demur.audits.token_scores import counter
from demur.data.abstentions import ABSTENTIONS
from demur.data.builders.r_tuning import CERTAINTY_QUESTION, CERTAINTY_WORDS, certainty_front, holds_answer
from demur.errors import UsageError
from demur.files import hash_json

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.data import Encoded, Prompt
    from demur.models import Engine, LanguageModel
    from demur.runs import RunFolder

__all__ = [
    "AbstentionSettings",
    "CertainAnswer",
    "abstains",
    "abstention_samples",
    "answer_with_certainty",
    "run_abstention",
]

_VERSION = 1  # of what a pass measures; raising it makes every cached one stale
_BY_LABEL = {"comply": True, "abstain": False}


@dataclass(frozen=True)
class AbstentionSettings:
    """How answers and certainty are asked for.

    Attributes:
        certainty: where the question for certainty stands: "answer" goes on in the model's own answer, as R-Tuning
            trains it; "turn" asks in the user's next turn; "none" does not ask.
        question: the question for certainty.
        words: what the model may say of itself after "I am", certain first.
        stop: text that ends an answer, besides the beginning of `question`; the paper's is a full stop.
        match: when an answer is right: "substring", it holds the true one whatever the case and the punctuation;
            "exact", it says nothing else.
        domain: column whose values part the rows, for instance into questions from inside and outside the training.
        bins: bins of calibration error and reliability diagram.
        max_new_tokens: longest answer.
        batch_size: prompts in one forward pass; no number depends on it.

    Raises:
        UsageError: a setting is unknown or out of range.
    """

    certainty: Literal["answer", "turn", "none"] = "answer"
    question: str = CERTAINTY_QUESTION
    words: tuple[str, str] = CERTAINTY_WORDS
    stop: str = ""
    match: Literal["substring", "exact"] = "substring"
    domain: str = "domain"
    bins: int = 10
    max_new_tokens: int = 64
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name, known in (("certainty", ("answer", "turn", "none")), ("match", ("substring", "exact"))):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if len(self.words) != 2 or not self.question.split():
            raise UsageError("certainty needs a question and two words, the certain one first")
        if self.bins < 1:
            raise UsageError(f"bins must be at least 1, not {self.bins}")


@dataclass(frozen=True)
class CertainAnswer:
    """An answer and what its model thinks of it.

    Attributes:
        text: the greedy answer.
        predict_conf: geometric mean of its tokens' probabilities; nan where it is empty.
        sure_prob: p(sure) / (p(sure) + p(unsure)) when asked; nan where it was not asked.
    """

    text: str
    predict_conf: float
    sure_prob: float

    @property
    def combined(self) -> float:
        """The mean of both, nan where one is missing."""
        return 0.5 * self.predict_conf + 0.5 * self.sure_prob


def answer_with_certainty(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    settings: AbstentionSettings | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> list[CertainAnswer]:
    """Answer each prompt greedily and ask for the certainty of the answer.

    Args:
        lm: the model.
        prompts: the questions.
        settings: how to ask.
        progress: called with what is being done, how much of it is done and how much there is.
        engine: answers in the model's place, for instance a guard around it; certainty stays the model's.

    Returns:
        One answer a prompt, in order.

    Raises:
        UsageError: the two words of certainty begin with the same token, or a text does not fit into the context.
    """
    from demur.models import LocalEngine, encode_prompts, token_stats

    settings = settings or AbstentionSettings()
    # A model that was taught so asks itself the question: its answer ends where the question begins.
    stops = [" ".join(settings.question.split()[:3]), *([settings.stop] if settings.stop else [])]
    if settings.certainty == "none":
        stops = stops[1:]
    told: dict[str, Any] = {} if engine else {"progress": counter(progress, "questions", len(prompts))}
    answers = (engine or LocalEngine(lm, settings.batch_size)).generate(
        prompts, max_new_tokens=settings.max_new_tokens, stop=stops, **told
    )
    texts = [answer.text for answer in answers]
    fronts = encode_prompts(lm, prompts)
    spoken = [_spoken(lm, answer.token_ids, answer.text, stops) for answer in answers]
    items = [_continued(lm, prompt, front, said) for prompt, front, said in zip(prompts, fronts, spoken, strict=True)]
    report = counter(progress, "confidence", sum(map(bool, spoken)))
    said = [item for item in items if len(item.input_ids) > item.prompt_length]
    stats = iter(token_stats(lm, said, moments=False, batch_size=settings.batch_size, progress=report))
    confidences = [sequence_confidence(np.exp(np.minimum(next(stats).logps, 0.0))) if s else math.nan for s in spoken]
    sure = [math.nan] * len(texts)
    if settings.certainty != "none":
        sure = _sure_probabilities(lm, prompts, texts, settings, progress)
    return [CertainAnswer(*found) for found in zip(texts, confidences, sure, strict=True)]


def _spoken(lm: LanguageModel, tokens: Sequence[int], text: str, stops: Sequence[str]) -> list[int]:
    """The fewest generated tokens that spell the answer: what was cut off counts for nothing."""
    if not text:
        return []
    if not tokens:  # put together by a guard
        return list(lm.tokenizer(text, add_special_tokens=False)["input_ids"])
    for n in range(1, len(tokens) + 1):
        said = str(lm.tokenizer.decode(list(tokens[:n]), skip_special_tokens=True))
        if said.strip().startswith(text) or any(stop in said for stop in stops):
            return list(tokens[:n])
    return list(tokens)


def _continued(lm: LanguageModel, prompt: Prompt, front: list[int], said: list[int]) -> Encoded:
    from demur.data import Encoded
    from demur.models.chat import picture_source

    return Encoded([*front, *said], len(front), "", *picture_source(lm, prompt))


def _sure_probabilities(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    settings: AbstentionSettings,
    progress: Progress | None,
) -> list[float]:
    """p(sure) beside p(unsure), each by the first token in which the two go different ways."""
    from demur.models import encode, token_stats

    asked: list[Prompt] = list(prompts)
    fronts = [certainty_front(answer, settings.question) for answer in answers]
    if settings.certainty == "turn":
        asked = [_next_turn(p, a, settings.question) for p, a in zip(prompts, answers, strict=True)]
        fronts = ["I am"] * len(answers)
    both = [encode(lm, asked, [f"{front} {word}." for front in fronts]) for word in settings.words]
    pairs = [_first_difference(lm, one, other, settings.words) for one, other in zip(*both, strict=True)]
    report = counter(progress, "certainty", 2 * len(pairs))
    stats = token_stats(
        lm, [e for pair in pairs for e in pair], moments=False, batch_size=settings.batch_size, progress=report
    )
    logps = np.array([s.logps[0] for s in stats]).reshape(-1, 2)
    return [float(p) for p in 1.0 / (1.0 + np.exp(np.clip(logps[:, 1] - logps[:, 0], -700, 700)))]


def _next_turn(prompt: Prompt, answer: str, question: str) -> Prompt:
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return [*before, {"role": "assistant", "content": answer}, {"role": "user", "content": question}]


def _first_difference(lm: LanguageModel, one: Encoded, other: Encoded, words: Sequence[str]) -> tuple[Encoded, Encoded]:
    """The texts up to and with the first token in which they differ, which is the only label.

    Raises:
        UsageError: that token is not the first of either word.
    """
    a, b = one.input_ids, other.input_ids
    place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)) - 1)
    for ids, word in zip((a, b), words, strict=True):
        # White space may be a token of its own before both words; a piece of the words may not.
        if not str(lm.tokenizer.decode(ids[place:])).lstrip().startswith(word):
            raise UsageError(
                f"{words[0]!r} and {words[1]!r} begin with the same token for {lm.name}: choose other words"
            )
    return tuple(  # type: ignore[return-value]
        dataclasses.replace(item, input_ids=item.input_ids[: place + 1], prompt_length=place) for item in (one, other)
    )


def abstains(answer: str, truth: str) -> bool:
    """Whether an answer says that the model does not know, and does not then give the true answer.

    A refusal by key words and the admissions that demur teaches count.
    """
    if holds_answer(answer, truth):
        return False
    return refuses(answer) or any(holds_answer(answer, sentence) for sentence in ABSTENTIONS)


def abstention_samples(
    lm: LanguageModel,
    sets: Mapping[str, Dataset],
    settings: AbstentionSettings | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Samples:
    """Ask a model every question of some sets.

    Args:
        lm: the model.
        sets: domain → rows with questions and answers.
        settings: how to ask.
        progress: called with what is being done, how much of it is done and how much there is.
        engine: see `answer_with_certainty`.

    Returns:
        A table a set with id, prompt, truth, generation, correct, abstained (by its words), willing (it neither
        abstained nor called itself unsure), predict_conf, sure_prob and combined.
    """
    import pandas as pd

    from demur.data import question_answer

    settings = settings or AbstentionSettings()
    tables = {}
    for name, rows in sets.items():
        prompts, truths = question_answer(rows)
        told = _within(progress, name)
        answers = answer_with_certainty(lm, prompts, settings, told, engine)
        lines = []
        for row, prompt, truth, answer in zip(rows["id"][:], prompts, truths, answers, strict=True):
            held_back = abstains(answer.text, truth)
            lines.append(
                {
                    "id": str(row),
                    "prompt": _said(prompt),
                    "truth": truth,
                    "generation": answer.text,
                    "correct": float(_right(answer.text, truth, settings.match)),
                    "abstained": float(held_back),
                    "willing": float(not held_back and not answer.sure_prob <= 0.5),
                    "predict_conf": answer.predict_conf,
                    "sure_prob": answer.sure_prob,
                    "combined": answer.combined,
                }
            )
        tables[name] = pd.DataFrame(lines)
    return Samples(tables, lm.name, {"settings": dataclasses.asdict(settings)})


def _right(said: str, truth: str, match: str) -> bool:
    return holds_answer(said, truth) and (match == "substring" or holds_answer(truth, said))


def _said(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def _within(progress: Progress | None, name: str) -> Progress | None:
    return None if progress is None else lambda stage, done, total: progress(f"{name} {stage}", done, total)


def _domains(request: AuditRequest, column: str) -> dict[str, Dataset]:
    """The rows by domain: every set is one, or as many as its column says."""
    from demur.data import read_rows

    if not request.sources:
        raise UsageError("an abstention audit needs questions with answers: pass --rows NAME=SOURCE")
    out: dict[str, Dataset] = {}
    for name, source in request.sources.items():
        rows = request.shared.once(("rows", source), lambda s=source: read_rows(s))  # type: ignore[misc]
        if column not in rows.column_names:
            out[name] = rows
            continue
        values = rows[column][:]
        for value in dict.fromkeys(values):
            word = re.sub(r"\W+", "_", str(value))
            key = word if len(request.sources) == 1 else f"{name}_{word}"
            out[key] = rows.select([i for i, v in enumerate(values) if v == value])
    return out


def _stated(rows: Dataset) -> list[bool | None] | None:
    """What the rows themselves say of what the model knows, by a column `known`, or by `label`."""
    if "known" in rows.column_names:
        return [None if v is None else bool(v) for v in rows["known"][:]]
    if "label" in rows.column_names and any(v in _BY_LABEL for v in rows["label"][:]):
        return [_BY_LABEL.get(v) for v in rows["label"][:]]
    return None


def _taught_to_ask(request: AuditRequest) -> dict[str, Any]:
    """A run of R-Tuning that replaces answers taught the model nothing about the question for certainty."""
    config = request.config
    taught = config.get("method") == "r-tuning" and (config.get("method_options") or {}).get("variant") == "replace"
    return {"certainty": "none"} if taught and "certainty" not in request.settings else {}


@suites.register("abstention")
def run_abstention(request: AuditRequest, progress: RoleProgress | None = None) -> tuple[RunFolder, list[SuiteReport]]:
    """Audit what a run, or a plain model, says of its own knowledge.

    Every set of rows is a domain of its own, and a column `domain` parts a set into several. What is known is stated by
    a column `known` (true or false) or `label` (comply or abstain), and otherwise measured: what the model before
    answers correctly.

    Args:
        request: what to audit; its sources are sets of questions under any names. Its settings may also name a `guard`,
            the folder of one that answers in the place of the run's model; certainty is then the model's own.
        progress: called with whose model is measured, what is being done, how much of it is done and how much there is.

    Returns:
        The folder and the reports: of the run's model, the model before and the reference, as far as there are any.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    from demur.data import rows_hash

    request.check()
    guard, own = guard_of(request.settings)
    settings = make_settings(AbstentionSettings, "an abstention", {**_taught_to_ask(request), **own})
    sets = _domains(request, settings.domain)
    hashes = {name: [rows_hash(rows), list(rows["id"])] for name, rows in sets.items()}
    told = {k: v for k, v in dataclasses.asdict(settings).items() if k not in ("bins", "domain", "batch_size")}

    def measure(lm: LanguageModel, watch: Progress | None) -> Samples:
        parts = ["abstention", _VERSION, hashes, told]
        return cached_pass(Samples, lm, parts, lambda: abstention_samples(lm, sets, settings, watch))

    def guarded(lm: LanguageModel, watch: Progress | None) -> Samples:
        return abstention_samples(lm, sets, settings, watch, answering(lm, guard, settings.batch_size))

    known, note = _known(request, sets, measure, progress)
    said = {} if guard is None else {"guard": "certainty is the model's own, of what the guard answered"}

    def report(samples: Samples, reference: Samples | None, *, role: Role, seed: int, seconds: float) -> SuiteReport:
        tables = {name: t.assign(known=known[name], domain=name) for name, t in samples.tables.items()}
        results, notes = abstention_results(tables, bins=settings.bins, role=role, seed=seed, seconds=seconds)
        behind = said if role == "run" else {}
        return SuiteReport(results, {**behind, **note, **notes}, dataclasses.replace(samples, tables=tables), reference)

    suite: Suite[Samples, SuiteReport] = Suite(
        name="abstention",
        sources=dict(request.sources),
        data_hash=hash_json(hashes),
        measure=measure,
        report=report,
        measure_run=None if guard is None else guarded,
        write=lambda folder, reports: folder.update_state(abstention={"bins": settings.bins, "domains": list(sets)}),
    )
    return audit_roles(request, suite, progress)


def _known(
    request: AuditRequest,
    sets: Mapping[str, Dataset],
    measure: Callable[[LanguageModel, Progress | None], Samples],
    progress: RoleProgress | None,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """By domain 1 for questions that are known, 0 for others, nan where nobody can tell; and a note on the source."""
    stated = {name: _stated(rows) for name, rows in sets.items()}
    out = {name: [math.nan] * len(rows) for name, rows in sets.items()}
    for name, values in stated.items():
        if values is not None:
            out[name] = [math.nan if v is None else float(v) for v in values]
    silent = [name for name, values in stated.items() if values is None]
    before = request.load_model("before") if silent else None
    if before is None:
        return out, {}
    told = None if progress is None else lambda stage, done, total: progress("before", stage, done, total)
    found = measure(before, told)
    for name in silent:
        out[name] = found.tables[name]["correct"].astype(float).tolist()
    return out, {"abstention_known": f"known is what the model before answers correctly ({', '.join(silent)})"}
