"""Reading and writing open-unlearning's result files, `TOFU_EVAL.json` and `TOFU_SUMMARY.json`, and MUSE's likewise.

`TOFU_EVAL.json` maps each metric to its aggregate and its values by row; membership attacks have one such entry for
the forget and one for the hold-out rows. A retain model's file serves as the reference of an audit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from demur.audits.membership import ATTACKS
from demur.audits.tofu_data import TofuSamples
from demur.audits.tofu_metrics import attack_column
from demur.errors import UsageError
from demur.files import write_json

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MUSE", "TOFU", "EvalFormat", "read_eval", "write_eval"]


class _Entry(NamedTuple):
    """How one metric of the file is told in demur's words."""

    table: str
    fields: dict[str, str]  # the file's key of a row's value → column
    metric: str | None = None  # whose value the aggregate is; None: the mean of the first field


_ROUGE = {
    "rougeL_recall": "rougeL_recall",
    "rouge1_recall": "rouge1_recall",
    "rougeL_f1": "rougeL_f1",
    "input": "prompt",
    "ground_truth": "truth",
    "generation": "generation",
}
_PREFIXES = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}
_FALSE = {"prob": "perturbed_probabilities", "avg_loss": "perturbed_losses"}


def _entries() -> dict[str, _Entry]:
    out = {}
    for prefix, table in _PREFIXES.items():
        options = table in ("real_authors", "world_facts")
        metric = None if options else f"{table}_probability"
        out[f"{prefix}_Q_A_Prob"] = _Entry(table, {"prob": "probability", "avg_loss": "loss"}, metric)
        out[f"{prefix}_Q_A_PERT_Prob"] = _Entry(table, _FALSE)
        out[f"{prefix}_Q_A_ROUGE"] = _Entry(table, _ROUGE, f"{table}_rouge")
        name = "forget_truth_ratio" if prefix == "forget" else f"{prefix}_Truth_Ratio"
        out[name] = _Entry(table, {"score": "truth_ratio"}, f"{table}_truth_ratio")
        if options:
            normalised = {"prob": "probability_normalised"}
            out[f"{prefix}_Q_A_Prob_normalised"] = _Entry(table, normalised, f"{table}_probability")
        else:
            paraphrased = {"prob": "paraphrased_probability", "avg_loss": "paraphrased_loss"}
            out[f"{prefix}_Q_A_PARA_Prob"] = _Entry(table, paraphrased)
    for score in ("extraction_strength", "exact_memorization"):
        out[score] = _Entry("forget", {"score": score}, f"forget_{score}")
    return out


def _muse_entries() -> dict[str, _Entry]:
    out = {
        f"{table}_ROUGE": _Entry(table, _ROUGE, table)
        for table in ("forget_knowmem", "retain_knowmem", "forget_verbmem")
    }
    for score in ("extraction_strength", "exact_memorization"):
        out[score] = _Entry("forget_verbmem", {"score": score}, f"forget_verbmem_{score}")
    return out


_MIA = tuple(f"mia_{attack}" for attack in ATTACKS)


class EvalFormat(NamedTuple):
    """How open-unlearning writes down one benchmark.

    Attributes:
        name: begins the files' names.
        entries: metric in the file → what it is in demur's words.
        plain: metrics that have an aggregate only.
        summarised: metrics that the summary has.
    """

    name: str
    entries: Mapping[str, Any]
    plain: tuple[str, ...]
    summarised: tuple[str, ...]

    @property
    def eval_file(self) -> str:
        """Name of the file with the values by row."""
        return f"{self.name}_EVAL.json"

    @property
    def summary_file(self) -> str:
        """Name of the file with the aggregates."""
        return f"{self.name}_SUMMARY.json"


TOFU = EvalFormat(
    "TOFU",
    _entries(),
    ("forget_quality", "model_utility", "privleak"),
    (
        "forget_truth_ratio",
        "forget_quality",
        "forget_Q_A_Prob",
        "forget_Q_A_ROUGE",
        "model_utility",
        "privleak",
        "extraction_strength",
        "exact_memorization",
        *_MIA,
    ),
)
MUSE = EvalFormat("MUSE", _muse_entries(), ("privleak",), (*_muse_entries(), "privleak", *_MIA))


