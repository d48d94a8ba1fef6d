"""The objectives beside NPO on the authors' language model: each forgets, and keeps what it has a retain term for.

Thresholds are ours: NPO's own gates for a method with a retain term (forget probability at most 0.2, retain probability
at least 0.85). A loss of the wrong sign leaves the forget probability where it was, near 0.97.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.studies.authors import NEVER, UNLEARN, Authors, authors, mean_nlls, mean_probability
from demur.studies.npo import synthetic
from demur.studies.registry import Progress
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

RETAIN_LIMIT = 0.1
"""Above the retain loss before, about 0.04 nats a token."""

# Name → settings beside those that all share. The model has two layers; a longer vector goes with its smaller states.
METHODS: dict[str, dict[str, Any]] = {
    "GA": {"objective": "ga"},
    "GradDiff": {"objective": "graddiff"},
    "NPO+RT": {"objective": "npo", "retain_objective": "nll"},
    "UNDIAL": {"objective": "undial"},
    "UNDIAL+RT": {"objective": "undial", "retain_objective": "nll"},
    "CE-U": {"objective": "ceu"},
    "CE-U+RT": {"objective": "ceu", "retain_objective": "nll"},
    "WGA": {"objective": "wga"},
    "SatImp": {"objective": "satimp"},
    "RMU": {"objective": "rmu", "objective_options": {"layer": 0}},
    "PDU": {"objective": "pdu", "retain_limit": RETAIN_LIMIT, "dual_warmup": 3},
    "AltPO": {"objective": "altpo"},
    "AltPO, TOFU's wrong answers": {"objective": "altpo"},
}
SHARED_WORDING = "AltPO, TOFU's wrong answers"
"""Answers that differ from the true one in its facts alone: most tokens are in both, and keep their probability."""
KEEPING = [name for name in METHODS if name not in ("GA", "GradDiff", "NPO+RT", "UNDIAL", "CE-U", SHARED_WORDING)]


@synthetic.part("siblings", seeds=(1, 2, 3), minutes=4)
def siblings(seed: int, progress: Progress) -> dict[str, float]:
    """The same small language model forgets two of its authors by every other objective there is."""
    import numpy as np

    from demur.models import load_model
    from demur.training import ForgetSettings, forget

    world = authors(seed, lambda done, total, note="": progress(done, 2 + len(METHODS), note))
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as holder:
        work = Path(holder)
        models = {"before": world.base, "gold": world.gold}
        for done, (name, given) in enumerate(METHODS.items()):
            progress(2 + done, 2 + len(METHODS), name)
            settings = ForgetSettings(
                model=str(world.base),
                forget=_with_wrong_answers(world, work) if "wrong" in name else world.forget_file,
                retain=world.kept_file,
                seed=seed,
                **given,
                **UNLEARN,
                **NEVER,
            )
            models[name] = forget(settings, work / name).model_path
        for name, model in models.items():
            lm = load_model(model)
            measured[f"{name} forget"] = mean_probability(lm, world.forget)
            measured[f"{name} retain"] = mean_probability(lm, world.kept)
            if name == "PDU":
                nlls = mean_nlls(lm, world.kept["question"], world.kept["answer"])
                measured["PDU retain loss"] = float(np.mean(nlls))
    return measured


def _with_wrong_answers(world: Authors, work: Path) -> str:
    """The forget rows with TOFU's perturbed answers, plausible and false, for their alternates."""
    file = work / "alternates.jsonl"
    lines = (
        {"question": row["question"], "answer": row["answer"], "alternates": row["perturbed_answer"]}
        for row in world.forget
    )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(file)


@siblings.claims
def siblings_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What a right implementation must do; the papers measure other models."""
    forget = {name: m[f"{name} forget"] for name in ("before", "gold", *METHODS)}
    retain = {name: m[f"{name} retain"] for name in ("before", "gold", *METHODS)}
    for name in KEEPING:
        known = ["before", "gold", "GradDiff", "NPO+RT", *([SHARED_WORDING] if name == "AltPO" else [])]
        yield Claim(
            text=f"{name} forgets (forget probability)",
            measured=forget[name],
            threshold="<= 0.2",
            kind="ours",
            baselines={other: forget[other] for other in known},
        )
        yield Claim(
            text=f"{name} keeps the rest (retain probability)",
            measured=retain[name],
            threshold=">= 0.85",
            kind="ours",
            baselines={other: retain[other] for other in (*known, "GA")},
        )
    yield Claim(
        text="PDU ends with its retain loss below its limit (loss over limit)",
        measured=m["PDU retain loss"] / RETAIN_LIMIT,
        threshold="<= 1",
    )
    yield Claim(
        text="UNDIAL and CE-U forget without a retain term too (the larger forget probability)",
        measured=m[["UNDIAL forget", "CE-U forget"]].max(axis=1),
        threshold="<= 0.2",
        kind="ours",
        baselines={"UNDIAL": forget["UNDIAL"], "CE-U": forget["CE-U"], "GA": forget["GA"]},
    )
    yield Claim(
        text="Without a retain term UNDIAL keeps what gradient ascent and CE-U lose (retain probability over theirs)",
        measured=retain["UNDIAL"] / m[["GA retain", "CE-U retain"]].max(axis=1),
        threshold=">= 10",
        kind="ours",
        baselines={"UNDIAL": retain["UNDIAL"], "CE-U": retain["CE-U"], "GA": retain["GA"]},
    )
