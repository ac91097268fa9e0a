"""Several curves over one axis, with what was measured beside them, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from blackopt.report.charts import BOTTOM, HEIGHT, WIDTH, Dot, Frame, Scale, axes, bars, line, ticks


@dataclass(frozen=True, slots=True)
class Curve:
    """Points that belong together.

    Attributes:
        points: x and y, in the order of x.
        style: CSS class.
        title: text shown when the pointer rests on it.
        steps: the value holds until the next point.
        marked: each point is a dot too.
    """

    points: Sequence[tuple[float, float]]
    style: str
    title: str
    steps: bool = False
    marked: bool = False


def curves(
    found: Sequence[Curve],
    *,
    label: str,
    scale: Scale,
    dots: Sequence[Dot] = (),
    flags: Sequence[tuple[float, str]] = (),
    marks: Sequence[tuple[float, str]] | None = None,
    level: float | None = None,
) -> str:
    """A chart; its vertical range follows the curves and the dots, not their intervals.

    Args:
        found: at least one curve with a point.
        label: below the horizontal axis.
        scale: of the values.
        dots: measured values.
        flags: events along the axis: where, and what.
        marks: texts along the axis; None for round numbers.
        level: a value that must be in sight.
    """
    xs = [x for c in found for x, _ in c.points] + [d.x for d in dots]
    ys = [y for c in found for _, y in c.points] + [d.y for d in dots] + ([] if level is None else [level])
    pad = 0.08 * (max(ys) - min(ys)) or 0.1 * abs(max(ys)) or 1.0
    side = 0.02 * (max(xs) - min(xs)) or 1.0
    frame = Frame(min(xs) - side, max(xs) + side, min(ys) - pad, max(ys) + pad)
    if marks is None:
        marks = [(at, f"{at:g}") for at in ticks(max(min(xs), frame.x_low), frame.x_high)]
    parts = [axes(frame, scale, label, marks), *bars(frame, dots)]
    parts += [_curve(frame, curve) for curve in found]
    parts += [_dot(frame, d) for d in dots]
    bottom = HEIGHT - BOTTOM
    for x, title in flags:
        tick = line(frame.x(x), bottom - 7, frame.x(x), bottom, "flag")
        parts.append(f"<g>{tick}<title>{escape(title)}</title></g>")
    described = escape(", ".join(dict.fromkeys(c.title for c in found)), quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{described}">{"".join(parts)}</svg>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """The caption: a style, and what it stands for."""
    return "".join(f"<span><i class='{style}'></i>{escape(text)}</span>" for style, text in entries)


def _curve(frame: Frame, curve: Curve) -> str:
    places = [(frame.x(x), frame.y(y)) for x, y in curve.points]
    way = "".join(
        f"{'M' if i == 0 else ('H' if curve.steps else 'L')}{x:.1f}"
        + (f"V{y:.1f}" if curve.steps and i else f" {y:.1f}")
        for i, (x, y) in enumerate(places)
    )
    path = f"<path class='curve {curve.style}' d='{way}'><title>{escape(curve.title)}</title></path>"
    if not curve.marked:
        return path
    return path + "".join(f"<circle class='{curve.style}' cx='{x:.1f}' cy='{y:.1f}'/>" for x, y in places)


def _dot(frame: Frame, d: Dot) -> str:
    return (
        f"<circle cx='{frame.x(d.x):.1f}' cy='{frame.y(d.y):.1f}' class='{d.style}'>"
        f"<title>{escape(d.title)}</title></circle>"
    )
