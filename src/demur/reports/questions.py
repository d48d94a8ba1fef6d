"""The question-by-question view: each question, its true answer and what each model answered, as compact data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from demur.reports.evidence import Evidence, Run
from demur.reports.glossary import SAMPLE_NUMBERS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["embed_json", "questions_data"]

_TITLES = {
    "forget": "Forget set",
    "retain": "Retain set",
    "real_authors": "Real authors",
    "world_facts": "World facts",
    "holdout": "Hold-out set",
}


class _Strings:
    """Each text once; answers that repeat the truth or each other cost a number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._index: dict[str, int] = {}

    def add(self, text: str) -> int:
        if text not in self._index:
            self._index[text] = len(self.texts)
            self.texts.append(text)
        return self._index[text]


def questions_data(evidence: Evidence) -> dict[str, Any]:
    """The samples of all runs as plain JSON data.

    Returns:
        strings: every text once; other texts are indices into it.
        splits: title of each split.
        models: label and role of each model; for a run's own model, `run` is its number among the runs.
        runs: for each run its label and the indices of its own model, of the model before and of gold (None if absent).
        numbers: key, label and meaning of the per-sample numbers.
        rows: [split, id, prompt, truth, [[model, answer or None, number, …], …]] for each question.
    """
    splits = _splits(evidence)
    frames = {(r.label, split): r.folder.samples(_prefix(r) + split) for r in evidence.runs for split in splits}
    strings = _Strings()
    numbers = [key for key in SAMPLE_NUMBERS if any(_has(frame, key) for frame in frames.values())]
    models = list(evidence.models)
    place = {id(model): index for index, model in enumerate(models)}
    rows: dict[tuple[int, str, int], list[Any]] = {}
    seen: set[tuple[tuple[int, str, int], int]] = set()
    for run in evidence.runs:
        own = {role: evidence.model(run, role) for role in ("run", "before", "reference")}
        for split_index, split in enumerate(splits):
            frame = frames[run.label, split]
            for record in [] if frame is None else frame.to_dict("records"):
                model = own.get(str(record.get("role") or "run"))
                if model is None:
                    continue
                prompt = strings.add(_text(record.get("prompt")) or "")
                key = (split_index, str(record.get("id")), prompt)
                if (key, place[id(model)]) in seen:
                    continue
                seen.add((key, place[id(model)]))
                row = rows.setdefault(key, [*key, strings.add(_text(record.get("truth")) or ""), []])
                row[4].append(_answer(record, place[id(model)], strings, numbers))
    return {
        "strings": strings.texts,
        "splits": [_TITLES[split] for split in splits],
        "models": [{"label": m.label, "role": m.role, "run": _number_of(evidence, m.runs, m.role)} for m in models],
        "runs": [_roles(evidence, run, place) for run in evidence.runs],
        "numbers": [
            {"key": key, "label": SAMPLE_NUMBERS[key][0], "meaning": SAMPLE_NUMBERS[key][1]} for key in numbers
        ],
        "rows": list(rows.values()),
    }


def embed_json(data: Any) -> str:
    """`data` as JSON that may stand inside a script element: no `<`, `>` or `&`, no line separators, no NaN."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # a lone surrogate cannot be written as UTF-8, but its escape can
    return "".join(f"\\u{ord(c):04x}" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)


def _prefix(run: Run) -> str:
    return run.suite.replace("-", "_") + "_"


def _splits(evidence: Evidence) -> list[str]:
    def has(split: str) -> bool:
        files = (run.folder.path / "samples" / f"{_prefix(run)}{split}.parquet" for run in evidence.runs)
        return any(file.is_file() for file in files)

    return [split for split in _TITLES if has(split)]


def _has(frame: pd.DataFrame | None, key: str) -> bool:
    return frame is not None and key in frame.columns and bool(frame[key].notna().any())


def _answer(record: Mapping[Any, Any], model: int, strings: _Strings, numbers: list[str]) -> list[Any]:
    generation = _text(record.get("generation"))
    return [model, None if generation is None else strings.add(generation), *(_short(record.get(k)) for k in numbers)]


def _short(value: Any) -> float | None:
    """A number with four significant digits, which is what the page shows at most."""
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def _text(value: Any) -> str | None:
    """A text, or a chat as lines of "role: content"; None where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return f"{value.get('role', '')}: {value.get('content', '')}"
    try:
        return "\n".join(_text(part) or "" for part in value)
    except TypeError:
        return str(value)


def _number_of(evidence: Evidence, runs: list[Run], role: str) -> int | None:
    return list(evidence.runs).index(runs[0]) if role == "run" else None


def _roles(evidence: Evidence, run: Run, place: Mapping[int, int]) -> dict[str, Any]:
    out: dict[str, Any] = {"label": run.label}
    for role in ("run", "before", "reference"):
        model = evidence.model(run, role)
        out[role] = None if model is None else place[id(model)]
    return out
