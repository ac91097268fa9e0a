"""A campaign's forecast: what its windows can show, what its budget can find, and how long it takes.

Arithmetic on the campaign and on stated baselines; nothing is contacted, and nothing is spent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from blackopt.campaign import CampaignSpec, Schedule, TrafficSpec
from blackopt.campaign.units import UNITS_US, whole_weeks
from blackopt.errors import ConfigurationError
from blackopt.metrics import power
from blackopt.runner.calendar import Span, calendar
from blackopt.runner.judge import Judge
from blackopt.runner.promotion_cost import Promotion, promotion
from blackopt.traffic import allocate
from blackopt.types import Role, Slice

ARMS = (4, 8, 16, 32)
"""Numbers of arms that are compared, beside the campaign's own."""

LENGTHS = (1, 2, 7)
"""Multiples of ``schedule.window`` that are compared."""

LEAST_SIGNAL = 1.645
"""Signal-to-noise of a whole search below which a campaign cannot learn: one in twenty such searches ends
lower than it began, Φ(−1.645) = 5 %, on the slope that is as gentle as the stated improvement allows."""

CONFIRM_SHARE = 500_000
"""Of the traffic, in millionths, that is the control of a confirmation."""

ALL = 1_000_000
COUNTED = ("proportion", "retention")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a metric is today.

    Attributes:
        mean: of a unit.
        sd: of a unit; None for a rate, whose mean says it.
        correlation: with its covariate, for a metric with ``cuped``: of the variance, 1 − ρ² remains.
    """

    mean: float
    sd: float | None = None
    correlation: float | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What the optimizer brings.

    Attributes:
        population: results of one update.
        group: candidates that belong together.
        spread: standard deviation of the candidates' true relative effects; None where nobody said what there
            is to be gained.
    """

    population: int
    group: int = 1
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class Precision:
    """One metric in one window.

    Attributes:
        se: standard error of an arm's relative effect.
        detectable: smallest relative effect that one window finds with a power of 80 %, two-sided 5 %.
    """

    metric: str
    baseline: float
    arm_units: float
    control_units: float
    se: float
    detectable: float


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of the comparison: so many arms, windows so long, the budget as it is.

    Attributes:
        window: in microseconds.
        se, detectable: of the objective, as in :class:`Precision`.
        told: standard error of what the search is told: the same, unless it is told from a surrogate.
        generation_signal, signal: ρ√K and ρ√N, see :func:`blackopt.metrics.power.signal_to_noise`; None
            without a spread.
        windows_needed: expected windows until the stated improvement; None without a spread.
        confirm_power: probability that the confirmations find it; None where nothing is stated or confirmed.
        takes: the campaign from its first window to its last tell, in microseconds.
    """

    arms: int
    window: int
    control: float
    arm_units: float
    se: float
    detectable: float
    told: float
    generation_signal: float | None
    signal: float | None
    windows_needed: int | None
    confirm_power: float | None
    takes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The forecast.

    Attributes:
        metrics: each with a baseline, for the campaign as it is.
        own: the campaign as it is.
        table: other numbers of arms and lengths of window.
        control, best_control: the configured share, and the one of least variance.
        windows: of the search, in the budget.
        improve, spread: as stated, or as derived.
        promotion: what follows the search; None where nothing does.
        warnings: what should be thought about.
        hopeless: why the campaign cannot learn; empty where it can.
    """

    metrics: tuple[Precision, ...]
    own: Choice
    table: tuple[Choice, ...]
    control: float
    best_control: float
    windows: int
    improve: float | None
    spread: float | None
    promotion: Promotion | None
    warnings: tuple[str, ...]
    hopeless: str


@dataclass(frozen=True, slots=True)
class _Foretold:
    """A surrogate in relative units: what its effect stands for, what it misses, and its own cv."""

    slope: float
    error: float
    cv: float


@dataclass(frozen=True, slots=True)
class _Question:
    """What every row of the comparison is computed from."""

    spec: CampaignSpec
    traffic: TrafficSpec
    schedule: Schedule
    cv: float
    units_per_day: float
    improve: float | None
    search: Search
    foretold: _Foretold | None


def require_traffic(spec: CampaignSpec) -> None:
    """Only a campaign in production has something to plan.

    Raises:
        ConfigurationError: it is another.
    """
    if spec.traffic is None or spec.schedule is None or spec.measure is None:
        raise ConfigurationError(
            "there is no traffic to plan",
            where=spec.file,
            why=f"it is a campaign of the form {spec.mode}",
            safe="nothing was spent",
            next_step="`blackopt check`",
        )


