"""Charts as inline SVG, drawn from numbers; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 14, 40
TICKS = 5

Show = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Dot:
    """One measured value.

    Attributes:
        x: position along the chart.
        y: value.
        half: half-width of its interval; 0 for none.
        style: CSS class.
        title: text shown when the pointer rests on it.
    """

    x: float
    y: float
    half: float
    style: str
    title: str


def scatter(dots: Sequence[Dot], steps: Sequence[tuple[float, float, float]], *, show: Show, x_label: str) -> str:
    """Values with their intervals over their order, and a level line for each step (x from, x to, y).

    The vertical range follows the values; an interval that leaves it is cut at the edge.
    """
    if not dots:
        return "<p class='none'>nothing was told yet</p>"
    ys = [d.y for d in dots] + [y for _, _, y in steps] + [0.0]
    low, high = min(ys), max(ys)
    pad = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    x_low, x_high = min(d.x for d in dots) - 1, max(d.x for d in dots) + 1
    frame = _Frame(x_low, x_high, low - pad, high + pad)
    parts = [_axes(frame, show, x_label)]
    for d in dots:
        x = frame.x(d.x)
        if d.half:
            parts.append(_line(x, frame.y(d.y - d.half), x, frame.y(d.y + d.half), f"bar {d.style}"))
    for d in dots:
        circle = f"<circle cx='{frame.x(d.x):.1f}' cy='{frame.y(d.y):.1f}' r='3' class='{d.style}'>"
        parts.append(f"{circle}<title>{escape(d.title)}</title></circle>")
    parts += [_line(frame.x(a), frame.y(y), frame.x(b), frame.y(y), "step") for a, b, y in steps]
    return _svg(parts)


@dataclass(frozen=True, slots=True)
class _Frame:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        inside = min(max(value, self.y_low), self.y_high)
        return TOP + (self.y_high - inside) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def _axes(frame: _Frame, show: Show, x_label: str) -> str:
    parts = []
    for tick in _ticks(frame.y_low, frame.y_high):
        y = frame.y(tick)
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, "zero" if tick == 0 else "grid"))
        parts.append(f"<text x='{LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{escape(show(tick))}</text>")
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f"<text x='{middle}' y='{HEIGHT - 8}' text-anchor='middle'>{escape(x_label)}</text>")
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """About TICKS round numbers in [low, high]: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' class='{style}'/>"


def _svg(parts: Sequence[str]) -> str:
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>{''.join(parts)}</svg>"
