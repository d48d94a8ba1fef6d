"""`demur objectives`: the losses."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["objectives"]


def objectives(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show one objective in full.")] = None,
) -> None:
    """List the losses that forget and train accept, with their options.

    Example: demur objectives npo
    """
    import inspect

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from demur.objectives import objectives as registry
    from demur.objectives import roles

    if name is not None:
        component = registry.get(name)
        typer.echo(inspect.getdoc(component.function))
        return
    table = Table("name", "what it does", box=None)
    for each in registry.names():
        component = registry.get(each)
        facts = {
            "rows": ", ".join(roles(component)),
            "reference": "needed" if component.facts["reference"] else "",
            "retain term": component.facts["retain"],
            "claims": component.facts["intention"],
            "acts on": component.facts["level"],
            "options": ", ".join(f"{k}={v}" for k, v in component.options.items()),
        }
        listed = "; ".join(f"{fact}: {value}" for fact, value in facts.items() if value)
        table.add_row(f"[bold]{each}[/]", f"{escape(component.summary)}\n[dim]{escape(listed)}[/]")
    Console(emoji=False).print(table)
