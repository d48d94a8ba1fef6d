"""The parts of a plot: scales with ticks, marker shapes, and labels placed where they overlap nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["BAND", "SHAPES", "Box", "Scale", "place_label", "shape_path", "text_width"]

BAND = 0.1  # share of an axis kept for what lies below it
SHAPES = ("circle", "square", "triangle", "diamond", "triangle-down", "plus", "pentagon", "cross")


@dataclass(frozen=True)
class Scale:
    """How values lie along an axis.

    Attributes:
        label: the axis title.
        low, high: ends of the axis, in the axis's own unit: the value, or for "log10" its base-10 logarithm.
        kind: "linear", or "log10" when the values drawn are base-10 logarithms and ticks show powers of ten.
        floor: keep a band under `low`, in which everything deeper is drawn.
    """

    label: str
    low: float
    high: float
    kind: Literal["linear", "log10"] = "linear"
    floor: bool = False

    @classmethod
    def around(cls, label: str, values: Sequence[float], low: float | None = 0.0, high: float | None = 1.0) -> Scale:
        """A linear scale from `low` to `high`, widened to hold `values`; None fits that end to the values alone."""
        finite = [v for v in values if math.isfinite(v)]
        bottom = min([*finite, *([] if low is None else [low])], default=0.0)
        top = max([*finite, *([] if high is None else [high])], default=1.0)
        if top <= bottom:
            bottom, top = bottom - 0.5, top + 0.5
        return cls(label, bottom, top)

    @classmethod
    def powers(cls, label: str, logs: Sequence[float], deepest: float = -30.0) -> Scale:
        """A scale for p-values given by base-10 logarithm, from 1 down to the smallest, at most to 10 ** `deepest`.

        A value of 0 has the logarithm −inf; it and whatever else lies deeper is drawn at the floor.
        """
        finite = [v for v in logs if math.isfinite(v)]
        smallest = min(finite, default=0.0)
        cut = smallest < deepest or len(finite) < len(logs)
        low = max(deepest, min(-2.0, math.floor(smallest) - 1.0))
        return cls(label, low if finite else deepest / 4, 0.0, "log10", cut)

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the low end, 1 at the high end; values beyond an end lie at it, or in the band."""
        if math.isnan(value):
            raise ValueError("a NaN has no place on an axis")
        band = BAND if self.floor else 0.0
        if self.cuts(value):
            return band / 2
        return band + (1.0 - band) * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def cuts(self, value: float) -> bool:
        """Whether a value lies below the axis and is drawn at its floor."""
        return value < self.low - 1e-9

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Round values along the axis with their text."""
        if self.kind == "log10":
            whole = next(s for s in (1, 2, 5, 10, 20, 50, 100) if (self.high - self.low) / s <= most)
            values = range(math.ceil(self.low / whole) * whole, math.floor(self.high) + 1, whole)
            return [(float(v), "1" if v == 0 else f"1e{v}") for v in values]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        if not math.isclose(round(step, digits), step):
            digits += 1
        return [(i * step, f"{i * step + 0.0:.{digits}f}".replace("-", "−")) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Box:
    """A rectangle, in plot units."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def text_width(text: str, size: float) -> float:
    """A generous estimate of a text's width in a sans-serif face, in the unit of `size`."""
    narrow = sum(c in "iljt.,:;|!'()[] " for c in text)
    wide = sum(c in "mwMW@%" or ord(c) > 0x2E80 for c in text)
    return size * (0.58 * len(text) - 0.24 * narrow + 0.36 * wide)


def place_label(x: float, y: float, width: float, height: float, taken: Sequence[Box], within: Box) -> tuple[Box, bool]:
    """A free place for a label near a point.

    Tries the sides of the point first and then wider and wider rings around it.

    Args:
        x, y: the point.
        width, height: size of the label.
        taken: rectangles that the label must not overlap.
        within: rectangle that it must stay inside.

    Returns:
        The label's rectangle (where nothing is free, the one with the least overlap), and whether it lies so far off
        that it needs a line to its point.
    """
    best: tuple[float, Box, bool] | None = None
    for ring in range(24):
        gap = 8.0 + 9.0 * ring
        for angle in (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200, 65, 295, 115, 245):
            dx, dy = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
            left = x + dx * gap + (dx - 1) * width / 2
            top = y + dy * gap + (dy - 1) * height / 2
            box = Box(left, top, left + width, top + height)
            if box.left < within.left or box.right > within.right or box.top < within.top or box.bottom > within.bottom:
                continue
            overlap = sum(_shared(box, other) for other in taken if box.meets(other))
            if overlap == 0:
                return box, ring >= 2
            if best is None or overlap < best[0]:
                best = (overlap, box, ring >= 2)
    if best is None:
        return Box(within.left, within.top, within.left + width, within.top + height), True
    return best[1], best[2]


def _shared(one: Box, other: Box) -> float:
    width = min(one.right, other.right) - max(one.left, other.left)
    return max(0.0, width) * max(0.0, min(one.bottom, other.bottom) - max(one.top, other.top))


def shape_path(shape: str, x: float, y: float, size: float = 5.0) -> str:
    """The SVG path of a marker, centred on (x, y)."""
    if shape == "circle":
        return f"M{x - size:.1f} {y:.1f}a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0z"
    arms = 0.38 * size
    outlines: dict[str, list[tuple[float, float]]] = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.15), (1.1, 0.85), (-1.1, 0.85)],
        "triangle-down": [(0, 1.15), (1.1, -0.85), (-1.1, -0.85)],
        "diamond": [(0, -1.25), (1.1, 0), (0, 1.25), (-1.1, 0)],
        "pentagon": [(math.sin(a) * 1.1, -math.cos(a) * 1.1) for a in (2 * math.pi * i / 5 for i in range(5))],
        "star": [
            (math.sin(math.pi * i / 5) * r, -math.cos(math.pi * i / 5) * r) for i, r in enumerate([1.5, 0.62] * 5)
        ],
    }
    if shape in ("plus", "cross"):
        arm = arms / size
        turned = [(arm, -1.1), (arm, -arm), (1.1, -arm), (1.1, arm), (arm, arm), (arm, 1.1)]
        points = [*turned, *((-px, -py) for px, py in turned)]
        if shape == "cross":
            half = math.sqrt(0.5)
            points = [((px - py) * half, (px + py) * half) for px, py in points]
    else:
        points = outlines[shape]
    return "M" + "L".join(f"{x + px * size:.1f} {y + py * size:.1f}" for px, py in points) + "z"
