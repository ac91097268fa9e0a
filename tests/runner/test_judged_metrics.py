"""Every kind of metric from the campaign to its value; readings that give none say why."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from blackopt.campaign import CampaignSpec, from_mapping
from blackopt.ledger.rows import Disposition, ReadingRow
from blackopt.metrics.errors import ImpossibleStatistics, MetricError, TooFewEvents, TooFewUnits
from blackopt.runner.judge import Judge
from blackopt.runner.newest import Newest
from blackopt.types import Reading


@pytest.fixture
def document() -> dict[str, Any]:
    return {
        "version": 1, "name": "shop",
        "policy": {"use": "parameters", "space": {"x": {"float": [0, 1]}}},
        "optimizer": {"use": "random"},
        "push": {"use": "http", "url": "http://127.0.0.1:1/unused"},
        "measure": {"use": "csv", "path": "unused.csv", "metrics": {}},
        "objective": {"maximize": "it", "relative_to": "control"},
        "traffic": {"unit": "user", "share": "80%", "control": "20%", "arms": 2},
        "budget": {"trials": 4}, "schedule": {"window": "1d", "poll": "12h", "deadline": "30d"},
    }  # fmt: skip


def judge_of(document: dict[str, Any], **metric: Any) -> Judge:
    changed = copy.deepcopy(document)
    changed["measure"]["metrics"]["it"] = {"window": "8d", **metric}
    spec: CampaignSpec = from_mapping(changed)
    return Judge(spec)


def rows(*stats: dict[str, float]) -> list[ReadingRow]:
    return [
        ReadingRow(i, Reading("it", 1, "t0", f"1970-01-0{i}", 9, s), 0, 9, Disposition.ACCEPTED)
        for i, s in enumerate(stats, start=1)
    ]


MEAN = {"n": 40.0, "sum": 20.0, "sum_sq": 30.0}
RATIO = {**MEAN, "den_sum": 80.0, "den_sum_sq": 200.0, "num_den": 45.0}
COV = {"cov_sum": 40.0, "cov_sum_sq": 90.0, "num_cov": 22.0}


@pytest.mark.parametrize(
    ("metric", "stats", "value"),
    [
        ({"kind": "proportion"}, MEAN, 0.5),
        ({"kind": "retention", "day": 7}, MEAN, 0.5),
        ({"kind": "mean"}, MEAN, 0.5),
        ({"kind": "mean", "cuped": True}, {**MEAN, **COV}, 0.5),
        ({"kind": "revenue", "cap": 3}, {**MEAN, "raw_sum": 30.0, "raw_sum_sq": 90.0}, 0.5),
        ({"kind": "ratio"}, RATIO, 0.25),
        ({"kind": "quantile", "quantile": 0.5}, {"n": 40.0, "q": 2.0, "q_lower": 1.0, "q_upper": 3.0}, 2.0),
        ({"kind": "value"}, {"value": 2.0, "se": 0.5}, 2.0),
    ],
    ids=lambda x: x["kind"] if isinstance(x, dict) and "kind" in x else "",
)
def test_a_declared_metric_has_a_value(
    document: dict[str, Any], metric: dict[str, Any], stats: dict[str, float], value: float
) -> None:
    measured = judge_of(document, **metric).measure(Newest(rows(stats, stats)), "it", "t0")
    assert measured.estimate.value == pytest.approx(value)
    assert measured.estimate.se is not None
    assert measured.used == (1, 2)


def test_what_keeps_a_metric_from_a_value_is_said_with_its_numbers(document: dict[str, Any]) -> None:
    cases: list[tuple[dict[str, Any], list[ReadingRow], type[MetricError], str]] = [
        ({"kind": "mean"}, [], TooFewUnits, "too few units: 0 of at least 1"),
        ({"kind": "mean", "min_units": 50}, rows(MEAN), TooFewUnits, "too few units: 40 of at least 50"),
        ({"kind": "proportion", "min_events": 21}, rows(MEAN), TooFewEvents, "20 of at least 21, among 40"),
        ({"kind": "mean", "min_events": 1}, rows(MEAN), ImpossibleStatistics, "how many units had an event"),
        ({"kind": "mean"}, rows(MEAN, {"n": 3.0, "sum": 1.0}), ImpossibleStatistics, "missing: sum_sq"),
        ({"kind": "mean"}, rows({**MEAN, "sum_sq": 1.0}), ImpossibleStatistics, "sum_sq is 1.0, less than"),
        ({"kind": "quantile", "quantile": 0.99}, rows({"n": 40.0, "q": 2.0, "q_lower": 1.0, "q_upper": 3.0}),
         TooFewUnits, "40, the 0.99 quantile needs more than 396"),
    ]  # fmt: skip
    for metric, readings, error, said in cases:
        with pytest.raises(error, match=said.replace("(", r"\(")) as caught:
            judge_of(document, **metric).measure(Newest(readings), "it", "t0")
        assert caught.value.where == "it of t0"
