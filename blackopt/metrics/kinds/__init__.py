"""What kinds of metric there are: the statistics each needs, and the estimate they give.

Sources report sufficient statistics per arm and cohort. :func:`kind` gives the arithmetic for a declared
metric: ``validate`` a reading, ``pool`` several, ``estimate`` an arm, its ``effect`` against the control, and
``estimates`` and ``effects`` for thousands of arms at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from blackopt.errors import UsageError
from blackopt.metrics.kinds.averages import Average, Mean, Ratio, Revenue
from blackopt.metrics.kinds.base import LARGEST, Columns, Kind, Stats
from blackopt.metrics.kinds.proportion import Proportion, Retention
from blackopt.metrics.kinds.quantile import Quantile
from blackopt.metrics.kinds.value import Value

__all__ = [
    "KIND_NAMES",
    "LARGEST",
    "Average",
    "Columns",
    "Kind",
    "Mean",
    "Proportion",
    "Quantile",
    "Ratio",
    "Retention",
    "Revenue",
    "Stats",
    "Value",
    "kind",
]

_MAKERS: dict[str, Callable[..., Kind]] = {
    maker.name: maker for maker in (Proportion, Retention, Mean, Revenue, Ratio, Quantile, Value)
}
_CUPED = (Mean.name, Revenue.name, Ratio.name)

KIND_NAMES: tuple[str, ...] = tuple(_MAKERS)
"""Names that :func:`kind` knows."""


def kind(name: str, *, cuped: bool = False, quantile: float | None = None, cap: float | None = None) -> Kind:
    """The kind of this name.

    Args:
        name: one of :data:`KIND_NAMES`.
        cuped: adjust comparisons for a covariate; mean, revenue and ratio only.
        quantile: which quantile, between 0 and 1; for a quantile, and only there.
        cap: the largest value that counts for one unit; for revenue, and only there.

    Raises:
        UsageError: there is none, or it does not take these arguments.
    """
    maker = _MAKERS.get(name)
    if maker is None:
        close = difflib.get_close_matches(name, KIND_NAMES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"kind: expected one of {', '.join(KIND_NAMES)}, got {name!r}{hint}")
    for argument, given, owner in (("quantile", quantile, Quantile.name), ("cap", cap, Revenue.name)):
        if (given is not None) != (name == owner):
            raise UsageError(f"{argument}: expected for a {owner} and only there, got {given!r} for a {name}")
    if cuped and name not in _CUPED:
        raise UsageError(f"cuped: expected for {', '.join(_CUPED)} only, got a {name}")
    options: dict[str, object] = {"cuped": True} if cuped else {}
    if quantile is not None:
        options["level"] = quantile
    if cap is not None:
        options["cap"] = cap
    return maker(**options)
