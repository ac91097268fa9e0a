"""What an evaluation returned, as readings of the kind ``value``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from blackopt.types import NoReading, Query, Reading


def readings(arm: str, result: object, query: Query) -> Iterator[Reading | NoReading]:
    """Readings of one finished evaluation, or the one :class:`NoReading` that says why there are none.

    Args:
        arm: that was evaluated.
        result: a number; (mean, standard error); ``{"value": v, "se": s}``; or a mapping of metrics to any
            of these. A result without metric names is the first metric of the query. Numbers that are not
            finite are passed on.
        query: whose metrics are wanted and whose ``as_of_us`` the readings get.
    """
    try:
        found = _by_metric(result, query.metrics)
        stats = {metric: _stats(found[metric]) for metric in query.metrics if metric in found}
    except ValueError as error:
        yield NoReading(0, arm, f"unusable result: {error}")
        return
    for metric, values in stats.items():
        yield Reading(metric, 0, arm, "", query.as_of_us, values)


def _by_metric(result: object, metrics: Sequence[str]) -> Mapping[str, object]:
    if not isinstance(result, Mapping):
        return {metrics[0]: result}
    if all(metric in result for metric in metrics):
        return result
    if "value" in result and set(result) <= {"value", "se"}:
        return {metrics[0]: result}
    missing = ", ".join(metric for metric in metrics if metric not in result)
    raise ValueError(f"no metric {missing}; it has {', '.join(map(str, result)) or 'nothing'}")


def _stats(result: object) -> dict[str, float]:
    if isinstance(result, Mapping):
        if "value" not in result or not set(result) <= {"value", "se"}:
            raise ValueError(f"expected value and perhaps se, got {', '.join(map(str, result)) or 'nothing'}")
        pair: Sequence[object] = [result["value"], result.get("se")]
    elif isinstance(result, list | tuple):
        if len(result) != 2:
            raise ValueError(f"expected (mean, standard error), got {len(result)} numbers")
        pair = result
    else:
        pair = [result, None]
    value, se = pair
    stats = {"value": _number(value)}
    return stats if se is None else {**stats, "se": _number(se)}


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {type(value).__name__} {str(value)[:80]}")
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
