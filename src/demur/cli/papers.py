"""`demur papers`: the list of papers, searched."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from demur.errors import UsageError
from demur.registry import nearest

__all__ = ["papers"]


def papers(
    query: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY", help="Words that must all occur, in any field.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="Only 'built' or only 'planned' ones.")] = None,
    room: Annotated[str | None, typer.Option(help="Only those that live in this room.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """List and search the papers that demur implements or will.

    Example: demur papers unlearning --room objectives
    """
    from demur.catalog import find_papers
    from demur.catalog import papers as all_papers

    known_rooms = {name for paper in all_papers() for name in paper.rooms}
    if status not in (None, "built", "planned"):
        raise UsageError(f"--status {status}: {nearest(status, ['built', 'planned'])}")
    if room is not None and room not in known_rooms:
        raise UsageError(f"--room {room}: {nearest(room, known_rooms)}")
    found = [
        paper
        for paper in find_papers(" ".join(query or []))
        if status in (None, paper.status) and (room is None or room in paper.rooms)
    ]
    if as_json:
        records = [{**paper.model_dump(mode="json"), "url": paper.url} for paper in found]
        typer.echo(json.dumps(records, indent=1, ensure_ascii=False))
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_lines=True)
    table.add_column("slug, rooms, status", no_wrap=True)
    table.add_column("paper", overflow="fold")
    for paper in found:
        colour = "green" if paper.status == "built" else "yellow"
        place = f"[bold]{paper.slug}[/]\n[{colour}]{paper.status}[/] in {', '.join(paper.rooms)}"
        text = f"{escape(paper.title)} [cyan]({paper.year}, arXiv {paper.arxiv})[/]\n[dim]{escape(paper.summary)}[/]"
        if paper.entry_points:
            text += f"\n[green]{escape(', '.join(paper.entry_points))}[/]"
        table.add_row(place, text)
    console = Console(emoji=False)
    console.print(table)
    console.print(f"{len(found)} of {len(all_papers())} papers")
