"""Charts as inline SVG, drawn from numbers; colours and sizes come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860, 320
LEFT, RIGHT, TOP, BOTTOM = 92, 16, 14, 56
TICKS = 5
MANY = 300
"""More dots than this are drawn small, their intervals faint."""


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


@dataclass(frozen=True, slots=True)
class Scale:
    """How values are written along the axis: times ``factor``, with ``unit``, ``signed`` with a plus."""

    factor: float = 1.0
    unit: str = ""
    signed: bool = False

    def ticks(self, values: Sequence[float]) -> list[str]:
        """Evenly spaced values, with as many decimals as tell them apart."""
        step = (values[1] - values[0]) * self.factor if len(values) > 1 else 1.0
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [self._tick(value * self.factor, digits) for value in values]

    def _tick(self, value: float, digits: int) -> str:
        if abs(value) >= 1e6 or digits > 6:
            return f"{value:.3g}{self.unit}"
        sign = "+" if self.signed and value > 0 else ""
        return f"{sign}{value + 0.0:.{digits}f}{self.unit}"


def scatter(
    dots: Sequence[Dot], steps: Sequence[tuple[float, float, float]], *, scale: Scale, baseline: float | None
) -> str:
    """Values with their intervals over their order, and a level line for each step (x from, x to, y).

    The vertical range follows the values; an interval that leaves it is cut at the edge.

    Args:
        dots: at least one, or the chart says that there is nothing to show.
        steps: level lines.
        scale: of the values.
        baseline: a value that must be in sight.
    """
    if not dots:
        return "<p class='none'>Nothing was told yet.</p>"
    ys = [d.y for d in dots] + [y for _, _, y in steps] + ([] if baseline is None else [baseline])
    low, high = min(ys), max(ys)
    pad = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    x_low, x_high = min(d.x for d in dots) - 1, max(d.x for d in dots) + 1
    frame = Frame(x_low, x_high, low - pad, high + pad)
    parts = [
        axes(frame, scale, "trials told", [(at, f"{at:.0f}") for at in _orders(frame)]),
        *bars(frame, dots),
    ]
    for d in dots:
        circle = f"<circle cx='{frame.x(d.x):.1f}' cy='{frame.y(d.y):.1f}' class='{d.style}'>"
        parts.append(f"{circle}<title>{escape(d.title)}</title></circle>")
    parts += [line(frame.x(a), frame.y(y), frame.x(b), frame.y(y), "step") for a, b, y in steps]
    many = " class='many'" if len(dots) > MANY else ""
    label = f"{len(dots)} measured values in the order in which they were told"
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'{many}>{''.join(parts)}</svg>"


@dataclass(frozen=True, slots=True)
class Frame:
    """The range of a chart, and where a value of it lies on the page."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """From the left."""
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """From the top; a value that is out of range lies at the edge."""
        inside = min(max(value, self.y_low), self.y_high)
        return TOP + (self.y_high - inside) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def axes(frame: Frame, scale: Scale, label: str, marks: Sequence[tuple[float, str]]) -> str:
    """Level lines with their values, and below the chart a text at each mark and the label."""
    parts = []
    values = ticks(frame.y_low, frame.y_high)
    for value, text in zip(values, scale.ticks(values), strict=True):
        y = frame.y(value)
        parts.append(line(LEFT, y, WIDTH - RIGHT, y, "zero" if value == 0 else "grid"))
        parts.append(f"<text x='{LEFT - 8}' y='{y:.1f}' dy='.35em' text-anchor='end'>{escape(text)}</text>")
    below = HEIGHT - BOTTOM + 22
    parts += [
        f"<text x='{frame.x(at):.1f}' y='{below}' text-anchor='middle'>{escape(text)}</text>"
        for at, text in marks
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f"<text x='{middle}' y='{HEIGHT - 8}' text-anchor='middle'>{escape(label)}</text>")
    return "".join(parts)


def _orders(frame: Frame) -> list[float]:
    """Whole numbers from 1 on, for things that are counted."""
    return [at for at in ticks(max(1.0, frame.x_low), frame.x_high) if at == int(at)]


def bars(frame: Frame, dots: Sequence[Dot]) -> list[str]:
    """The intervals: one path a style, so that thousands of them stay small."""
    paths: dict[str, list[str]] = {}
    for d in dots:
        if d.half:
            bar = f"M{frame.x(d.x):.1f} {frame.y(d.y - d.half):.1f}V{frame.y(d.y + d.half):.1f}"
            paths.setdefault(d.style, []).append(bar)
    return [f"<path class='{style}' d='{''.join(bars)}'/>" for style, bars in paths.items()]


def ticks(low: float, high: float) -> list[float]:
    """About TICKS round numbers in [low, high]: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A line between two points of the page, in a style of the style sheet."""
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' class='{style}'/>"
