"""Results in business words. One place, so that the terminal, the report and the examples say the same."""

from __future__ import annotations

from blackopt.metrics.effects import interval
from blackopt.runner.results import Evidence, Results


def per_cent(value: float, *, sign: bool = False) -> str:
    """A share as per cent with two decimals."""
    return f"{100 * value:+.2f} %" if sign else f"{100 * value:.2f} %"


def headline(found: Results) -> str:
    """What came out, how sure that is, and what to do: two or three lines."""
    return "\n".join([_worth(found), *_believed(found), _advice(found)])


def _worth(found: Results) -> str:
    if found.estimate is None:
        return f"{found.metric}: nothing was measured yet"
    value, spread = found.estimate.value, ""
    if found.interval is not None and found.interval[0] < found.interval[1]:
        spread = f", 95 % CI {_value(found, found.interval[0])} to {_value(found, found.interval[1])}"
    if found.treatment is not None and found.control is not None:
        levels = f"{_level(found, found.treatment.value)} against {_level(found, found.control.value)}"
        return f"{found.metric} {levels} under control: {_value(found, value)}{spread}"
    return f"{found.metric} {_value(found, value)}{spread}"


def _believed(found: Results) -> list[str]:
    """What the optimizer's own model says of an evaluation's recommendation."""
    if found.believed is None or found.compared:
        return []
    improvement = found.believed.improvement
    if not improvement.se:
        return ["by the optimizer's model nothing is shown to be better than the start, which is recommended"]
    low, high = (_level(found, limit) for limit in interval(improvement))
    better = "better than the start by" if improvement.value > 0 else "no better than the start: by"
    return [f"by the optimizer's model {better} {_level(found, improvement.value)}, 95 % CI {low} to {high}"]


def _advice(found: Results) -> str:
    if found.promotion is not None:
        return f"promotion {found.promotion.number}: {found.promotion.text}"
    if found.stopped:
        return "a guardrail stopped the recommendation itself when it was measured again: keep the incumbent"
    if found.evidence is Evidence.NONE:
        return "no result yet: keep the incumbent"
    if found.foretold:
        return (
            f"foretold by {found.foretold}, from candidates around the recommendation: "
            "measure it before you trust it"
        )
    if found.evidence is Evidence.SEARCH:
        return (
            "from candidates around the recommendation, not from the recommendation itself: "
            "measure it before you trust it"
        )
    if not found.compared:
        return "the recommendation, measured again after the search"
    if found.proven:
        return "measured on fresh units after the search: better than the incumbent"
    return "measured on fresh units after the search: no proven improvement, keep the incumbent"


def _value(found: Results, value: float) -> str:
    if found.relative:
        return per_cent(value, sign=True)
    if found.compared:
        return f"{value:+.6g}"
    return _level(found, value)


def _level(found: Results, value: float) -> str:
    return per_cent(value) if found.percent else f"{value:.6g}"
