"""Requests to forget that come one after another: each run starts from the last, and all are measured after each.

MUSE's sustainability (Shi et al. 2024, arXiv 2407.06460, section 3): does what was forgotten stay forgotten, and how
fast does the rest wear out. For requests that people make, with deadlines and certificates, see `demur requests`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.audits.muse import report_muse
from demur.audits.muse_data import MuseData, MuseSettings
from demur.audits.muse_scoring import muse_samples
from demur.errors import UsageError
from demur.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

    from demur.models import LanguageModel
    from demur.training import ForgetSettings

__all__ = ["forget_in_turn"]

_FORGET, _KEPT = ("forget_verbmem", "forget_verbmem_extraction_strength"), ("retain_verbmem", "retain_knowmem")


def forget_in_turn(
    settings: ForgetSettings,
    requests: Sequence[str],
    out: str | Path,
    *,
    rows: Mapping[str, str] | None = None,
    measure: MuseSettings | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> pd.DataFrame:
    """Forget sets of texts one after another, each from the model that the last one left.

    Done again with the same arguments, it goes on where it stopped.

    Args:
        settings: how to forget; their `model` is the first one's start, their `forget` is replaced by each request.
        requests: where each request's texts are, for instance `muse:News:sust:forget_1` to `…forget_4`.
        out: folder; `out/1`, `out/2` … are the runs, `out/sequence.csv` is the table.
        rows: more sets that are measured after each request, by their names in a MUSE audit; those of the corpus by
            default (what it has of forget_knowmem, retain_knowmem and their examples), and the retain texts' second
            halves as retain_verbmem.
        measure: how to measure.
        progress: called with the number of requests done and the number there are.

    Returns:
        The table: step (requests done), set (request number, or "kept"), metric, value, low, high, n. Step 0 is the
        model before any request; every request is measured at every step, also before its turn.

    Raises:
        UsageError: there are no requests, they are no texts, or a run cannot be done as asked.
        DemurError: a training failed.
    """
    import pandas as pd

    from demur.models import load_model
    from demur.training import forget

    if not requests:
        raise UsageError("there is nothing to forget: name at least one request")
    sets = {str(k): MuseData.read(forget_verbmem=source) for k, source in enumerate(requests, start=1)}
    others = _others(settings, requests[0]) if rows is None else dict(rows)
    if others:
        sets["kept"] = MuseData.read(**others)
    load = {k: getattr(settings, k) for k in ("template", "device", "dtype", "trust_remote_code")}
    table, model = [], settings.model
    for step in range(len(requests) + 1):
        if step:
            given = settings.model_copy(update={"model": model, "forget": requests[step - 1]})
            model = str(forget(given, Path(out) / str(step)).path)
        table += _measured(load_model(model, **load), sets, measure or MuseSettings(attacks=()), step)
        if progress is not None:
            progress(step, len(requests))
    frame = pd.DataFrame(table)
    with atomic_write(Path(out) / "sequence.csv") as temporary:
        frame.to_csv(temporary, index=False)
    return frame


def _others(settings: ForgetSettings, request: str) -> dict[str, str]:
    from demur.data.muse import corpus_sets, muse_corpus

    corpus = muse_corpus(request)
    known = corpus_sets(corpus) if corpus is not None else {}
    found = {name: source for name, source in known.items() if "_knowmem" in name}
    if settings.retain is not None:
        found["retain_verbmem"] = settings.retain
    return found


def _measured(lm: LanguageModel, sets: Mapping[str, MuseData], settings: MuseSettings, step: int) -> list[Any]:
    out = []
    for name, data in sets.items():
        wanted = (*_KEPT, "forget_knowmem") if name == "kept" else _FORGET
        for result in report_muse(muse_samples(lm, data, settings), settings=settings).results:
            if result.metric in wanted and result.value is not None:
                kept = {k: v for k, v in asdict(result).items() if k in ("metric", "value", "low", "high", "n")}
                out.append({"step": step, "set": name, **kept})
    return out
