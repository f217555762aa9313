"""Charts of the report, as SVG inside of the page; its style sheet gives them their colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from .features import NAMES, SIGNS
from .finder import Week
from .findings import Findings, title
from .lots import Share
from .orders import Line
from .parts import BY_KEY, COMPONENTS, Component

_CELL_W, _CELL_H, _NAME_W = 46, 19, 72
_STEPS = 5


def fleet(findings: Findings, plant: str) -> str:
    """Cars of a plant, week by week: what failed, and how far off."""
    cars = [car for car in findings.cars if car.plant == plant]
    weeks = range(1, findings.weeks + 1)
    width = _NAME_W + _CELL_W * len(weeks) + 4
    height = 22 + _CELL_H * len(cars) + 4
    parts = [
        _text(_NAME_W + _CELL_W * (week - 0.5), 14, f"week {week}", "axis", "middle")
        for week in weeks
    ]
    for row, car in enumerate(cars):
        y = 22 + _CELL_H * row
        parts.append(_text(_NAME_W - 6, y + 13, car.name, "axis", "end"))
        for week in weeks:
            component, score = _worst(findings.judged.weeks[car.name][week])
            ratio = score / findings.judged.threshold
            shade = 0 if ratio <= 1 else min(_STEPS, 1 + int(np.log2(ratio) * 1.6))
            said = f"{car.name}, week {week}: {component.title} {score:+.1f}"
            parts.append(
                f'<rect x="{_NAME_W + _CELL_W * (week - 1) + 1}" y="{y + 1}" '
                f'width="{_CELL_W - 2}" height="{_CELL_H - 2}" rx="3" class="heat{shade}">'
                f"<title>{escape(said)}</title></rect>"
            )
            if shade:
                kind = "cell dark" if shade > 2 else "cell"
                x = _NAME_W + _CELL_W * (week - 0.5)
                parts.append(_text(x, y + 13.5, component.code, kind, "middle"))
    return _svg(width, height, parts, f"Cars of {plant} by week")


def course(findings: Findings, component: Component) -> str:
    """How a part's sign went, of cars where it fails and of all others."""
    at = NAMES.index(component.sign)
    sign = SIGNS[component.sign]
    failing = [one.car for one in findings.failing if one.component == component.key]
    weeks = list(range(1, findings.weeks + 1))

    def values(car: str) -> list[float]:
        return [float(findings.judged.weeks[car][week].observed[at]) for week in weeks]

    sound = np.array([values(car.name) for car in findings.cars if car.name not in failing])
    lines = {car: values(car) for car in failing}
    everything = np.concatenate([sound.ravel(), np.ravel(list(lines.values())), [sign.limit]])
    low, high = float(np.nanmin(everything)), float(np.nanmax(everything))
    margin = 0.08 * (high - low) or 1.0
    low, high = low - margin, high + margin
    width, height, left, right, top, bottom = 480, 220, 44, 78, 12, 26

    def x(week: int) -> float:
        return left + (width - left - right) * (week - 1) / max(1, len(weeks) - 1)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high - value) / (high - low)

    parts = []
    for tick in _ticks(low, high):
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" '
                     f'y2="{y(tick):.1f}" class="grid"/>')  # fmt: skip
        parts.append(_text(left - 5, y(tick) + 4, f"{tick:g}", "axis", "end"))
    parts += [_text(x(week), height - 8, f"week {week}", "axis", "middle") for week in weeks]
    if len(sound):
        above = [(x(w), y(v)) for w, v in zip(weeks, np.nanmax(sound, axis=0), strict=True)]
        below = [(x(w), y(v)) for w, v in zip(weeks, np.nanmin(sound, axis=0), strict=True)]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*above, *reversed(below)])
        parts.append(f'<polygon points="{points}" class="band"/>')
        middle = (above[-1][1] + below[-1][1]) / 2
        parts.append(_text(width - right + 5, middle + 4, "all others", "axis", "start"))
    parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(sign.limit):.1f}" '
                 f'y2="{y(sign.limit):.1f}" class="limit"/>')  # fmt: skip
    parts.append(_text(left + 3, y(sign.limit) - 4, "workshop's limit", "axis", "start"))
    labels = _apart({car: y(course[-1]) for car, course in lines.items()})
    for car, course_ in lines.items():
        points = " ".join(
            f"{x(week):.1f},{y(value):.1f}"
            for week, value in zip(weeks, course_, strict=True)
            if np.isfinite(value)
        )
        parts.append(f'<polyline points="{points}" class="failing"/>')
        for week, value in zip(weeks, course_, strict=True):
            if np.isfinite(value):
                said = f"{car}, week {week}: {value:.1f} {sign.unit}"
                parts.append(f'<circle cx="{x(week):.1f}" cy="{y(value):.1f}" r="3" class="dot">'
                             f"<title>{escape(said)}</title></circle>")  # fmt: skip
        parts.append(_text(width - right + 5, labels[car] + 4, car, "name", "start"))
    return _svg(width, height, parts, f"{sign.title} of cars with a failing {component.title}")


