"""Forgetting as it happens: forget and retain probability after every epoch of a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demur.audits.estimates import Audit, evaluate
from demur.audits.memorisation import probability
from demur.runs import Result, RunFolder

if TYPE_CHECKING:
    from demur.data import Encoded
    from demur.models import LanguageModel
    from demur.training import ForgetSettings

__all__ = ["Trajectory"]


class Trajectory:
    """Measures a model in training and writes the numbers into its run folder, suite "trajectory".

    Args:
        settings: the run's settings; they name the forget and retain rows.
        out: the run folder.
        rows: at most this many rows of each set are measured, evenly spread over it.
    """

    def __init__(self, settings: ForgetSettings, out: str | Path, rows: int = 100) -> None:
        self.settings, self.out, self.rows = settings, Path(out), rows
        self._encoded: dict[str, list[Encoded]] = {}

    def __call__(self, lm: LanguageModel, epoch: float) -> None:
        """Measure `lm` after `epoch` epochs; the model is left in the mode that it was in."""
        training = lm.model.training
        try:
            results = [
                self._measure(lm, name, source, epoch)
                for name, source in (("forget", self.settings.forget), ("retain", self.settings.retain))
                if source is not None
            ]
        finally:
            lm.model.train(training)
        RunFolder(self.out).add_results(results)

    def _measure(self, lm: LanguageModel, name: str, source: str, epoch: float) -> Result:
        import pandas as pd

        from demur.models import token_stats

        started = time.perf_counter()
        if source not in self._encoded:
            self._encoded[source] = self._read(lm, source)
        stats = token_stats(lm, self._encoded[source], moments=False)
        table = pd.DataFrame({"probability": [probability(s.logps) for s in stats]})
        metric = f"{name}_probability"
        return evaluate(Audit({name: table}, seed=self.settings.seed), [metric])[metric].result(
            metric,
            run=RunFolder(self.out).name,
            suite="trajectory",
            epoch=float(epoch),
            seed=self.settings.seed,
            seconds=time.perf_counter() - started,
        )

    def _read(self, lm: LanguageModel, source: str) -> list[Encoded]:
        from demur.data import read_rows
        from demur.models import encode_rows

        data = read_rows(source)
        if len(data) > self.rows:
            data = data.select(np.linspace(0, len(data) - 1, self.rows).round().astype(int))
        return encode_rows(lm, data, self.settings.chunk_length)
