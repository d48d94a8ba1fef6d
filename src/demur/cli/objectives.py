"""demur objectives"""

from __future__ import annotations

import typer


def objectives(name: str | None = typer.Argument(None, help="Show one objective in full.")) -> None:
    """List the losses that forget and train accept, with their options.

    [dim]Example: demur objectives npo[/dim]
    """
    import inspect

    from rich.console import Console
    from rich.table import Table

    from demur.objectives import objectives as registry
    from demur.objectives import roles

    if name is not None:
        component = registry.get(name)
        print(inspect.getdoc(component.function))
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