def shares(plants: Mapping[str, Mapping[str, Share]]) -> str:
    """Share of failing cars by plant and part, with intervals."""
    width, left, right, row = 560, 190, 70, 20
    parts: list[str] = []
    y = 24.0

    def x(share: float) -> float:
        return left + (width - left - right) * share

    names = list(plants)
    height = 34 + len(COMPONENTS) * (row * len(names) + 10)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<line x1="{x(tick)}" x2="{x(tick)}" y1="20" y2="{height - 8}" '
                     'class="grid"/>')  # fmt: skip
        parts.append(_text(x(tick), 14, f"{tick:.0%}", "axis", "middle"))
    for component in COMPONENTS:
        parts.append(_text(4, y + 13, component.title, "name", "start"))
        for plant in names:
            share = plants[plant][component.key]
            value = share.failing / share.cars if share.cars else 0.0
            kind = "dot" if share.failing else "dot quiet"
            middle = y + row / 2
            parts.append(_text(left - 8, middle + 4, plant.capitalize(), "axis", "end"))
            parts.append(f'<line x1="{x(share.low):.1f}" x2="{x(share.high):.1f}" '
                         f'y1="{middle}" y2="{middle}" class="interval"/>')  # fmt: skip
            parts.append(f'<circle cx="{x(value):.1f}" cy="{middle}" r="5" class="{kind}"/>')
            said = f"{share.failing} of {share.cars}"
            parts.append(_text(width - right + 8, middle + 4, said, "axis", "start"))
            y += row
        y += 10
    return _svg(width, height, parts, "Share of failing cars by part and plant, with intervals")


def order(lines: Sequence[Line]) -> str:
    """Pieces to order, and what for."""
    width, left, right, row = 560, 150, 60, 30
    most = max([1, *(line.pieces for line in lines)])
    parts = []
    for at, line in enumerate(lines):
        y = 4 + row * at
        parts.append(_text(left - 8, y + 17, title(line.component), "name", "end"))
        x = float(left)
        for pieces, kind, what in (
            (line.repair, "repair", "for failing cars"),
            (line.recall, "recall", "for cars that are called back"),
            (line.reserve, "reserve", "in reserve"),
        ):
            wide = (width - left - right) * pieces / most
            if pieces:
                parts.append(f'<rect x="{x:.1f}" y="{y}" width="{max(1.0, wide - 2):.1f}" '
                             f'height="{row - 8}" rx="3" class="{kind}">'
                             f"<title>{pieces} {what}</title></rect>")  # fmt: skip
            if wide > 18:
                parts.append(_text(x + wide / 2 - 1, y + 15.5, str(pieces), f"in-{kind}", "middle"))
            x += wide
        parts.append(_text(x + 6, y + 16, str(line.pieces), "name", "start"))
    return _svg(width, 8 + row * len(lines), parts, "Pieces to order by part and purpose")


def _worst(week: Week) -> tuple[Component, float]:
    best, score = COMPONENTS[0], -np.inf
    for component in COMPONENTS:
        value = float(week.score[NAMES.index(component.sign)])
        if np.isfinite(value) and value > score:
            best, score = BY_KEY[component.key], value
    return best, score if np.isfinite(score) else 0.0


def _ticks(low: float, high: float) -> list[float]:
    """Some four round numbers from low to high."""
    rough = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = np.ceil(low / step) * step
    return [float(round(tick, 6)) + 0.0 for tick in np.arange(first, high, step)]


def _apart(places: Mapping[str, float], least: float = 13.0) -> dict[str, float]:
    """Move labels so far that none covers another."""
    found: dict[str, float] = {}
    latest = -np.inf
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        latest = max(place, latest + least)
        found[name] = float(latest)
    return found


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
