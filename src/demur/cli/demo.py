"""`demur demo`: the main job, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]

METHODS = {
    "ga": {"objective": "ga"},
    "graddiff": {"objective": "graddiff"},
    "npo": {"objective": "npo", "retain_objective": "nll"},
    "simnpo": {"objective": "simnpo"},
}
"""The unlearning runs of the demo; each is compared at the same settings."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Decides models, order and partners.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the forget set.")] = 10,
) -> None:
    """Do the main job once, offline: train a small model and its gold reference, forget four ways, audit, report.

    Example: demur demo --out runs/demo
    """
    import time

    import torch
    from rich.console import Console

    from demur.audits import AuditRequest, Trajectory, run_tofu
    from demur.files import require_writable
    from demur.models import resolve_model
    from demur.reports import write_report
    from demur.training import ForgetSettings, forget

    require_writable(out)
    torch.set_num_threads(1)  # models this small lose more to a second thread than they gain
    started = time.monotonic()
    console = Console(stderr=True, emoji=False)

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.0f} s[/] {text}")

    model, gold = f"lab:almanac@seed={seed}", f"lab:almanac-gold@seed={seed}"
    say("lab model: learns every fictitious author by heart")
    resolve_model(model)
    say("gold reference: the same without the authors to be forgotten")
    resolve_model(gold)
    runs = []
    for name, method in METHODS.items():
        settings = ForgetSettings.make(
            model=model,
            forget="lab:almanac:forget",
            retain="lab:almanac:retain",
            holdout="lab:almanac:holdout",
            learning_rate=5e-4,
            schedule="constant",
            epochs=epochs,
            seed=seed,
            **method,
        )
        say(f"{name}: forgets")
        run = forget(settings, out / name, Trajectory(settings, out / name))
        say(f"{name}: is audited")
        run_tofu(AuditRequest(target=str(run.path), reference=gold, seed=seed))
        runs.append(run)
    report = write_report(runs, out / "report.html")
    say("done")
    typer.echo(f"report: {report}")
