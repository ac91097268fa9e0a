"""How the evidence sets the hyper-parameters of :mod:`blackopt.optimizers.quadratic`: by a few steps of a
hill climb from where the last fit ended, and by looks elsewhere.

Losses that are alike far from the start contradict a bowl, and there are two ways out: they level off, or the
first spread was too small. A hill climb that took the first would seldom come back: a narrower spread brings
results that show it nothing else. So a fit also looks at what it would be without levelling off, for R = 1
and three larger ones, and with losses that level off where the first spread ends, or before.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

from blackopt.optimizers.quadratic import DRIFT_FROM, SPAN, Data, Hyper, Regression

_FURTHER = (0.0, 1.0, 2.0, 3.0)  # log R that a fit looks at, without levelling off
_SHORT = (0.0, -1.0)  # log c in first spreads that it looks at
_END = math.log(1e5)  # log R, where the search ends that finds no minimum
_LARGE = 500  # rows of the smaller system, from which a round takes several turns
_LEVEL = 1e3  # prior medians of c, beyond which a larger one is no other model
_STEPS = {
    "linear": 1.4,
    "quadratic": 1.4,
    "isotropic": 1.4,
    "drift": 1.4,
    "anchor": 0.7,
    "misfit": math.log(2),
    "span": math.log(2),
    "reach": 0.5,
}


def tuned(data: Data, hyper: Hyper, turn: int, *, sure: bool = False) -> Regression:
    """The best regression that one round finds: by looks at quite another reach or span, then by a step up
    and down each hyper-parameter.

    Where the systems are large, a round is spread over several turns, one look and one hyper-parameter each
    time; once it is ``sure`` that losses depend on the candidate, the looks are.
    """
    best = Regression(data, hyper)
    looks, names = _looks(data), list(_STEPS)
    large = min(len(best.y), len(best.d)) > _LARGE
    for span, reach in [looks[turn % len(looks)]] if sure or large else looks:
        best = _better(best, replace(best.hyper, span=span, reach=reach, anchor=data.centre + reach))
    for name, sign in product([names[turn % len(names)]] if large else names, (1, -1)):
        if name == "drift" and data.size[0] < DRIFT_FROM:
            continue
        best = _better(best, _stepped(best.hyper, name, sign))
    return best


def _looks(data: Data) -> list[tuple[float, float]]:
    """Of c and R, the logarithms."""
    first = data.span - math.log(SPAN)
    return [(data.span + reach, reach) for reach in _FURTHER] + [(first + short, 0.0) for short in _SHORT]


def _stepped(hyper: Hyper, name: str, sign: int) -> Hyper:
    """One step further, or back."""
    if name == "reach":
        reach = min(max(hyper.reach + sign * _STEPS[name], 0.0), _END)
        return replace(hyper.reaching(reach), span=hyper.span + reach - hyper.reach)
    return replace(hyper, **{name: getattr(hyper, name) + sign * _STEPS[name]})


def _better(best: Regression, tried: Hyper) -> Regression:
    """The one of the two with more evidence."""
    data, now = best.data, best.hyper
    if tried.span > max(now.span, data.span + tried.reach + math.log(_LEVEL)):
        return best
    same = (tried.misfit, tried.span) == (now.misfit, now.span)
    found = Regression(data, tried, best.gram if same and not best.dual else None)
    return found if found.evidence > best.evidence else best