def write_eval(
    folder: str | Path,
    tables: Mapping[str, pd.DataFrame],
    values: Mapping[str, float],
    wanted: Collection[str] = (),
    benchmark: EvalFormat = TOFU,
) -> None:
    """Write both files into a folder.

    Args:
        folder: made where it does not exist.
        tables: data set → samples.
        values: metric → value, under demur's names.
        wanted: metrics that were asked for; one without a value becomes null, as open-unlearning writes it.
        benchmark: whose files.
    """
    log: dict[str, Any] = {}
    for name, entry in benchmark.entries.items():
        table = _with_probabilities(tables.get(entry.table))
        if table is None or any(column not in table for column in entry.fields.values()):
            continue
        by_row = _by_row(table, entry.fields)
        value = values.get(entry.metric) if entry.metric else _mean(table[next(iter(entry.fields.values()))])
        log[name] = {"agg_value": value, "value_by_index": by_row}
    for attack in ATTACKS:
        column = attack_column(attack)
        if f"mia_{attack}" in values and all(column in tables.get(t, ()) for t in ("forget", "holdout")):
            parts = {
                t: {"agg_value": _mean(tables[t][column]), "value_by_index": _by_row(tables[t], {"score": column})}
                for t in ("forget", "holdout")
            }
            auc = values[f"mia_{attack}"]
            log[f"mia_{attack}"] = {**parts, "auc": auc, "agg_value": auc}
    log |= {name: {"agg_value": values.get(name)} for name in benchmark.plain if name in values or name in wanted}
    write_json(Path(folder) / benchmark.eval_file, dict(sorted(log.items())))
    summary = {name: log[name]["agg_value"] for name in benchmark.summarised if name in log}
    write_json(Path(folder) / benchmark.summary_file, {k: v for k, v in sorted(summary.items()) if v is not None})


def _with_probabilities(table: pd.DataFrame | None) -> pd.DataFrame | None:
    """Losses that the file also gives as probabilities, as columns."""
    if table is None:
        return None
    extra: dict[str, Any] = {}
    if "paraphrased_loss" in table:
        extra["paraphrased_probability"] = table["paraphrased_loss"].map(lambda loss: math.exp(-loss))
    if "perturbed_losses" in table:
        extra["perturbed_probabilities"] = table["perturbed_losses"].map(
            lambda losses: [math.exp(-loss) for loss in losses] if _is_list(losses) else None
        )
    return table.assign(**extra)


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)


def _mean(column: pd.Series) -> float | None:
    import numpy as np

    values = [float(np.mean(v)) for v in column if v is not None]
    return _plain(float(np.mean(values))) if values else None


def _by_row(table: pd.DataFrame, names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    columns = {key: table[column].tolist() for key, column in names.items()}
    return {str(i): {key: _plain(values[i]) for key, values in columns.items()} for i in range(len(table))}


def _plain(value: Any) -> Any:
    """A value as JSON holds it; what is not finite becomes null."""
    if _is_list(value):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def read_eval(path: str | Path, benchmark: EvalFormat = TOFU) -> TofuSamples:
    """Read a `TOFU_EVAL.json`, or another benchmark's, as the scoring pass it records.

    Rows are numbered as in the file. Columns that the file does not have are absent.

    Args:
        path: the file, or a folder that holds it.
        benchmark: whose file.

    Raises:
        UsageError: the file does not exist, is not JSON, or has no forget rows.
    """
    import pandas as pd

    path = Path(path)
    path = path / benchmark.eval_file if path.is_dir() else path
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} as open-unlearning's results: {error}") from error
    columns: dict[str, dict[str, dict[int, Any]]] = {}

    def take(table: str, entry: Any, names: Mapping[str, str]) -> None:
        for index, row in entry.get("value_by_index", {}).items():
            for key, column in names.items():
                if row is not None and key in row:
                    columns.setdefault(table, {}).setdefault(column, {})[int(index)] = row[key]

    _walk(log, path, take, benchmark)
    tables = {}
    for table, by_column in columns.items():
        rows = sorted({i for values in by_column.values() for i in values})
        frame = pd.DataFrame({c: [v.get(i) for i in rows] for c, v in by_column.items()})
        frame.insert(0, "id", [str(i) for i in rows])
        tables[table] = frame.drop(columns=["perturbed_probabilities", "paraphrased_probability"], errors="ignore")
    if not any(table.startswith("forget") for table in tables):
        raise UsageError(f"{path} has no values of forget rows: it is no {benchmark.eval_file}")
    return TofuSamples(tables, str(path), {"numbered": True})


def _walk(log: Any, path: Path, take: Callable[[str, Any, Mapping[str, str]], None], benchmark: EvalFormat) -> None:
    if not isinstance(log, dict):
        raise UsageError(f"{path} is no {benchmark.eval_file}: it holds no metrics")
    try:
        for name, entry in benchmark.entries.items():
            if log.get(name):
                take(entry.table, log[name], entry.fields)
        for attack in ATTACKS:
            for table in ("forget", "holdout"):
                part = (log.get(f"mia_{attack}") or {}).get(table)
                if part:
                    take(table, part, {"score": attack_column(attack)})
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is no {benchmark.eval_file}: {error}") from error
