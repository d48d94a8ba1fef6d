"""Ten deletion requests on one model, one after another and together: what a sequence costs.

`python -m benchmarks.sequence [--seeds 1,2,3]`

The lab's Almanac model is to forget its 50 forget rows, five a request, with NPO and a loss on the 200 retain rows and
the same settings in every step. Measured after every step: the utility (mean probability of the retain answers), the
forget score of every request so far, and above all of the first one, which nine later requests could bring back. Beside
it stand the same with every step going once through all retain rows, and one step over all ten requests at once. Gold
is the model that never saw the rows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

MODEL, GOLD = "lab:almanac", "lab:almanac-gold"
FORGET, RETAIN = "lab:almanac:forget", "lab:almanac:retain"
REQUESTS, ROWS = 10, 5
SETTINGS: dict[str, Any] = {
    "objective": "npo",
    "retain_objective": "nll",
    "learning_rate": 5e-4,
    "batch_size": 4,
    "schedule": "constant",
    "save_steps": 10**6,
    "device": "cpu",
}
SIDES: dict[str, tuple[dict[str, Any], bool]] = {
    "one after another": ({"epochs": 10}, False),
    "one after another, through all retain rows": ({"epochs": 1, "anchor": "retain"}, False),
    "together": ({"epochs": 10}, True),
}
"""Side → its own settings, and whether all requests share one step. An epoch goes through the requested rows, with as
many retain rows drawn beside them, or once through all retain rows."""


def answer(folder: Path, seed: int, own: dict[str, Any], together: bool) -> dict[str, Any]:
    """Make a ledger with ten requests, answer them, and say what was measured."""
    from demur.requests import Ledger
    from demur.requests.history import UTILITY

    ledger = Ledger.create(folder, model=MODEL, retain=RETAIN, reference=GOLD, seed=seed, **own, **SETTINGS)
    for number in range(REQUESTS):
        ledger.add(f"{FORGET}[{number * ROWS}:{(number + 1) * ROWS}]", f"requester {number + 1}")
    started = time.perf_counter()
    ledger.process(together=together)
    seconds = time.perf_counter() - started
    past, standings = ledger.history(), ledger.status()
    steps = past.finished

    def value(found: Any) -> list[float]:
        return [round(end, 4) for end in (found.value, found.low, found.high)]

    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "step_seconds": [step.seconds for step in steps],
        "utility": [value(steps[0].measure(UTILITY, role="before")), *(value(s.measure(UTILITY)) for s in steps)],
        "first_request": [value(measure) for _, measure in past.forget_scores(1)],
        "before": [value(s.before) for s in standings],
        "own": [value(s.forget) for s in standings],
        "last": [value(s.latest) for s in standings],
        "gold": [value(s.reference) for s in standings],
        "verdicts": [s.verdict.word if s.verdict else None for s in standings],
    }


def mean(values: list[list[float]]) -> float:
    """Mean of values that come with intervals."""
    return sum(value for value, *_ in values) / len(values)


def table(result: dict[str, list[dict[str, Any]]]) -> str:
    """The result as the rows of a table in Markdown, means over the seeds."""

    def over(side: str, pick: Any) -> str:
        found = [pick(run) for run in result[side]]
        return f"{sum(found) / len(found):.3f} ({min(found):.3f} to {max(found):.3f})"

    lines = [f"| | {' | '.join(SIDES)} |", "| --- |" + " --- |" * len(SIDES)]
    for name, pick in {
        "utility before": lambda r: r["utility"][0][0],
        "lowest utility on the way": lambda r: min(v[0] for v in r["utility"]),
        "utility after all ten": lambda r: r["utility"][-1][0],
        "forget score before": lambda r: mean(r["before"]),
        "forget score after its own step": lambda r: mean(r["own"]),
        "forget score after all ten": lambda r: mean(r["last"]),
        "… of the first request, after its own step": lambda r: r["first_request"][0][0],
        "… of the first request, highest after a later step": lambda r: max(v[0] for v in r["first_request"]),
        "forget score of gold": lambda r: mean(r["gold"]),
        "requests whose verdict is not “forgotten”": lambda r: sum(word != "forgotten" for word in r["verdicts"]),
        "seconds a request": lambda r: r["seconds"] / REQUESTS,
    }.items():
        lines.append(f"| {name} | {' | '.join(over(side, pick) for side in SIDES)} |")
    return "\n".join(lines)


def main() -> None:
    """Run both sides for every seed, print the table, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1,2,3")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from demur.lab import model_path

    model_path(MODEL), model_path(GOLD)  # built outside the measured time
    result: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for seed in map(int, parser.parse_args().seeds.split(",")):
        for side, (own, together) in SIDES.items():
            with tempfile.TemporaryDirectory() as folder:
                result[side].append(answer(Path(folder) / "ledger", seed, own, together))
            print(f"  {side} seed {seed}: {result[side][-1]['seconds']} s", flush=True)
    print(table(result))
    measure.save("sequence", {"settings": SETTINGS, "sides": SIDES, "requests": REQUESTS, "rows": ROWS, **result})


if __name__ == "__main__":
    main()
