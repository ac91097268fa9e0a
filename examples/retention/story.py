"""What the demo says at the end: read from the ledger and the app, beside what only a simulation can know."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypedDict
from urllib.request import urlopen

from blackopt.ledger import Ledger
from blackopt.ledger.rows import ReadingRow, WindowRow
from blackopt.metrics.errors import MetricError
from blackopt.metrics.kinds import Kind, Stats, kind
from blackopt.runner.guard import BREACH
from blackopt.runner.judge import Judge
from blackopt.runner.restated import calibrated, calibration, known, newest
from blackopt.runner.results import Evidence, Results
from blackopt.sdk import Campaign
from blackopt.types import CONTROL, Role
from retention_app import truth
from retention_app.cohort import DAY_US
from retention_app.pipeline import FEATURES, INCUMBENT, Configuration

METRIC = "retention_d7"
ADJUSTED, PLAIN = kind("mean", cuped=True), kind("mean")
APART = 7
"""Days by which windows are apart at most, so that the search has hardly moved meanwhile."""


class Served(TypedDict):
    """What the app answers to the question what somebody would get now."""

    arm: str | None
    configuration: Mapping[str, object]


def told(campaign: Campaign, address: str) -> Iterator[str]:
    """The whole story, line by line."""
    found = campaign.results()
    with Ledger.open(campaign.ledger, read_only=True) as ledger:
        ledger.verify()
        yield from ("", "GUARDRAILS, during the search", "")
        yield from _stops(ledger)
        yield from ("", "PROMOTION, in virtual time", "")
        yield from _promotion(ledger)
        served = _serves(address, campaign.spec.name)
        yield f"  served now, says the app: {_short(served)}"
        yield from ("", "EFFECT", "")
        yield f"  {_measured(found)}"
        yield f"  {_surrogate(campaign, ledger)}"
        yield from ("", "LESS NOISE, from the same readings", "")
        yield f"  {_cuped(ledger)}"
        yield f"  {_twins(ledger)}"
        yield from ("", "WHAT ONLY A SIMULATION KNOWS: true values, on the days of the test", "")
        yield from _truth(ledger, served)


# -- guardrails and promotion ------------------------------------------------------------------------------


def _stops(ledger: Ledger) -> Iterator[str]:
    """Which candidates were taken out of traffic, and why; twins are one line."""
    trials = ledger.trials(role=Role.SEARCH)
    stopped = [trial for trial in trials if trial.cause.startswith(BREACH)]
    withdrawn = {
        int(str(event.data["first"])): event.at_us
        for event in ledger.events()
        if event.kind == "close" and str(event.data["cause"]).startswith(BREACH)
    }
    in_search = [number for number in withdrawn if ledger.trial(number).role is Role.SEARCH]
    for first in in_search[:3]:
        cause = ledger.trial(first).cause
        names = " and its twin ".join(f"t{trial.number}" for trial in stopped if trial.cause == cause)
        yield f"  {names} withdrawn {_date(withdrawn[first], hours=True)}: {cause.removeprefix(BREACH)}"
    yield f"  {len(stopped)} of {len(trials)} candidates were stopped in all"


def _promotion(ledger: Ledger) -> Iterator[str]:
    """Each state, and the windows that were opened in it with the share that they served."""
    moves = [
        (e.at_us, 0, f"{e.data['state']}", str(e.data.get("cause", "")))
        for e in ledger.events()
        if e.kind in ("promotion", "incumbent") and "state" in e.data
    ]
    windows = {window.number: window for window in ledger.windows()}
    for trial in ledger.trials():
        if trial.role in (Role.TEST, Role.RAMP, Role.HOLDBACK) and trial.slice and trial.live_us is not None:
            share = (trial.slice.upper - trial.slice.lower) / 1e6
            who = "former incumbent" if trial.role is Role.HOLDBACK else "recommendation"
            text = f"{trial.role}: {share:.0%} get the {who}"
            moves.append((windows[trial.window or 0].start_us, 1, "", text))
    proved = ""
    for at_us, is_window, state, text in sorted(moves):
        yield f"  {_date(at_us)}  {state:<9} {text if text != proved else ''}".rstrip()
        proved = proved if is_window else text or proved


def _serves(address: str, name: str) -> Configuration:
    """What production serves to somebody who is in no arm, by its own account."""
    for unit in range(100):
        with urlopen(f"{address}/serves/{name}/{unit}", timeout=30) as answer:
            served: Served = json.load(answer)
        if served["arm"] is None:
            return configuration(served["configuration"])
    raise RuntimeError("a hundred units in a row are in an experiment: what is it that is going on?")


def configuration(values: Mapping[str, object]) -> Configuration:
    """Seven numbers from JSON."""
    weights, diversity, throttle = (values[name] for name in ("weights", "diversity", "throttle"))
    if not isinstance(weights, list) or len(weights) != len(FEATURES):
        raise ValueError(f"expected {len(FEATURES)} weights, got {weights!r}")
    return Configuration(tuple(float(w) for w in weights), float(str(diversity)), float(str(throttle)))


def _short(served: Configuration) -> str:
    weights = ", ".join(f"{name} {w:.2f}" for name, w in zip(FEATURES, served.weights, strict=True))
    return f"{weights}, diversity {served.diversity:.2f}, throttle {served.throttle:.2f}"


# -- effects and noise -------------------------------------------------------------------------------------


def _measured(found: Results) -> str:
    """What a business would be told; only fresh evidence counts."""
    if found.evidence is not Evidence.FRESH or found.treatment is None or found.control is None:
        return "The recommendation has not been tested on fresh users: no claim is made."
    levels = f"{100 * found.treatment.value:.1f} % against {100 * found.control.value:.1f} % under control"
    interval = ""
    if found.interval is not None and found.estimate is not None:
        low, high = (100 * bound for bound in found.interval)
        interval = (
            f": {100 * found.estimate.value:+.1f} %, repeated 95 % confidence interval {low:+.1f} %"
            f" to {high:+.1f} %"
        )
    return f"Day-7 retention on fresh users: {levels}{interval}."


def _surrogate(campaign: Campaign, ledger: Ledger) -> str:
    """How well day 1 has foretold day 7."""
    judge, trials = Judge(campaign.spec), ledger.trials(role=Role.SEARCH)
    text = calibrated(judge, calibration(judge, trials, known(judge, ledger, trials, ledger.tells())))
    return text or "no surrogate is declared"


def _cuped(ledger: Ledger) -> str:
    """The variance of the effect with the covariate and without, from the looks of the test."""
    ratios = []
    for window in ledger.windows():
        if window.role is Role.TEST:
            arms = _arms(newest(ledger, window.number))
            treatments = [stats for arm, stats in arms.items() if arm != CONTROL]
            if CONTROL in arms and treatments:
                ratios.append(
                    _variance(ADJUSTED, treatments[0], arms[CONTROL])
                    / _variance(PLAIN, treatments[0], arms[CONTROL])
                )
    if not ratios:
        return "CUPED: no look of the test has matured"
    share = 1.0 - statistics.fmean(ratios)
    return (
        f"CUPED: {share:.0%} less variance of the effect, because days of browsing before the first open"
        " explain a part of day 7"
    )


def _variance(own: Kind, treatment: Stats, control: Stats) -> float:
    found = own.effect(treatment, control, relative=True)
    return 0.0 if found.se is None else found.se**2


def _twins(ledger: Ledger) -> str:
    """The variance of the difference of two arms, in one window and in two."""
    windows = [window for window in ledger.windows() if window.role is Role.SEARCH]
    pairs = {window.number: _pairs(ledger, window) for window in windows}
    same = [first - second for window in windows for first, second in pairs[window.number]]
    apart = [
        first - second
        for window in windows
        for other in windows
        if 0 < abs(other.number - window.number) <= APART
        for (first, _), (_, second) in zip(pairs[window.number], pairs[other.number], strict=False)
    ]
    if len(same) < 2 or len(apart) < 2:
        return "twins: too few windows have matured"
    share = 1.0 - statistics.variance(same) / statistics.variance(apart)
    return (
        f"twins: {share:.0%} less variance of the difference of two candidates that are served in the same"
        f" window, instead of up to a week apart"
    )


def _pairs(ledger: Ledger, window: WindowRow) -> list[tuple[float, float]]:
    """Day-7 retention of both twins, for each pair of a window that nothing stopped."""
    arms = _arms(newest(ledger, window.number))
    level: dict[int, float] = {}
    for trial in ledger.trials(window=window.number):
        if trial.candidate is None or trial.cause.startswith("guardrail") or trial.arm not in arms:
            continue
        try:
            level[trial.candidate] = PLAIN.estimate(arms[trial.arm]).value
        except MetricError:
            continue  # nobody of this arm is complete
    return [(level[c], level[c + 1]) for c in sorted(level) if c % 2 == 0 and c + 1 in level]


def _arms(rows: Iterable[ReadingRow]) -> dict[str, Stats]:
    """The statistics of each arm of a window, its cohorts together."""
    own: dict[str, list[Stats]] = {}
    for row in rows:
        if row.reading.metric == METRIC:
            own.setdefault(row.reading.arm, []).append(row.reading.stats)
    return {arm: ADJUSTED.pool(stats) for arm, stats in own.items()}


# -- the truth ---------------------------------------------------------------------------------------------


def _truth(ledger: Ledger, served: Configuration) -> Iterator[str]:
    starts = [window.start_us for window in ledger.windows() if window.role is Role.TEST]
    days = [start_us // DAY_US for start_us in starts] or list(truth.REFERENCE_DAYS)
    rows = (
        ("production at the start", INCUMBENT),
        ("production now", served),
        ("best possible", truth.optimum()),
    )
    true = [(name, truth.expected(what, first_days=days)) for name, what in rows]
    yield f"  {'':<25}{'finished':>10}{'day 1':>10}{'day 7':>10}{'muted':>10}{'unsubscribed':>15}"
    for name, value in true:
        shares = (value.finished_d1, value.retention_d1, value.retention_d7, value.mute_3h)
        cells = "".join(f"{100 * share:8.2f} %" for share in shares)
        yield f"  {name:<25}{cells}{100 * value.unsubscribe_7d:13.2f} %"
    low, now, best = (value.retention_d7 for _, value in true)
    yield ""
    yield f"  true effect on day 7: {now / low - 1:+.1%}"
    yield f"  closes {(now - low) / (best - low):.0%} of the gap to the best possible day-7 retention"


def _date(at_us: int, *, hours: bool = False) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M" if hours else "%Y-%m-%d")
