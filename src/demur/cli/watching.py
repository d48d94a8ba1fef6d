"""Bars for work that runs in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import TaskID

    from demur.processes import Event

__all__ = ["watcher"]


@contextmanager
def watcher(whole_name: str, before: str = "measured before") -> Iterator[Callable[[Event[Any]], None]]:
    """A progress bar for everything and one for each task that runs, with the time they still need, on stderr.

    Args:
        whole_name: what everything is called.
        before: what is said of a task that was done before.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    console = Console(stderr=True, emoji=False)
    with Progress(*columns, console=console, transient=True) as bars:
        whole = bars.add_task(whole_name, total=None, note="")
        shares: dict[str, float] = {}
        running: dict[str, TaskID] = {}

        def watch(event: Event) -> None:
            label = event.task.label
            if event.kind == "waiting":
                shares[label] = 0.0
            elif event.kind == "started":
                running[label] = bars.add_task(label, total=1.0, note="")
            elif event.kind == "progress":
                shares[label] = event.done / event.total
                bars.update(running[label], completed=shares[label], note=event.note)
            else:
                shares[label] = 1.0
                if label in running:
                    bars.remove_task(running.pop(label))
                said = before if event.kind == "found" else event.kind
                why = f": {event.note}" if event.note else ""
                console.print(f"{label}: {said}{why}", markup=False, highlight=False)
            bars.update(whole, completed=sum(shares.values()), total=len(shares))

        yield watch
