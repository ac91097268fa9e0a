"""``blackopt rehearse``: the whole campaign against a simulated production, before anybody is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from blackopt.campaign import CampaignSpec
from blackopt.cli.assumed import Said, control, fraction, offline, percent, wrong
from blackopt.cli.output import Output, as_json, as_list, as_table, say
from blackopt.rehearsal.assumptions import Wishes, world
from blackopt.rehearsal.landscape import WEEK_US
from blackopt.rehearsal.outcome import Rehearsal
from blackopt.rehearsal.picture import lasted, write_rehearsals
from blackopt.rehearsal.run import require_production
from blackopt.rehearsal.summary import Summary, rehearse_often

YEAR_WEEKS = 104
"""A rehearsal without --weeks ends here, whatever its budget has left."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The options that only this verb has, as they were typed."""

    improve: str
    drift: str
    wander: str
    faults: str
    weeks: int | None
    seeds: int
    seed: int
    keep: Path | None
    plot: Path | None
    promote: bool


def rehearse(path: Path, said: Said, stage: Stage, output: Output, *, quiet: bool) -> None:
    """Rehearse, and print; the real target, source, clock and ledger are never touched.

    With --since the control's past is read through the real source, and nothing else.

    Raises:
        ConfigurationError: an option is impossible, or something is unknown.
    """
    spec = offline(path)
    require_production(spec)
    wishes = Wishes(
        improve=fraction("--improve", stage.improve, zero=True) or 0.0,
        drift=fraction("--drift", stage.drift, zero=True) or 0.0,
        wander=fraction("--wander", stage.wander, zero=True) or 0.0,
        faults=fraction("--faults", stage.faults, zero=True) or 0.0,
    )
    if stage.keep is not None and stage.keep.exists():
        raise wrong("--keep", f"{stage.keep} exists", "name a folder that does not: it will be made")
    known = control(spec if said.span is None else _online(path), said)
    assumed = world(spec, known.stated, known.pasts, known.units_per_day, wishes)
    seeds = range(stage.seed, stage.seed + stage.seeds)
    found = rehearse_often(
        spec,
        assumed,
        seeds,
        until_us=(stage.weeks or YEAR_WEEKS) * WEEK_US,
        keep=stage.keep,
        promote=stage.promote,
        done=lambda one: None if quiet else say(_line(one)),
    )
    if output is Output.JSON:
        as_json(asdict(found))
    else:
        _show(found, spec)
    if stage.plot is not None:
        write_rehearsals(spec, assumed, found, stage.plot)
        say(f"picture: {stage.plot}")


def _online(path: Path) -> CampaignSpec:
    """The past is read with the campaign's own credentials, so these must be there."""
    from blackopt.sdk import Campaign

    return Campaign.load(path).spec


def _line(one: Rehearsal) -> str:
    proof = "proven" if one.proven else "not proven"
    return (
        f"seed {one.seed}: {lasted(one.days)}, {one.ended}; true {100 * one.true:+.2f} % "
        f"of {100 * one.possible:+.2f} %, {proof}"
    )


def _show(found: Summary, spec: CampaignSpec) -> None:
    first = found.rehearsals[0]
    typer.echo(f"week by week, seed {first.seed}:")
    as_table(
        ["week", "windows", "told", "stopped", "it believes", "true", "possible", "exposed", "to worse",
         "lost", "won", "faults"],
        [
            [w.number, w.windows, w.told, w.stopped, _signed(w.estimate), _signed(w.true),
             _signed(w.possible), round(w.exposed), round(w.worse), round(w.lost), round(w.won), w.faults]
            for w in first.weeks
        ],
    )  # fmt: skip
    typer.echo(f"(lost and won: of the sum of {spec.objective.metric}, by candidates in traffic)\n")
    if len(found.rehearsals) > 1:
        as_table(
            ["seed", "lasted", "told", "true", "possible", "measured", "interval", "proven", "ended"],
            [_row(one) for one in found.rehearsals],
        )
        typer.echo("")
    else:
        as_list(
            {
                "recommendation": f"truly {percent(first.true)} of {percent(first.possible)} possible",
                "measured": f"{_signed(first.estimate)}{_interval(first)}",
                "ended": first.ended,
            }
        )
    typer.echo(str(found))


def _row(one: Rehearsal) -> Sequence[object]:
    return [
        one.seed,
        lasted(one.days),
        one.told,
        _signed(one.true),
        _signed(one.possible),
        _signed(one.estimate),
        _interval(one).strip() or None,
        "yes" if one.proven else "no",
        one.ended,
    ]


def _interval(one: Rehearsal) -> str:
    if one.interval is None:
        return ""
    return f" ({_signed(one.interval[0])} to {_signed(one.interval[1])})"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:+.2f} %"
