"""A drawing of an order: what entails what, the strictest at the foot."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

__all__ = ["lattice_svg", "ranks"]

_WIDE, _HIGH, _ACROSS, _UP, _EDGE = 148, 44, 24, 56, 16


def ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """How high each node stands: the length of the longest chain beneath it.

    Args:
        count: number of nodes.
        edges: (lower, higher) pairs without a cycle.
    """
    out = [0] * count
    for _ in range(count):
        for low, high in edges:
            out[high] = max(out[high], out[low] + 1)
    return out


def lattice_svg(names: Sequence[str], notes: Sequence[str], edges: Sequence[tuple[int, int]], title: str) -> str:
    """A self-contained SVG: a box a node, a line an edge, each rank a row.

    Args:
        names: the nodes' names, in bold; empty for none.
        notes: what stands under each name.
        edges: (lower, higher) pairs without a cycle.
        title: read out in place of the picture.
    """
    height = ranks(len(names), edges)
    rows = [[i for i, h in enumerate(height) if h == rank] for rank in range(max(height, default=0) + 1)]
    widest = max(map(len, rows))
    width = 2 * _EDGE + widest * _WIDE + (widest - 1) * _ACROSS
    whole = 2 * _EDGE + len(rows) * _HIGH + (len(rows) - 1) * _UP
    places = {}
    for rank, row in enumerate(rows):
        start = (width - len(row) * _WIDE - (len(row) - 1) * _ACROSS) / 2
        for column, node in enumerate(row):
            places[node] = start + column * (_WIDE + _ACROSS), whole - _EDGE - _HIGH - rank * (_HIGH + _UP)
    lines = [
        f'<line x1="{places[a][0] + _WIDE / 2:g}" y1="{places[a][1]:g}" '
        f'x2="{places[b][0] + _WIDE / 2:g}" y2="{places[b][1] + _HIGH:g}" stroke="#9aa3af"/>'
        for a, b in edges
    ]
    boxes = []
    for node, (x, y) in places.items():
        fill = "#eef4ff" if names[node] else "#ffffff"
        words = [(names[node], "bold"), (notes[node], "normal")] if names[node] else [(notes[node], "normal")]
        texts = [
            f'<text x="{x + _WIDE / 2:g}" y="{y + (18 + 17 * i if len(words) > 1 else 26):g}" text-anchor="middle" '
            f'font-weight="{weight}">{escape(word)}</text>'
            for i, (word, weight) in enumerate(words)
        ]
        boxes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{_WIDE}" height="{_HIGH}" rx="6" fill="{fill}" stroke="#475467"/>'
            + "".join(texts)
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {whole:g}" width="{width:g}" '
        f'height="{whole:g}" role="img" aria-label="{escape(title)}" '
        'font-family="system-ui, sans-serif" font-size="13">'
        f"<title>{escape(title)}</title>" + "".join(lines) + "".join(boxes) + "</svg>\n"
    )
