"""The run folder: everything a command does lands in one place, each file whole.

config.yaml        the resolved settings; itself a recipe that repeats the run
state.json         what stage the run is in, and the hashes of its data and weights
events.jsonl       what happened and when, one JSON object a line
results.parquet    tidy results, one `Result` a row
samples/*.parquet  the samples behind the results
model/             the model in Hugging Face format (safetensors)
report.html        written by `demur report`
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import UsageError
from demur.files import atomic_write, read_settings, require_writable, write_json

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Better", "Result", "RunFolder"]

Better = Literal["higher", "lower", "zero", "reference", "none"]


@dataclass(frozen=True)
class Result:
    """One number with what is needed to trust it.

    Attributes:
        run: name of the run it belongs to.
        suite: suite that measured it, for instance "tofu".
        metric: name of the metric.
        value: the number; None where it could not be computed.
        low, high: ends of its 95 % interval; None where the metric has none (a p-value).
        n: samples that went into it.
        unscored: samples that could not be scored and were left out.
        role: whose number it is: the run's model, the model before it, or the reference (gold) model.
        better: which direction is good; "reference" means near the reference model's value.
        method: how the interval was made: "bootstrap", "exact", "none".
        epoch: training epoch after which it was measured; None for the final model.
        seed: seed of the run.
        seconds: time spent on it.
    """

    run: str
    suite: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unscored: int = 0
    role: Literal["run", "before", "reference"] = "run"
    better: Better = "none"
    method: Literal["bootstrap", "exact", "none"] = "bootstrap"
    epoch: float | None = None
    seed: int | None = None
    seconds: float = 0.0


class RunFolder:
    """A folder that holds one run.

    Args:
        path: the folder; it is made by `create`, not here.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The folder's own name, used as the run's name in results."""
        return self.path.resolve().name

    @property
    def model_path(self) -> Path:
        """Where the run's model lies."""
        return self.path / "model"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """A folder that holds a run.

        Raises:
            UsageError: it does not exist or is no run folder.
        """
        run = cls(path)
        if not (run.path / "config.yaml").is_file():
            raise UsageError(f"{path} is not a run folder: it has no config.yaml")
        return run

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], config: dict[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> RunFolder:
        """Make the folder, or take up the one that the same settings made before.

        Args:
            path: the folder.
            config: the run's resolved settings.
            defaults: what a setting was before it existed: folders from then lack it.

        Raises:
            UsageError: the folder holds another run, or something that is no run, or cannot be written.
        """
        import yaml

        run = cls.check(path, config, defaults)
        file = run.path / "config.yaml"
        if file.exists():
            return run
        try:
            with atomic_write(file) as temporary:
                temporary.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        except OSError as error:
            with contextlib.suppress(OSError):
                run.path.rmdir()
            raise UsageError(f"cannot write to {path}: {error.strerror or error}") from error
        return run

    @classmethod
    def check(
        cls, path: str | os.PathLike[str], config: dict[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> RunFolder:
        """The folder that `create` would make or take up; nothing is written.

        Raises:
            UsageError: as for `create`.
        """
        run = cls(path)
        if run.path.is_dir():
            if (run.path / "config.yaml").exists():
                known, wanted = {**(defaults or {}), **run.config}, json.loads(json.dumps(config))
                changed = sorted(k for k in {*known, *wanted} if known.get(k) != wanted.get(k))
                if changed:
                    names = ", ".join(changed)
                    raise UsageError(
                        f"{path} holds a run with other settings ({names}): choose another --out or remove it"
                    )
            elif any(run.path.iterdir()):
                raise UsageError(f"{path} exists and is no run folder: choose another --out")
        elif run.path.exists():
            raise UsageError(f"{path} is a file, not a folder: choose another --out")
        require_writable(path)
        return run

    @property
    def config(self) -> dict[str, Any]:
        """The run's resolved settings.

        Raises:
            UsageError: `config.yaml` is not what a run writes.
        """
        return read_settings(self.path / "config.yaml")

    @property
    def state(self) -> dict[str, Any]:
        """What stage the run is in; empty before the first `update_state`."""
        file = self.path / "state.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def update_state(self, **changes: Any) -> None:
        """Merge `changes` into the state, atomically."""
        write_json(self.path / "state.json", {**self.state, **changes})

    def log(self, event: str, **facts: Any) -> None:
        """Append one event to `events.jsonl`."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}, default=str)
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All events; a last line cut short by a crash is passed over."""
        file = self.path / "events.jsonl"
        out = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            try:
                out.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return out

    def add_results(self, results: Iterable[Result]) -> None:
        """Add results, replacing earlier ones of the same run, suite, metric, role and epoch."""
        import pandas as pd

        new = pd.DataFrame([asdict(r) for r in results], columns=[f.name for f in fields(Result)])
        table = pd.concat([frame for frame in (self.results(), new) if len(frame)] or [new])
        table = table.drop_duplicates(["run", "suite", "metric", "role", "epoch"], keep="last")
        with atomic_write(self.path / "results.parquet") as temporary:
            table.to_parquet(temporary, index=False)

    def results(self) -> pd.DataFrame:
        """All results as a table with the columns of `Result`."""
        import pandas as pd

        file = self.path / "results.parquet"
        return pd.read_parquet(file) if file.exists() else pd.DataFrame(columns=[f.name for f in fields(Result)])

    def write_samples(self, name: str, samples: pd.DataFrame) -> None:
        """Write the samples behind some results to `samples/<name>.parquet`."""
        with atomic_write(self.path / "samples" / f"{name}.parquet") as temporary:
            samples.to_parquet(temporary, index=False)

    def samples(self, name: str) -> pd.DataFrame | None:
        """The samples called `name`, or None."""
        import pandas as pd

        file = self.path / "samples" / f"{name}.parquet"
        return pd.read_parquet(file) if file.exists() else None


def finite(value: float | None) -> float | None:
    """`value`, or None where it is not a finite number."""
    return None if value is None or not math.isfinite(value) else float(value)
