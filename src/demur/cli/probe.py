"""`demur probe`: what a model's inner states and probabilities say about preference pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli import options

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Ask a model's inner states: which preference pairs will drag down both answers."
)

Pairs = Annotated[str, typer.Option("--data", metavar="PAIRS", help="Rows with prompt, chosen and rejected.")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Pairs in one forward pass.")]


@app.callback()
def _probe() -> None:
    """Ask a model's inner states: which preference pairs will drag down both answers."""


@app.command("ches")
def ches(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model that training is to start from.")],
    data: Pairs,
    out: Annotated[Path, typer.Option(help="File to write: the rows that are kept, with a column 'ches'.")],
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|N|LOW:HIGH",
            show_default="every row",
            help="Keep the lowest: a share such as 0.05, a number such as 19, or what lies between quantiles 0.4:0.6.",
        ),
    ] = None,
    length_normalize: Annotated[
        bool, typer.Option("--length-normalize", help="Means instead of sums: for long answers of uneven length.")
    ] = False,
    batch_size: Batch = 8,
    template: options.Template = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Score preference pairs by how much training on them will lower both answers, and keep those with the lowest.

    Example: demur probe ches MODEL --data pairs.jsonl --keep 0.05 --length-normalize --out calm.jsonl
    """
    from demur.data import read_rows, write_rows
    from demur.errors import UsageError
    from demur.files import require_writable
    from demur.models import load_model
    from demur.probes import ches_scores, filter_preferences
    from demur.training import progress_bar

    wanted = None if keep is None else _parse_keep(keep)
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out or remove it")
    require_writable(out)
    rows = read_rows(data, required=("prompt", "chosen", "rejected"))
    lm = load_model(
        model,
        template=template or "auto",
        dtype=dtype or "auto",
        device=device or "auto",
        trust_remote_code=bool(trust_remote_code),
    )
    with progress_bar() as bar:
        task = bar.add_task("CHES", total=len(rows), note="")
        scores = ches_scores(
            lm,
            rows,
            length_normalize=length_normalize,
            batch_size=batch_size,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if "ches" in rows.column_names:
        rows = rows.remove_columns("ches")
    scored = rows.add_column("ches", scores.tolist())
    kept = scored if wanted is None else filter_preferences(scored, scores, wanted)
    write_rows(out, kept)
    typer.echo(f"{out}: {len(kept)} of {len(rows)} pairs, CHES {min(kept['ches']):.4g} to {max(kept['ches']):.4g}")
    if wanted is not None:
        typer.echo(
            f"  all pairs: {scores.min():.4g} to {scores.max():.4g}; the higher, the more both answers will fall"
        )


@app.command("displacement")
def displacement(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model after training on preferences.")],
    before: Annotated[str, typer.Option(metavar="MODEL", help="The model that training began with.")],
    data: Pairs,
    batch_size: Batch = 8,
    top: Annotated[int, typer.Option(min=0, help="Rising tokens to tell.")] = 5,
    template: options.Template = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Print what training did to both answers of preference pairs, and which tokens gained instead.

    Example: demur probe displacement runs/dpo --before MODEL --data pairs.jsonl
    """
    from demur.data import read_rows
    from demur.intervals import bootstrap_mean, wilson
    from demur.models import load_model
    from demur.probes import LikelihoodDisplacement

    rows = read_rows(data, required=("prompt", "chosen", "rejected"))

    def load(name: str):  # type: ignore[no-untyped-def]
        return load_model(
            name,
            template=template or "auto",
            dtype=dtype or "auto",
            device=device or "auto",
            trust_remote_code=bool(trust_remote_code),
        )

    measure = LikelihoodDisplacement(load(before), rows, batch_size=batch_size, top=top)
    found = measure(load(model), 0)
    for name, change in (("chosen", found.chosen), ("rejected", found.rejected)):
        low, high = bootstrap_mean(change)
        typer.echo(f"change of log π({name}): {change.mean():+.3f} [{low:+.3f}, {high:+.3f}], n {len(change)}")
    low, high = wilson(int(found.displaced.sum()), len(rows))
    typer.echo(
        f"displaced: {found.displaced_share:.3f} [{low:.3f}, {high:.3f}] of the chosen answers became less likely"
    )
    if found.rising:
        typer.echo("rising first tokens: " + ", ".join(f"{token} {gain:+.3f}" for token, gain in found.rising))


def _parse_keep(text: str) -> float | tuple[float, float]:
    """A share, a number, or two quantiles with a colon between them."""
    from demur.errors import UsageError

    low, colon, high = text.partition(":")
    try:
        if colon:
            return float(low), float(high)
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise UsageError(f"--keep {text}: write a share (0.05), a number (19) or two quantiles (0.4:0.6)") from None
