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
    from rich.table import Table

    from demur.objectives import objectives as registry
    from demur.objectives import roles

    if name is not None:
        component = registry.get(name)
        typer.echo(inspect.getdoc(component.function))
        return
    table = Table("name", "rows", "reference", "retain term", "options", "what it does", box=None)
    for each in registry.names():
        component = registry.get(each)
        options = ", ".join(f"{k}={v}" for k, v in component.options.items())
        facts = component.facts
        table.add_row(
            each,
            ", ".join(roles(component)),
            "yes" if facts["reference"] else "",
            facts["retain"] or "",
            options,
            component.summary,
        )
    Console().print(table)