def plan(
    spec: CampaignSpec,
    baselines: Mapping[str, Baseline],
    units_per_day: float,
    *,
    improve: float | None = None,
    search: Search,
) -> Plan:
    """Forecast a campaign.

    Args:
        spec: of a campaign in production.
        baselines: of the objective's metric at least.
        units_per_day: that arrive in all, before ``traffic.share``; each counted once a window.
        improve: the relative improvement hoped for, such as 0.03.
        search: what the optimizer brings.

    Raises:
        ConfigurationError: the campaign has no traffic, a baseline is missing, unknown or impossible, or the
            traffic cannot be cut so.
    """
    require_traffic(spec)
    assert spec.traffic is not None
    assert spec.schedule is not None
    _known(spec, baselines)
    cvs = {name: _cv(spec, name, baseline) for name, baseline in baselines.items()}
    cv = cvs[spec.objective.metric]
    foretold = _foretold(spec, baselines, cvs)
    ask = _Question(spec, spec.traffic, spec.schedule, cv, units_per_day, improve, search, foretold)
    own = _choice(ask, spec.traffic.arms, 1)
    metrics = tuple(_precision(ask, name, baselines[name].mean, cvs[name]) for name in baselines)
    table = tuple(_choice(ask, arms, length) for length in LENGTHS for arms in ARMS)
    windows = _search_windows(ask, spec.traffic.arms)
    told = _span(spec, spec.schedule, Role.TEST, 0).told
    after = promotion(spec, cv, units_per_day, told=told, improve=improve)
    return Plan(
        metrics=metrics,
        own=own,
        table=table,
        control=spec.traffic.control / ALL,
        best_control=power.best_control(spec.traffic.arms),
        windows=windows,
        improve=improve,
        spread=search.spread,
        promotion=after,
        warnings=tuple(_warnings(ask, own, windows, after)),
        hopeless=_hopeless(own),
    )


def _choice(ask: _Question, arms: int, length: int) -> Choice:
    window, search, budget = length * ask.schedule.window, ask.search, ask.spec.budget
    arm, control = _units(ask, arms, length)
    se = told = power.relative_se(ask.cv, arm, control)
    if ask.foretold is not None:
        told = math.hypot(
            ask.foretold.slope * power.relative_se(ask.foretold.cv, arm, control), ask.foretold.error
        )
    signals: tuple[float | None, float | None] = (None, None)
    needed = confirm_power = None
    if search.spread is not None:
        signals = (
            power.signal_to_noise(search.spread, told, search.population),
            power.signal_to_noise(search.spread, told, budget.trials),
        )
        if ask.improve is not None:
            updates = ask.improve / power.gain(search.spread, told)
            needed = math.ceil(updates * search.population / _served(ask, arms))
    if ask.improve is not None and budget.confirm:
        confirm_power = power.power_of(ask.improve, _confirm_se(ask, length))
    return Choice(
        arms=arms,
        window=window,
        control=ask.traffic.control / ALL,
        arm_units=arm,
        se=se,
        detectable=power.detectable(se),
        told=told,
        generation_signal=signals[0],
        signal=signals[1],
        windows_needed=needed,
        confirm_power=confirm_power,
        takes=calendar(
            _span(ask.spec, ask.schedule, Role.SEARCH, window),
            _span(ask.spec, ask.schedule, Role.CONFIRM, window),
            trials=budget.trials,
            arms=arms,
            max_in_flight=_in_flight(ask, arms),
            confirm=budget.confirm,
            group=search.group,
        ),
    )


def _precision(ask: _Question, name: str, mean: float, cv: float) -> Precision:
    arm, control = _units(ask, ask.traffic.arms, 1)
    se = power.relative_se(cv, arm, control)
    return Precision(name, mean, arm, control or 0.0, se, power.detectable(se))


def _units(ask: _Question, arms: int, length: int) -> tuple[float, float | None]:
    """Units of one arm and of the control (None without one) in a window, cut as the splitter cuts."""
    control = ask.traffic.control
    first, slices = allocate(ask.traffic.share, control, _served(ask, arms))
    total = ask.units_per_day * length * ask.schedule.window / UNITS_US["d"]
    compared = control and ask.spec.objective.relative_to is not None
    return total * _width(slices[0]) / ALL, total * _width(first) / ALL if compared else None


def _width(part: Slice) -> int:
    return part.upper - part.lower


def _confirm_se(ask: _Question, length: int) -> float:
    """Standard error of all confirmations together: half control, half recommendation, fresh units."""
    total = ask.units_per_day * length * ask.schedule.window / UNITS_US["d"] * ask.traffic.share / ALL
    half = total * CONFIRM_SHARE / ALL
    control = half if ask.spec.objective.relative_to is not None else None
    return power.relative_se(ask.cv, half, control) / math.sqrt(ask.spec.budget.confirm)


