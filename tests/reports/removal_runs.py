"""A small run folder as the removal suite leaves it, with made-up numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from demur.runs import Result, RunFolder

FACTS = [(f"f{i}", f"What is fact {i}?", f"It is answer {i}.") for i in range(6)]
KNOWN = {"run": 0.1, "reference": 0.01, "before": 0.95}
STEPS = {0: 0.1, 15: 0.5, 60: 0.62}


def removal_run(root: Path, name: str = "npo", **state: Any) -> RunFolder:
    """Audited with the removal suite alone."""
    folder = RunFolder.create(root / name, {"command": "forget", "model": "m", "objective": "npo"})
    shared: dict[str, Any] = {"run": name, "suite": "removal"}
    results = []
    for attack, value in (("relearn", 0.63), ("int4", 0.02)):
        results.append(
            Result(
                metric=f"recovery_{attack}",
                value=value,
                low=value - 0.1,
                high=value + 0.1,
                n=6,
                better="lower",
                **shared,
            )
        )
        for role, known in KNOWN.items():
            results.append(
                Result(metric=f"knowledge_{attack}", value=known, low=known, high=known, n=6, role=role, **shared)
            )
    for role in KNOWN:
        results += [
            Result(metric=f"lens_{n}", value=0.1 * n, low=0.0, high=1.0, n=6, role=role, **shared) for n in range(3)
        ]
    folder.add_results(results)
    rows = []
    for role, known in KNOWN.items():
        for fact, _, _ in FACTS:
            rows.append(("int4", 0, 0.0, 0, fact, known, role))
            rows += [("lens", 0, 0.0, layer, fact, 0.1 * layer, role) for layer in range(3)]
            for step, value in STEPS.items():
                rows.append(("relearn", 0, 5e-4, step, fact, value if role == "run" else known, role))
    columns = ["attack", "seed", "lr", "step", "id", "knowledge", "role"]
    folder.write_samples("removal_measurements", pd.DataFrame(rows, columns=columns))
    table = pd.DataFrame(FACTS, columns=["id", "prompt", "truth"]).assign(entity="e", shown=False)
    folder.write_samples("removal_facts", table)
    claims = [
        {"claim": "The facts are no longer shown", "answer": "forgotten", "evidence": ["It knows 0.1 of the facts."]},
        {"claim": "It is gone from the weights", "answer": "suppression", "evidence": ["relearn recovers 0.63."]},
    ]
    found = {
        "outcome": "suppression",
        "claims": claims,
        "control": True,
        "intention": "removal",
        "skipped": {},
        "guard": None,
    }
    folder.update_state(removal={**found, **state}, status="complete")
    folder.log("audit", suite="removal", role="run", notes={"verdict": "suppression."})
    return folder
