"""`demur cache`: what lies in the cache folder, and clearing it."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="See what the cache holds, and clear it.", invoke_without_command=True)

_DAY = 86400.0


@app.callback()
def _cache(context: typer.Context) -> None:
    """See what the cache holds, and clear it. All of it is made again when it is asked for.

    Example: demur cache
    """
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    from demur.cache import KINDS, entries
    from demur.files import cache_dir

    found = entries()
    table = Table(title=f"{cache_dir()}: {_size(sum(entry.size for entry in found))}", title_justify="left")
    for column in ("kind", "what it holds", "entries", "size", "newest", "oldest"):
        table.add_column(column, justify="left" if column in ("kind", "what it holds") else "right")
    for kind, what in KINDS.items():
        own = [entry for entry in found if entry.kind == kind]
        ages = (_age(own[-1].age), _age(own[0].age)) if own else ("–", "–")
        table.add_row(kind, what, str(len(own)), _size(sum(entry.size for entry in own)), *ages)
    Console(emoji=False).print(table)


@app.command("clear")
def clear(
    kind: Annotated[str, typer.Argument(metavar="KIND|all", show_default=False, help="Kind, as demur cache names it.")],
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", min=0.0, help="Only what was written so many days ago or earlier.")
    ] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is only named.")] = False,
) -> None:
    """Name what would be removed, or with --yes remove it. What another process is using stays.

    Example: demur cache clear draws --older-than 30 --yes
    """
    from demur.cache import KINDS, entries
    from demur.cache import clear as remove

    wanted = entries(tuple(KINDS) if kind == "all" else (kind,), older_than * _DAY)
    kept = remove(wanted) if yes else []
    gone = [entry for entry in wanted if entry not in kept]
    if not yes:
        for entry in gone:
            typer.echo(f"{entry.kind}/{entry.name}: {_size(entry.size)}, written {_age(entry.age)} ago")
    for entry in kept:
        typer.echo(f"{entry.kind}/{entry.name}: kept, another process is using it")
    total = f"{len(gone)} {'entry' if len(gone) == 1 else 'entries'}, {_size(sum(entry.size for entry in gone))}"
    typer.echo(f"removed {total}" if yes else f"would remove {total}: add --yes")


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def _age(seconds: float) -> str:
    for unit, length in (("days", _DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
