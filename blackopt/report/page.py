"""The page: what came out, how it came about, what was set aside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from html import escape
from pathlib import Path

from blackopt.ledger import Ledger
from blackopt.ledger.rows import TellRow, TrialRow, TrialState, WindowRow
from blackopt.report.beside import restated, surrogate
from blackopt.report.charts import Dot, Scale, scatter
from blackopt.report.promoted import promoted
from blackopt.report.shell import document, write
from blackopt.report.tables import Column, details, table
from blackopt.runner.assembly import Parts
from blackopt.runner.judge import Judge
from blackopt.runner.restated import Known, calibrated, calibration, known
from blackopt.runner.results import Results, results
from blackopt.runner.wording import headline, per_cent
from blackopt.types import Estimate, Role, Status

Z95 = 1.959963984540054
TRIALS_SHOWN = 1_000
"""Rows of the trial table; a longer campaign shows its last ones and says so."""

PARAMETERS_SHOWN = 8
"""With more parameters than this the trial table leaves them out."""


def write_report(parts: Parts, ledger: Ledger, to: Path) -> None:
    """Write the page atomically.

    Args:
        parts: the campaign's plug-ins, for names and values of parameters.
        ledger: open, also read-only.
        to: the HTML file; replaced if it exists.

    Raises:
        FatalError: the file cannot be written; an earlier one is unchanged.
    """
    write(render(parts, ledger), to, "the report", "name another file: `blackopt report --to FILE`")


def render(parts: Parts, ledger: Ledger) -> str:
    """The page as text."""
    found = results(parts, ledger)
    trials, tells, windows = ledger.trials(), ledger.tells(), ledger.windows()
    in_production = parts.spec.push is not None
    beside: dict[int, Known] = {}
    foretold = None
    if in_production:
        judge = Judge(parts.spec)
        beside = known(judge, ledger, trials, tells)
        foretold = calibrated(judge, calibration(judge, trials, beside))
    sections = [
        f"<header><h1>{escape(found.name)}</h1>{_subtitle(found, ledger, windows)}</header>",
        _headline(found),
        _cards(found, windows),
        f"<h2>{_goal(found, in_production=in_production)}</h2>",
        _history(found, trials, tells),
        promoted(ledger, found.promotion, partial(_spread, found)),
        "<h2>Parameters</h2>",
        _parameters(found, "incumbent" if in_production else "start"),
        _window_table(found, windows, trials, tells) if windows else "",
        "<h2>Trials</h2>",
        _trial_table(parts, found, trials, tells, beside),
        restated(tells, beside, partial(_spread, found)),
        surrogate(foretold, tells, beside, partial(_spread, found)),
        _set_aside(ledger) if in_production else "",
        f"<footer>All times are UTC. Written by blackopt from {escape(ledger.path.name)}.</footer>",
    ]
    return document(found.name, sections)


def _goal(found: Results, *, in_production: bool) -> str:
    relative = " against control" if in_production and found.compared else ""
    return f"{'Maximize' if found.maximize else 'Minimize'} {escape(found.metric)}{relative}, trial by trial"


def _subtitle(found: Results, ledger: Ledger, windows: Sequence[WindowRow]) -> str:
    started = _date(ledger.campaign.created_us)
    ended = f" to {_date(windows[-1].end_us)}" if windows else ""
    optimizer = escape(ledger.campaign.optimizer)
    mode = f"<span class='mode {found.mode}'>{found.mode}</span>"
    return f"<p class='sub'>{mode} {optimizer} · {started}{ended}</p>"


def _headline(found: Results) -> str:
    number = f"<strong>{_show(found, found.estimate.value)}</strong>" if found.estimate is not None else ""
    lines = "".join(
        f"<p>{escape(line).replace(' %', '&nbsp;%')}</p>" for line in headline(found).splitlines()
    )
    return (
        f"<section class='headline{' proven' if found.proven else ''}'>{number}<div>{lines}</div></section>"
    )


def _cards(found: Results, windows: Sequence[WindowRow]) -> str:
    counts = found.counts
    in_flight = sum(counts[state] for state in TrialState if state is not TrialState.TOLD)
    without = (
        counts[f"told.{Status.FAILED}"] + counts[f"told.{Status.EXPIRED}"] + counts[f"told.{Status.VOID}"]
    )
    cards = [(counts[TrialState.TOLD], "trials told"), (in_flight, "in flight"), (without, "without a value")]
    if windows:
        cards[2:2] = [(counts[f"told.{Status.INFEASIBLE}"], "stopped by guardrails")]
        cards.append((len(windows), "windows"))
    return (
        "<ul class='cards'>"
        + "".join(f"<li><b>{n}</b><span>{text}</span></li>" for n, text in cards)
        + "</ul>"
    )


def _history(found: Results, trials: Sequence[TrialRow], tells: Sequence[TellRow]) -> str:
    """Every told value with its interval, and the mean of each group that was drawn around one centre."""
    dots: list[Dot] = []
    groups: dict[tuple[int, int | None], list[tuple[int, float]]] = {}
    drawn = {t.number: (t.version, t.window) for t in trials}
    for tell in tells:
        if tell.value is None or tell.role is Role.HOLDBACK:
            continue  # a holdback is the former incumbent, seen from the new one
        fresh = tell.role is not Role.SEARCH
        title = f"t{tell.trial}: {_show(found, tell.value)}" + (
            f" ± {_show(found, tell.se, sign=False)}" if tell.se else ""
        )
        dots.append(Dot(tell.seq, tell.value, Z95 * (tell.se or 0.0), "fresh" if fresh else "ok", title))
        if not fresh:
            groups.setdefault(drawn[tell.trial], []).append((tell.seq, tell.value))
    steps = [
        (
            min(seq for seq, _ in group) - 0.4,
            max(seq for seq, _ in group) + 0.4,
            math.fsum(v for _, v in group) / len(group),
        )
        for group in groups.values()
        if len(group) > 1
    ]
    scale = Scale(100.0, " %", signed=True) if found.relative else Scale()
    chart = scatter(dots, steps, scale=scale, baseline=0.0 if found.relative else None)
    return f"<figure>{chart}<figcaption>{_legend(dots, steps)}</figcaption></figure>"


def _legend(dots: Sequence[Dot], steps: Sequence[tuple[float, float, float]]) -> str:
    spread = ", with 95 % intervals" if any(d.half for d in dots) else ""
    entries = [
        ("ok", f"a trial of the search{spread}", any(d.style == "ok" for d in dots)),
        ("step", "mean of the trials drawn together", bool(steps)),
        ("fresh", "the recommendation, measured again", any(d.style == "fresh" for d in dots)),
    ]
    return "".join(f"<span><i class='{style}'></i>{text}</span>" for style, text, there in entries if there)


def _parameters(found: Results, start: str) -> str:
    rows = []
    for name, value in found.parameters.items():
        before, after = _plain(found.incumbent[name]), _plain(value)
        rows.append([escape(name), before, f"<b>{after}</b>" if after != before else after])
    return table([Column("parameter"), Column(start), Column("recommended", wide=True)], rows)


def _window_table(
    found: Results, windows: Sequence[WindowRow], trials: Sequence[TrialRow], tells: Sequence[TellRow]
) -> str:
    values: dict[int, list[float]] = {}
    arms: dict[int, int] = {}
    without: dict[int, int] = {}
    told = {t.trial: t for t in tells}
    for trial in trials:
        number = trial.window or 0
        arms[number] = arms.get(number, 0) + 1
        tell = told.get(trial.number)
        if tell is not None and tell.value is not None:
            values.setdefault(number, []).append(tell.value)
        elif tell is not None:
            without[number] = without.get(number, 0) + 1
    rows = []
    for w in windows:
        mine = values.get(w.number, [])
        mean = _show(found, math.fsum(mine) / len(mine)) if mine else "-"
        lost = f"<span class='bad'>{without[w.number]}</span>" if w.number in without else "0"
        rows.append(
            [
                str(w.number),
                str(w.role),
                _date(w.start_us, seconds=True),
                mean,
                str(arms.get(w.number, 0)),
                lost,
            ]
        )
    columns = [
        Column("window", number=True),
        Column("role"),
        Column("start"),
        Column("mean", number=True),
        Column("arms", number=True),
        Column("stopped or failed", number=True),
    ]
    return "<h2>Windows</h2>" + details(
        f"{len(windows)} windows", table(columns, rows), is_open=len(windows) <= 20
    )


def _trial_table(
    parts: Parts,
    found: Results,
    trials: Sequence[TrialRow],
    tells: Sequence[TellRow],
    beside: Mapping[int, Known],
) -> str:
    told = {t.trial: t for t in tells}
    names = list(found.parameters) if len(found.parameters) <= PARAMETERS_SHOWN else []
    in_windows = any(trial.window is not None for trial in trials)
    with_se = any(tell.se is not None for tell in tells)
    rows = []
    for trial in trials[-TRIALS_SHOWN:]:
        tell = told.get(trial.number)
        status = str(tell.status) if tell else str(trial.state).lower()
        went_well = tell is not None and tell.status is Status.OK
        row = [f"t{trial.number}", str(trial.role)]
        row += [str(trial.window or "-")] if in_windows else []
        row += [f"<span class='bad'>{status}</span>" if tell and not went_well else status]
        so_far = beside.get(trial.number, Known()).so_far
        value, se = (so_far.value, so_far.se) if so_far else (tell.value, tell.se) if tell else (None, None)
        row += [_show(found, value) + (" (so far)" if so_far else "") if value is not None else "-"]
        row += [_show(found, se, sign=False) if se is not None else "-"] if with_se else []
        known = names and not trial.keyed
        params = parts.policy.space.decode(trial.vector) if known else dict.fromkeys(names, "by key")
        row += [_plain(params[name]) for name in names]
        rows.append([*row, "" if went_well else escape(trial.cause)])
    columns = [Column("trial"), Column("role")]
    columns += [Column("window", number=True)] if in_windows else []
    columns += [Column("state"), Column(found.metric, number=True)]
    columns += [Column("± se", number=True)] if with_se else []
    columns += [Column(name, number=isinstance(found.parameters[name], int | float)) for name in names]
    columns += [Column("cause", wide=True)]
    note = (
        f"<p class='sub'>The last {TRIALS_SHOWN} of {len(trials)}.</p>" if len(trials) > TRIALS_SHOWN else ""
    )
    return note + details(f"{len(rows)} trials", table(columns, rows), is_open=len(rows) <= 40)


def _set_aside(ledger: Ledger) -> str:
    groups = [
        ("readings of unknown arms or windows", len(ledger.quarantined())),
        ("readings that contradict an earlier one of the same moment", len(ledger.conflicts())),
        ("readings that are not possible", len(ledger.rejected())),
    ]
    items = "".join(f"<li>{n} {text}</li>" for text, n in groups if n)
    return "<h2>Set aside</h2>" + (
        f"<ul>{items}</ul>" if items else "<p class='none'>Nothing: every reading could be used.</p>"
    )


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_plain(v) for v in value) + "]"
    return escape(str(value))


def _show(found: Results, value: float, *, sign: bool = True) -> str:
    return per_cent(value, sign=sign) if found.relative else f"{value:.6g}"


def _spread(found: Results, estimate: Estimate) -> str:
    se = f" ± {_show(found, estimate.se, sign=False)}" if estimate.se is not None else ""
    return _show(found, estimate.value) + se


def _date(at_us: int, *, seconds: bool = False) -> str:
    return (
        f"{datetime.fromtimestamp(at_us / 1e6, UTC):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}}"
    )
