"""Which statistics a metric's kind needs, in the order in which they are reported."""

from __future__ import annotations

from itertools import combinations

from blackopt_connectors.events.options import EventsMetricOptions


def statistics(metric: EventsMetricOptions) -> tuple[str, ...]:
    """Names of the statistics of a metric.

    Example:
        >>> statistics(EventsMetricOptions(kind="retention", event="open", day=1))
        ('n', 'sum')
    """
    if metric.kind in ("proportion", "retention"):
        return ("n", "sum")
    if metric.kind == "quantile":
        return ("n", "q", "q_lower", "q_upper", "cluster")
    parts = [*metric.parts, *(["cov_den"] if metric.kind == "ratio" and metric.cuped else [])]
    sums = [("sum" if part == "num" else f"{part}_sum") for part in parts]
    raw = ("raw_sum", "raw_sum_sq") if metric.kind == "revenue" else ()
    products = (f"{a}_{b}" for a, b in combinations(parts, 2))
    return ("n", *(name for total in sums for name in (total, f"{total}_sq")), *products, *raw, "events")


def empty(metric: EventsMetricOptions) -> dict[str, float]:
    """The statistics of an arm without complete units: a watermark."""
    found = dict.fromkeys(statistics(metric), 0.0)
    return found | ({"cluster": 1.0} if "cluster" in found else {})
