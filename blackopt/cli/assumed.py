"""What `plan` and `rehearse` are told of the control: stated on the command line, or read from its past."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from blackopt.campaign import CampaignSpec, parse
from blackopt.errors import ConfigurationError
from blackopt.rehearsal.history import Past, read_history
from blackopt.runner.assembly import Parts
from blackopt.runner.plan import Baseline

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?)\s*(%?)\s*", re.ASCII)
_FILE = re.compile(r"(?<!\$)\$\{\s*file:[^}]*\}")
_UNSET = "REHEARSED"


@dataclass(frozen=True, slots=True)
class Said:
    """The options that both verbs have, as they were typed.

    Attributes:
        baselines: ``METRIC=RATE`` or ``METRIC=MEAN:SD`` or ``METRIC=MEAN:SD:CORRELATION``.
        units: a day; None where the past says.
        since, until: ISO dates, of the past; both or neither.
    """

    baselines: Sequence[str]
    units: float | None
    since: str | None
    until: str | None

    @property
    def span(self) -> tuple[date, date] | None:
        """The days that are to be read; None where nothing is.

        Raises:
            ConfigurationError: one of them is missing, or is no day.
        """
        if self.since is None and self.until is None:
            return None
        return _date("--since", self.since), _date("--until", self.until)


@dataclass(frozen=True, slots=True)
class Control:
    """What is known of the control.

    Attributes:
        baselines: of each metric that is known.
        stated: of those, what was stated.
        pasts: of those, what was read.
        units_per_day: that arrive in all.
    """

    baselines: Mapping[str, Baseline]
    stated: Mapping[str, Baseline]
    pasts: Mapping[str, Past]
    units_per_day: float


def control(spec: CampaignSpec, said: Said) -> Control:
    """Read what is to be read; the rest was said.

    Raises:
        ConfigurationError: an option is impossible, or the units are unknown.
        HistoryError: the past cannot be used.
        RetriableError: the source cannot be reached now.
    """
    units = said.units
    if units is not None and not (math.isfinite(units) and units > 0.0):
        raise wrong("--units", f"{units:g} units a day are none", "such as --units 20000")
    stated = dict(map(baseline, said.baselines))
    pasts: dict[str, Past] = {}
    if said.span is not None:
        with Parts(spec) as parts:
            pasts = read_history(parts, *said.span, now_us=parts.clock.now_us())
    if units is None:
        own = pasts.get(spec.objective.metric) or next(iter(pasts.values()), None)
        if own is None:
            raise wrong("--units", "nothing says how many units arrive a day", "--units 20000, or --since")
        units = own.units_per_day
    known = {name: one.baseline for name, one in pasts.items()} | stated
    return Control(known, stated, pasts, units)


def offline(path: Path) -> CampaignSpec:
    """A campaign of which nothing will be contacted: references to secrets that lead nowhere are let pass.

    Raises:
        DiagnosticsError: the file is wrong otherwise.
    """
    from blackopt.campaign import load

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return load(path)  # which says what is wrong
    text = _FILE.sub(f"${{{_UNSET}}}", text)
    return parse(text, file=str(path), base=path.resolve().parent, env=_Anything(os.environ))


class _Anything(Mapping[str, str]):
    """An environment in which every name is set."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def __getitem__(self, name: str) -> str:
        return self._env.get(name) or _UNSET

    def __contains__(self, _name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._env)

    def __len__(self) -> int:
        return len(self._env)


def baseline(text: str) -> tuple[str, Baseline]:
    """``METRIC=RATE``, ``METRIC=MEAN:SD`` or ``METRIC=MEAN:SD:CORRELATION``.

    Raises:
        ConfigurationError: it is none of them.
    """
    name, _, numbers = text.partition("=")
    mean, *rest = numbers.split(":")
    found = Baseline(number(mean), *map(number, rest[:2]))
    good = name and len(rest) <= 2 and not math.isnan(found.mean)
    if not good or not (found.sd is None or found.sd >= 0.0) or not abs(found.correlation or 0.0) < 1.0:
        raise wrong("--baseline", f"{text!r} is no baseline", "such as visit_14d=8% or revenue=12.5:40")
    return name, found


def fraction(option: str, text: str | None, *, zero: bool = False) -> float | None:
    """A share: ``3%`` or ``0.03``; None where nothing was said.

    Raises:
        ConfigurationError: it is not between 0 and 100 %.
    """
    if text is None:
        return None
    value = number(text)
    if not 0.0 <= value <= 1.0 or (value == 0.0 and not zero):
        raise wrong(option, f"{text!r} is not between 0 and 100%", f"such as {option} 3%")
    return value


def number(text: str) -> float:
    """``8%`` or ``0.08``; NaN for anything else."""
    found = _NUMBER.fullmatch(text)
    return float(found[1]) / (100.0 if found[2] else 1.0) if found else math.nan


def wrong(option: str, what: str, next_step: str) -> ConfigurationError:
    """An option that cannot be."""
    return ConfigurationError(what, where=option, safe="nothing was spent", next_step=next_step)


def percent(value: float | None) -> str:
    """A fraction for people."""
    return "-" if value is None else f"{100.0 * value:.3g} %"


def _date(option: str, text: str | None) -> date:
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        raise wrong(option, f"{text or 'nothing'} is no day", f"such as {option} 2026-10-01") from None
