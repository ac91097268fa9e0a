"""A plan as one page: what a window sees, and how loud the search is, over arms and lengths of window."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from pathlib import Path

from blackopt.campaign import CampaignSpec
from blackopt.campaign.units import format_duration
from blackopt.report.charts import Scale
from blackopt.report.curves import Curve, curves, legend
from blackopt.report.shell import document, write
from blackopt.runner.plan import LEAST_SIGNAL, Choice, Plan

STYLES = ("one", "two", "three")
"""Of the lengths of window, shortest first."""


def write_plan(spec: CampaignSpec, found: Plan, to: Path) -> None:
    """Write the page.

    Args:
        spec: of the campaign.
        found: its forecast.
        to: the HTML file; replaced if it exists.

    Raises:
        FatalError: the file cannot be written.
    """
    write(render(spec, found), to, "the picture", "name another file: `blackopt plan --plot FILE`")


def render(spec: CampaignSpec, found: Plan) -> str:
    """The page as text."""
    own, name = found.own, escape(spec.objective.metric)
    header = (
        f"<header><h1>{escape(spec.name)}, planned</h1><p class='sub'>{own.arms} arms, windows of "
        f"{format_duration(own.window)}: one window sees {100 * own.detectable:.3g} % of {name}</p></header>"
    )
    sections = [
        header,
        "<h2>The smallest effect that one window finds in four of five cases</h2>",
        _chart(found, lambda c: c.detectable, Scale(100.0, " %"), None),
    ]
    if own.signal is not None:
        sections += [
            "<h2>Signal of the whole search over its noise</h2>",
            _chart(found, lambda c: c.signal, Scale(), LEAST_SIGNAL),
        ]
    sections += [
        "<h2>Days, from the first window to the last tell</h2>",
        _chart(found, lambda c: c.takes / 86_400e6, Scale(), None),
        "<footer>Nothing was served. Written by blackopt.</footer>",
    ]
    return document(f"{spec.name}, planned", sections)


def _chart(found: Plan, value: Callable[[Choice], float | None], scale: Scale, needed: float | None) -> str:
    lengths = sorted({choice.window for choice in found.table})
    drawn, entries = [], []
    for length, style in zip(lengths, STYLES, strict=True):
        points = [
            (math.log2(c.arms), y) for c in found.table if c.window == length and (y := value(c)) is not None
        ]
        drawn.append(Curve(points, style, f"windows of {format_duration(length)}", marked=True))
        entries.append((style, f"windows of {format_duration(length)}"))
    arms = sorted({choice.arms for choice in found.table})
    if needed is not None:
        drawn.append(Curve([(math.log2(a), needed) for a in (arms[0], arms[-1])], "best", "needed"))
        entries.append(("best", f"needed: {needed:g}"))
    marks = [(math.log2(a), str(a)) for a in arms]
    chart = curves(drawn, label="arms", scale=scale, marks=marks, level=0.0)
    return f"<figure>{chart}<figcaption>{legend(entries)}</figcaption></figure>"
