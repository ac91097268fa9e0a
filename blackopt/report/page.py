"""The page: what came out, how it came about, what was set aside."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path

from blackopt.ledger import Ledger
from blackopt.ledger.rows import TellRow, TrialRow, TrialState, WindowRow
from blackopt.report.charts import Dot, scatter
from blackopt.runner.assembly import Parts
from blackopt.runner.results import Results, results
from blackopt.runner.wording import headline, per_cent
from blackopt.types import Role, Status

Z95 = 1.959963984540054
TRIALS_SHOWN = 1_000
"""Rows of the trial table; a longer campaign shows its last ones and says so."""


def write_report(parts: Parts, ledger: Ledger, to: Path) -> None:
    """Write the page atomically.

    Args:
        parts: the campaign's plug-ins, for names and values of parameters.
        ledger: open, also read-only.
        to: the HTML file; replaced if it exists.
    """
    text = render(parts, ledger)
    part = to.with_name(f".{to.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, to)


def render(parts: Parts, ledger: Ledger) -> str:
    """The page as text."""
    found = results(parts, ledger)
    trials, tells, windows = ledger.trials(), ledger.tells(), ledger.windows()
    style = (files("blackopt.report") / "style.css").read_text(encoding="utf-8")
    sections = [
        f"<h1>{escape(found.name)}</h1>",
        f"<p class='sub'>{_subtitle(found, ledger, windows)}</p>",
        _headline(found),
        _cards(found, windows),
        f"<h2>{_goal(found)}, trial by trial</h2>",
        _history(found, trials, tells),
        "<h2>Parameters</h2>",
        _parameters(found),
        _window_table(found, windows, trials, tells) if windows else "",
        "<h2>Trials</h2>",
        _trial_table(found, trials, tells),
        "<h2>Set aside</h2>",
        _set_aside(ledger),
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(found.name)} · blackopt</title><style>{style}</style></head>"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _goal(found: Results) -> str:
    relative = " against control" if found.control is not None or found.relative else ""
    return f"{'Maximize' if found.maximize else 'Minimize'} {escape(found.metric)}{relative}"


def _subtitle(found: Results, ledger: Ledger, windows: Sequence[WindowRow]) -> str:
    started = _date(ledger.campaign.created_us)
    ended = f" to {_date(windows[-1].end_us)}" if windows else ""
    return escape(f"{found.mode} · {ledger.campaign.optimizer} · {started}{ended} · ledger {ledger.path.name}")


def _headline(found: Results) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in headline(found).splitlines())
    return f"<div class='headline{' proven' if found.proven else ''}'>{lines}</div>"


def _cards(found: Results, windows: Sequence[WindowRow]) -> str:
    counts = found.counts
    in_flight = sum(counts[state] for state in TrialState if state is not TrialState.TOLD)
    cards = [
        (counts[TrialState.TOLD], "trials told"),
        (in_flight, "in flight"),
        (counts[f"told.{Status.INFEASIBLE}"], "stopped by guardrails"),
        (counts[f"told.{Status.FAILED}"] + counts[f"told.{Status.EXPIRED}"] + counts[f"told.{Status.VOID}"], "without a value"),
        (len(windows), "windows"),
    ]
    return "<ul class='cards'>" + "".join(f"<li><b>{n}</b><span>{text}</span></li>" for n, text in cards) + "</ul>"


def _history(found: Results, trials: Sequence[TrialRow], tells: Sequence[TellRow]) -> str:
    """Every told value with its interval, and the mean of each group that was drawn around one centre."""
    dots: list[Dot] = []
    groups: dict[tuple[int, int | None], list[tuple[int, float]]] = {}
    versions = {t.number: (t.version, t.window) for t in trials}
    for tell in tells:
        if tell.value is None:
            continue
        fresh = tell.role is Role.CONFIRM
        title = f"t{tell.trial}: {_show(found, tell.value)}" + (f" ± {_show(found, tell.se, sign=False)}" if tell.se else "")
        dots.append(Dot(tell.seq, tell.value, Z95 * (tell.se or 0.0), "fresh" if fresh else "ok", title))
        if not fresh:
            groups.setdefault(versions[tell.trial], []).append((tell.seq, tell.value))
    steps = [
        (min(seq for seq, _ in group) - 0.4, max(seq for seq, _ in group) + 0.4, math.fsum(v for _, v in group) / len(group))
        for group in groups.values()
        if len(group) > 1
    ]
    chart = scatter(dots, steps, show=lambda v: _show(found, v), x_label="trials in the order in which they were told")
    legend = "Dots are trials with their 95 % intervals, lines the means of trials drawn together; large dots are the recommendation."
    return f"{chart}<p class='sub'>{legend}</p>"


def _parameters(found: Results) -> str:
    rows = [[escape(n), _plain(found.incumbent[n]), _plain(v)] for n, v in found.parameters.items()]
    return _table(["parameter", "incumbent", "recommended"], rows, wide=True)


def _window_table(
    found: Results, windows: Sequence[WindowRow], trials: Sequence[TrialRow], tells: Sequence[TellRow]
) -> str:
    values: dict[int, list[float]] = {}
    arms: dict[int, int] = {}
    stopped: dict[int, int] = {}
    told = {t.trial: t for t in tells}
    for trial in trials:
        number = trial.window or 0
        arms[number] = arms.get(number, 0) + 1
        tell = told.get(trial.number)
        if tell is not None and tell.value is not None:
            values.setdefault(number, []).append(tell.value)
        elif tell is not None:
            stopped[number] = stopped.get(number, 0) + 1
    rows = []
    for w in windows:
        mine = values.get(w.number, [])
        mean = _show(found, math.fsum(mine) / len(mine)) if mine else "-"
        rows.append(
            [str(w.number), str(w.role), _date(w.start_us), _date(w.end_us), str(arms.get(w.number, 0)),
             str(stopped.get(w.number, 0)), mean]
        )  # fmt: skip
    heads = ["window", "role", "from", "to", "arms", "without a value", "mean"]
    return "<h2>Windows</h2>" + _table(heads, rows, numbers={0, 4, 5, 6})


def _trial_table(found: Results, trials: Sequence[TrialRow], tells: Sequence[TellRow]) -> str:
    told = {t.trial: t for t in tells}
    rows = []
    for trial in trials[-TRIALS_SHOWN:]:
        tell = told.get(trial.number)
        value = _show(found, tell.value) if tell and tell.value is not None else "-"
        se = _show(found, tell.se, sign=False) if tell and tell.se is not None else "-"
        status = str(tell.status) if tell else str(trial.state).lower()
        shown = f"<span class='bad'>{status}</span>" if tell and tell.status is not Status.OK else status
        rows.append([f"t{trial.number}", str(trial.window or "-"), shown, value, se, escape(trial.cause)])
    note = f"<p class='sub'>The last {TRIALS_SHOWN} of {len(trials)}.</p>" if len(trials) > TRIALS_SHOWN else ""
    heads = ["trial", "window", "state", "value", "standard error", "cause"]
    table = _table(heads, rows, numbers={1, 3, 4}, wide=True)
    return f"{note}<details{' open' if len(rows) <= 40 else ''}><summary>{len(trials)} trials</summary>{table}</details>"


def _set_aside(ledger: Ledger) -> str:
    groups = [
        ("readings of unknown arms or windows", len(ledger.quarantined())),
        ("readings that contradict an earlier one of the same moment", len(ledger.conflicts())),
        ("readings that are not possible", len(ledger.rejected())),
    ]
    items = "".join(f"<li>{n} {text}</li>" for text, n in groups if n)
    return f"<ul>{items}</ul>" if items else "<p class='none'>Nothing: every reading could be used.</p>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: set[int] | None = None, wide: bool = False) -> str:
    numbers = numbers or set()
    last = len(heads) - 1

    def style(i: int) -> str:
        return " class='n'" if i in numbers else " class='wide'" if wide and i == last else ""

    head = "".join(f"<th{' class=n' if i in numbers else ''}>{escape(text)}</th>" for i, text in enumerate(heads))
    body = "".join("<tr>" + "".join(f"<td{style(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_plain(v) for v in value) + "]"
    return escape(str(value))


def _show(found: Results, value: float, *, sign: bool = True) -> str:
    return per_cent(value, sign=sign) if found.relative else f"{value:.4g}"


def _date(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%d %H:%M}"
