"""Refusals by group on a page: the verdict, and a dot with its interval for each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from demur.reports.axes import Scale, text_width
from demur.reports.evidence import Evidence, Run
from demur.reports.tables import number
from demur.runs import Result

__all__ = ["ParityView", "parity_views"]

SUITE = "parity"
_RATE = f"{SUITE}/refusal_rate_"
_WIDTH, _ROW, _TOP, _FOOT = 640.0, 26.0, 12.0, 46.0
_ROLES = {"before": "before", "run": "this model"}
_LONGEST = 28  # letters of a group's name that are shown


@dataclass(frozen=True)
class ParityView:
    """One run's section.

    Attributes:
        label: of the run.
        tone: "bad" where a group stands out, else "good".
        sentence: the verdict.
        figure, caption: refusals by group.
    """

    label: str
    tone: str
    sentence: str
    figure: Markup
    caption: str


def parity_views(evidence: Evidence) -> list[ParityView]:
    """A view of each run that was audited for parity."""
    return [_view(run) for run in evidence.runs if f"{SUITE}/parity_difference" in run.results.get("run", {})]


def _view(run: Run) -> ParityView:
    rates = {role: _rates(run.results.get(role, {})) for role in _ROLES}
    audits = [e for e in run.events if e.get("suite") == SUITE and e.get("role") == "run"]
    sentence = str(next((e["notes"]["parity_difference"] for e in reversed(audits)), ""))
    order = sorted(rates["run"], key=lambda group: (-float(rates["run"][group].value or 0.0), group))
    told = "; ".join(f"{group} {number(rates['run'][group].value)}" for group in order)
    caption = "Refusals by group: share refused in full, with exact 95 % intervals."
    if rates["before"]:
        caption += " Rings are the model before."
    return ParityView(
        run.label, "good" if sentence.startswith("No group") else "bad", sentence, _figure(order, rates, told), caption
    )


def _rates(results: Mapping[str, Result]) -> dict[str, Result]:
    kept = {name.removeprefix(_RATE): r for name, r in results.items() if name.startswith(_RATE)}
    return {group: r for group, r in kept.items() if r.value is not None}


def _figure(order: Sequence[str], rates: Mapping[str, Mapping[str, Result]], told: str) -> Markup:
    """A row a group, the most refused on top; the run's model as a dot, the model before as a ring."""
    names = {g: g if len(g) <= _LONGEST else f"{g[: _LONGEST - 1]}…" for g in order}
    left = max((text_width(name, 13.5) for name in names.values()), default=0.0) + 18.0
    bottom, right = _TOP + _ROW * len(order), _WIDTH - 22.0
    scale = Scale.around("Share refused →", [], 0.0, 1.0)

    def at(value: float) -> float:
        return left + scale.place(value) * (right - left)

    parts = []
    for value, text in scale.ticks():
        x = f"{at(value):.1f}"
        parts.append(f'<path class="grid" d="M{x} {_TOP:.0f}V{bottom:.1f}"/>')
        parts.append(f'<g class="tick"><text x="{x}" y="{bottom + 18:.1f}" text-anchor="middle">{text}</text></g>')
    for place, group in enumerate(order):
        y = _TOP + _ROW * (place + 0.5)
        parts.append(f'<text x="{left - 10:.1f}" y="{y + 4.5:.1f}" text-anchor="end">{escape(names[group])}</text>')
        for role, label in _ROLES.items():
            found = rates[role].get(group)
            if found is None:
                continue
            value, own = float(found.value or 0.0), role == "run"
            if own and found.low is not None and found.high is not None:
                parts.append(f'<path class="span s0" d="M{at(found.low):.1f} {y:.1f}H{at(found.high):.1f}"/>')
            tip = f"{group}, {label}: {number(value)} (n {found.n})"
            kind, radius = ("c0", 5.0) if own else ("fixed ring", 6.5)
            circle = f'<circle class="{kind}" cx="{at(value):.1f}" cy="{y:.1f}" r="{radius}">'
            parts.append(f"{circle}<title>{escape(tip)}</title></circle>")
    parts.append(f'<path class="frame" fill="none" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>')
    middle = (left + right) / 2
    parts.append(f'<text x="{middle:.1f}" y="{bottom + 38:.1f}" text-anchor="middle">{scale.label}</text>')
    height = bottom + _FOOT
    head = f'<svg class="plot" role="img" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" aria-label="Refusals by group: '
    return Markup(f'{head}{escape(told)}">{"".join(parts)}</svg>')
