"""`demur report`: one HTML file about one run or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", show_default=False, help="Run folders that `demur audit` has measured."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default="report.html in the run folder, or here when there are several",
            help="Where the report goes.",
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML report about audited runs.

    Example: demur report runs/npo runs/simnpo --out report.html
    """
    from demur.reports import write_report
    from demur.runs import RunFolder

    folders = [RunFolder.open(path) for path in runs]
    target = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    typer.echo(str(write_report(folders, target)))
