"""`demur logic`: what a preference loss says, a loss from formulas, and the order among losses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from demur.objectives.preference_logic import PreferenceStructure

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Preference losses as logic: show one, make one from formulas, see how they compare."
)

Weights = Annotated[
    str, typer.Option("--at", metavar="W=P,L=P", help="Probabilities of the answers to evaluate the loss at.")
]


@app.command()
def show(
    loss: Annotated[str, typer.Argument(metavar="LOSS", help="ce, cpo, orpo, dpo and so on.")],
    at: Weights = "W=0.3,L=0.2",
) -> None:
    """Print what a published loss means: its formulas, its truth table and how it can be satisfied cheaply.

    Example: demur logic show orpo
    """
    from demur.errors import UnknownNameError
    from demur.objectives.preference_logic import KNOWN_LOSSES, PreferenceStructure
    from demur.registry import nearest

    if loss not in KNOWN_LOSSES:
        raise UnknownNameError(f"no logic of {loss!r} is known: {nearest(loss, KNOWN_LOSSES)}")
    _print(PreferenceStructure.of(*KNOWN_LOSSES[loss]), KNOWN_LOSSES[loss], at)


@app.command("compile")
def compile_formulas(
    core: Annotated[str, typer.Argument(metavar="FORMULA", help='What is preferred, for instance "L -> W".')],
    condition: Annotated[str, typer.Option(help="Cases that count at all.")] = "true",
    additive: Annotated[str, typer.Option(help="Cases that count for both sides.")] = "false",
    at: Weights = "W=0.3,L=0.2",
) -> None:
    """Make a loss from formulas about W and L (winner and loser are valid answers) and RW, RL (to the reference).

    Example: demur logic compile "L -> W" --condition "W | L"
    """
    from demur.errors import UsageError
    from demur.objectives.preference_logic import PreferenceStructure

    try:
        structure = PreferenceStructure.of(core, condition, additive)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _print(structure, (core, condition, additive), at)


@app.command()
def decompile(
    top: Annotated[str, typer.Argument(metavar="TOP", help="Polynomial in w, l, rw, rl, for instance w*(1-l).")],
    bottom: Annotated[str, typer.Argument(metavar="BOTTOM", help="What it is divided by.")],
    at: Weights = "W=0.3,L=0.2",
) -> None:
    """Find the formulas behind a loss whose log-ratio is log TOP/BOTTOM, or say why it has none.

    Example: demur logic decompile "w*(1-l)" "l*(1-w)"
    """
    from demur.errors import UsageError
    from demur.objectives import preference_logic as logic

    try:
        structure = logic.decompile(top, bottom)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _print(structure, (structure.core, structure.condition, structure.additive), at)


@app.command()
def lattice(
    named: Annotated[bool, typer.Option("--named", help="Only the losses that have a name.")] = False,
    out: Annotated[Path | None, typer.Option(help="Draw it into this SVG file.")] = None,
) -> None:
    """Show how the losses over one winner and one loser entail each other, the strictest first.

    Example: demur logic lattice --out lattice.svg
    """
    from demur.files import atomic_write, require_writable
    from demur.objectives.preference_logic import (
        ATOMS,
        KNOWN_LOSSES,
        PreferenceStructure,
        enumerate_structures,
        known_name,
    )
    from demur.objectives.preference_logic import lattice as covers
    from demur.reports.lattice import lattice_svg, ranks

    every = [PreferenceStructure.of(*formulas) for formulas in KNOWN_LOSSES.values()]
    every = [s for s in every if s.atoms == ATOMS]
    if not named:
        every += [s for s in enumerate_structures() if s not in every]
    edges = covers(every)
    names, notes = [known_name(s) or "" for s in every], ["/".join(s.labels) for s in every]
    if out is not None:
        require_writable(out)
        with atomic_write(out) as temporary:
            drawn = lattice_svg(names, notes, edges, f"{len(every)} preference losses ordered by entailment")
            temporary.write_text(drawn, encoding="utf-8")
        typer.echo(f"{out}: {len(every)} losses; a line upwards means: the lower one entails the higher one")
        return
    typer.echo("labels of the rows WL, W, L and neither: T good, B bad, TB both, N not counted")
    height = ranks(len(every), edges)
    for node in sorted(range(len(every)), key=lambda i: (height[i], i)):
        above = ", ".join(names[j] or notes[j] for i, j in edges if i == node)
        typer.echo(f"{height[node]}  {names[node] or '–':6}  {notes[node]:11}  {'entails ' + above if above else ''}")


def _print(structure: PreferenceStructure, formulas: tuple[str, str, str], at: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from demur.objectives.preference_logic import assignments, compile_loss, known_name, log_ratio

    console = Console(emoji=False)
    name = known_name(structure)
    console.print(f"[bold]{name}[/]" if name else "[bold]a loss without a published name[/]")
    for what, formula in zip(("core", "condition", "additive"), formulas, strict=True):
        console.print(f"  {what:10} {formula}", markup=False, highlight=False)
    table = Table(*structure.atoms, "counts as", box=None)
    words = {"T": "good", "B": "bad", "TB": "both", "N": "–"}
    for world, label in zip(assignments(structure.atoms), structure.labels, strict=True):
        table.add_row(*("1" if true else "0" for true in world.values()), words[label])
    console.print(table)
    weights = _weights(at, structure)
    if any(structure.good) and any(structure.bad):
        rho, loss = log_ratio(structure, weights).item(), compile_loss(structure)(weights).item()
        console.print(f"at {at}: log-ratio {rho:.6f}, loss {loss:.6f}", highlight=False)
    else:
        console.print("one side has no row: there is no loss to train on")
    for weakness in structure.weaknesses:
        console.print(f"note: {weakness}", highlight=False)
    objective = "logic-reference" if {"RW", "RL"} & set(structure.atoms) else "logic"
    options = " ".join(
        f'--option {what}="{formula}"'
        for what, formula in zip(("core", "condition", "additive"), formulas, strict=True)
    )
    console.print(
        f"train with it: demur train MODEL --data PAIRS --objective {objective} {options} --out RUN",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _weights(text: str, structure: PreferenceStructure):  # type: ignore[no-untyped-def]
    """Log-probabilities from `W=0.3,L=0.2`; the reference's are a half where they are not given."""
    import torch

    from demur.errors import UsageError

    given = {"RW": 0.5, "RL": 0.5}
    for part in text.split(","):
        atom, _, value = part.partition("=")
        try:
            given[atom.strip()] = float(value)
        except ValueError:
            raise UsageError(f"--at {text!r}: write for instance W=0.3,L=0.2") from None
    for atom in structure.atoms:
        if not 0 < given.get(atom, given.get(atom.rstrip("0123456789"), 0)) < 1:
            raise UsageError(f"--at {text!r}: {atom} needs a probability between 0 and 1")
    return {atom: torch.tensor([p], dtype=torch.float64).log() for atom, p in given.items()}