def _in_flight(ask: _Question, arms: int) -> int:
    """Of the campaign; scaled with the arms, so that as many windows mature at once."""
    own = ask.spec.budget.max_in_flight
    return own if arms == ask.traffic.arms else max(1, own * arms // ask.traffic.arms)


def _served(ask: _Question, arms: int) -> int:
    """Arms that a full window has."""
    room = min(arms, _in_flight(ask, arms), ask.spec.budget.trials)
    return room - room % ask.search.group if room > ask.search.group else room


def _search_windows(ask: _Question, arms: int) -> int:
    return math.ceil(ask.spec.budget.trials / _served(ask, arms))


def _span(spec: CampaignSpec, schedule: Schedule, role: Role, window: int) -> Span:
    """A window of some role; by cron, a poll is late by one poll at most."""
    judge = Judge(spec)
    weeks = role is not Role.SEARCH and schedule.whole_weeks
    matures = max(judge.metrics[name].maturity.mature_at(0) for name in judge.needed(role))
    return Span(whole_weeks(window) if weeks else window, matures + schedule.poll)


def _known(spec: CampaignSpec, baselines: Mapping[str, Baseline]) -> None:
    assert spec.measure is not None
    names = ", ".join(spec.measure.metrics)
    for name in baselines:
        if name not in spec.measure.metrics:
            raise _wrong(f"there is no metric {name}", f"the campaign has {names}")
    if spec.objective.metric not in baselines:
        metric = spec.objective.metric
        given = "RATE" if spec.measure.metrics[metric].kind in COUNTED else "MEAN:SD"
        raise _wrong(f"the objective {metric} has no baseline", "", f"add --baseline {metric}={given}")


def _cv(spec: CampaignSpec, name: str, baseline: Baseline) -> float:
    assert spec.measure is not None
    kind = spec.measure.metrics[name].kind
    if kind in COUNTED:
        if baseline.sd is not None:
            raise _wrong(f"{name} is a {kind}: its rate says all", "", f"--baseline {name}=RATE")
        if not 0.0 < baseline.mean < 1.0:
            raise _wrong(f"{name} is a {kind}, and {baseline.mean:g} is not between 0 and 1", "")
        return power.proportion_cv(baseline.mean)
    if baseline.sd is None:
        raise _wrong(
            f"{name} is a {kind}: its mean does not say how much it varies",
            "",
            f"add the standard deviation of one unit: --baseline {name}={baseline.mean:g}:SD",
        )
    if baseline.mean == 0.0:
        raise _wrong(f"{name} is 0 today", "a relative effect over nothing has no size")
    if baseline.correlation is not None and not spec.measure.metrics[name].cuped:
        raise _wrong(f"{name} is not adjusted, so its covariate explains nothing", "`cuped` is not set")
    # With the best slope, Var[Y − θX] = Var[Y]·(1 − ρ²) (Deng, Xu, Kohavi & Walker, WSDM 2013, equation 4).
    remaining = math.sqrt(1.0 - (baseline.correlation or 0.0) ** 2)
    return remaining * baseline.sd / abs(baseline.mean)


def _foretold(
    spec: CampaignSpec, baselines: Mapping[str, Baseline], cvs: Mapping[str, float]
) -> _Foretold | None:
    """The campaign's surrogate, where its baseline is known."""
    surrogate, metric = spec.objective.surrogate, spec.objective.metric
    if surrogate is None or surrogate.metric not in baselines:
        return None
    # A relative effect needs no scale; an absolute one is a part of the metric's own level.
    absolute = spec.objective.effect == "absolute"
    own = abs(baselines[metric].mean) if absolute else 1.0
    fast = abs(baselines[surrogate.metric].mean) if absolute else 1.0
    return _Foretold(surrogate.slope * fast / own, surrogate.error / own, cvs[surrogate.metric])


def _wrong(what: str, why: str, next_step: str = "mend the option, then plan again") -> ConfigurationError:
    return ConfigurationError(
        what, where="--baseline", why=why, safe="nothing was spent", next_step=next_step
    )


def _warnings(ask: _Question, own: Choice, windows: int, after: Promotion | None) -> list[str]:
    found = []
    assert ask.spec.measure is not None
    least = ask.spec.measure.metrics[ask.spec.objective.metric].min_units
    if own.arm_units < least:
        found.append(
            f"an arm gets {own.arm_units:.0f} units a window, and its metric needs {least} (min_units)"
        )
    if own.windows_needed is not None and own.windows_needed > windows:
        found.append(
            f"{ask.improve:.2%} is expected after {own.windows_needed} windows, and the budget has {windows}"
        )
    if own.confirm_power is not None and own.confirm_power < power.POWER:
        found.append(
            f"the confirmation finds {ask.improve:.2%} with a probability of {own.confirm_power:.0%}: "
            "raise budget.confirm"
        )
    if after is not None and after.power is not None and after.power < power.POWER:
        found.append(
            f"a promotion proves {ask.improve:.2%} with a probability of {after.power:.0%}: "
            "raise promotion.window or promotion.looks"
        )
    surrogate = ask.spec.objective.surrogate
    if surrogate is not None and ask.foretold is None:
        found.append(
            f"the search is told from {surrogate.metric}: without its --baseline, its noise is left out"
        )
    if ask.schedule.quiet is not None:
        found.append("nothing new starts in schedule.quiet: what it delays is not in these days")
    if ask.improve is not None and not ask.spec.budget.confirm:
        found.append("only a promotion measures the recommendation: set budget.confirm to do so before")
    if ask.improve is not None and ask.search.spread is None:
        found.append("learning is not forecast without --spread: nothing says how much candidates differ")
    return found


def _hopeless(own: Choice) -> str:
    if own.signal is None or own.signal >= LEAST_SIGNAL:
        return ""
    return f"the search's signal is {own.signal:.2f} of its noise; below {LEAST_SIGNAL} chance leads it"
