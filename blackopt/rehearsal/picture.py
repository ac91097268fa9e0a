"""Rehearsals as one page: what the recommendation was truly worth, and what was believed of it."""

from __future__ import annotations

from html import escape
from pathlib import Path

from blackopt.campaign import CampaignSpec
from blackopt.rehearsal.outcome import Rehearsal
from blackopt.rehearsal.summary import Summary
from blackopt.rehearsal.world import World
from blackopt.report.charts import Dot, Scale
from blackopt.report.curves import Curve, curves, legend
from blackopt.report.shell import document, write
from blackopt.report.tables import Column, table

Z95 = 1.959963984540054


def write_rehearsals(spec: CampaignSpec, world: World, found: Summary, to: Path) -> None:
    """Write the page.

    Args:
        spec: of the campaign.
        world: what was assumed.
        found: at least one rehearsal; the first is shown in full.
        to: the HTML file; replaced if it exists.

    Raises:
        FatalError: the file cannot be written.
    """
    page = render(spec, world, found)
    write(page, to, "the picture", "name another file: `blackopt rehearse --plot FILE`")


def render(spec: CampaignSpec, world: World, found: Summary) -> str:
    """The page as text."""
    first = found.rehearsals[0]
    sections = [
        _header(spec, world),
        _headline(found),
        f"<h2>What the recommendation is worth, day by day, seed {first.seed}</h2>",
        _chart(found),
        "<h2>Week by week</h2>",
        _weeks(first),
    ]
    if len(found.rehearsals) > 1:
        sections += ["<h2>Every rehearsal</h2>", _all(found)]
    sections.append(
        "<footer>Improvements are relative to the control of the same time. Written by blackopt.</footer>"
    )
    return document(f"{spec.name}, rehearsed", sections)


def _header(spec: CampaignSpec, world: World) -> str:
    return (
        f"<header><h1>{escape(spec.name)}, rehearsed</h1>"
        "<p class='sub'><span class='mode'>simulated</span> nobody was served; "
        f"{escape(_assumed(spec, world))}</p></header>"
    )


def _assumed(spec: CampaignSpec, world: World) -> str:
    name = spec.objective.metric
    facts = [
        f"{world.units_per_day:,.0f} units a day".replace(",", " "),
        f"at most {_share(world.improve)} of {name} to be won",
        f"drift {_share(world.drift.get(name, 0.0), sign=False)} a day",
        f"faults {_share(world.faults, sign=False)}",
    ]
    if world.wander:
        facts.append(f"the optimum moves by {_share(world.wander, sign=False)} of its way a week")
    return " · ".join(facts)


def _headline(found: Summary) -> str:
    n = len(found.rehearsals)
    good = found.proven * 2 > n and not found.wrongly
    number = f"<strong>{found.proven} of {n}</strong>"
    text = f"<p>{escape(str(found))}</p>"
    first = found.rehearsals[0]
    text += f"<p>seed {first.seed}: {lasted(first.days)}, {escape(first.ended)}</p>"
    return f"<section class='headline{' proven' if good else ''}'>{number}<div>{text}</div></section>"


def timescale(days: float) -> tuple[float, str]:
    """What so many days are best counted in: the factor of a day, and the name of the unit."""
    units = [(1.0, "days"), (24.0, "hours"), (1440.0, "minutes"), (86_400.0, "seconds")]
    return next(((factor, name) for factor, name in units if days * factor >= 2.0), units[-1])


def lasted(days: float) -> str:
    """A duration for people."""
    factor, label = timescale(days)
    return f"{days * factor:.1f} {label}"


def _chart(found: Summary) -> str:
    first, others = found.rehearsals[0], found.rehearsals[1:]
    factor, label = timescale(max(o.days for o in found.rehearsals))
    lines = [
        Curve([(factor * p.day, p.true) for p in o.points], "other", f"seed {o.seed}", steps=True)
        for o in others
    ]
    lines += [
        Curve([(factor * p.day, p.possible) for p in first.points], "best", "the most there is", steps=True),
        Curve(
            [(factor * p.day, p.true) for p in first.points],
            "true",
            "the recommendation's true worth",
            steps=True,
        ),
    ]
    dots = [
        Dot(
            factor * m.day,
            m.lift,
            Z95 * (m.se or 0.0),
            "fresh" if m.fresh else "ok",
            f"{label} {factor * m.day:.1f}: {_share(m.lift)}",
        )
        for m in first.measured
    ]
    flags = [(factor * day, f"{label} {factor * day:.1f}: {fault}") for day, fault in first.faults]
    chart = curves(
        lines, label=label, scale=Scale(100.0, " %", signed=True), dots=dots, flags=flags, level=0.0
    )
    entries = [
        ("step", "what the recommendation is truly worth"),
        ("best", "the most there is"),
        ("ok", "mean of a window's candidates as measured, with 95 % intervals"),
        ("fresh", "the recommendation, measured on fresh units"),
    ]
    entries += [("other", "other seeds")] if others else []
    entries += [("flag", "a simulated fault")] if flags else []
    return f"<figure>{chart}<figcaption>{legend(entries)}</figcaption></figure>"


def _weeks(one: Rehearsal) -> str:
    heads = ["week", "windows", "told", "stopped", "it believes", "true", "possible",
             "exposed", "to worse", "lost", "won", "faults"]  # fmt: skip
    rows = [
        [
            *map(str, (w.number, w.windows, w.told, w.stopped)),
            "-" if w.estimate is None else _share(w.estimate),
            _share(w.true),
            _share(w.possible),
            *(f"{value:,.0f}".replace(",", " ") for value in (w.exposed, w.worse, w.lost, w.won)),
            str(w.faults),
        ]
        for w in one.weeks
    ]
    return table([Column(head, number=True) for head in heads], rows)


def _all(found: Summary) -> str:
    heads = ["seed", "lasted", "told", "true", "possible", "measured"]
    rows = [
        [
            str(one.seed),
            lasted(one.days),
            str(one.told),
            _share(one.true),
            _share(one.possible),
            "-" if one.estimate is None else _share(one.estimate),
            "<b>proven</b>" if one.proven else "not proven",
            escape(one.ended),
        ]
        for one in found.rehearsals
    ]
    columns = [*(Column(head, number=True) for head in heads), Column("proof"), Column("ended", wide=True)]
    return table(columns, rows)


def _share(value: float, *, sign: bool = True) -> str:
    return f"{100 * value:{'+' if sign else ''}.2f} %"  # a space that does not break
