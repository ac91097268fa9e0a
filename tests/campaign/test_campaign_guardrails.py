"""Guardrails as a campaign declares them: defaults, the test or the duration, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from blackopt.campaign import CampaignSpec, parse
from blackopt.errors import DiagnosticsError

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

TEMPLATE = """\
version: 1
name: email-offer
policy: {{use: parameters, space: {{x: {{float: [0, 1]}}}}}}
optimizer: {{use: openai-es, population: 4, sigma: 0.3}}
push: {{use: http, url: "http://127.0.0.1:1/blackopt"}}
measure:
  use: sql
  url: sqlite:///events.db
  metrics:
    visit: {{kind: proportion, query: visits.sql, window: 14d, lag: 1h}}
    errors: {{kind: proportion, query: errors.sql, lag: 5m, min_units: 50}}
objective: {{maximize: visit, relative_to: control}}
guardrails: [{guardrail}]
traffic: {{unit: customer, share: 60%, control: 20%}}
budget: {{trials: 16}}
schedule: {{window: 1d, poll: 15m}}
"""


@pytest.fixture
def read(tmp_path: Any) -> Callable[[str], CampaignSpec]:
    for name in ("visits", "errors"):
        (tmp_path / f"{name}.sql").write_text("SELECT 1 AS n, 1 AS sum", encoding="utf-8")
    return lambda guardrail: parse(TEMPLATE.format(guardrail=guardrail), base=tmp_path, env={})


def test_what_is_not_said_follows_from_the_metric_and_the_schedule(
    read: Callable[[str], CampaignSpec],
) -> None:
    [guardrail] = read('{metric: errors, at_most: "2 * control"}').guardrails
    assert (guardrail.min_units, guardrail.min_events, guardrail.alpha) == (50, 10, 0.05)
    assert (guardrail.expected_units, guardrail.lasting) == (None, None)
    assert guardrail.silent_after == 5 * MINUTE + 2 * 15 * MINUTE


def test_everything_can_be_said(read: Callable[[str], CampaignSpec]) -> None:
    [guardrail] = read(
        "{metric: visit, at_least: 0.1, min_units: 9, min_events: 0, alpha: 1%,"
        " expected_units: 4000, silent_after: 3h}"
    ).guardrails
    assert (guardrail.min_units, guardrail.min_events, guardrail.alpha) == (9, 0, 0.01)
    assert (guardrail.expected_units, guardrail.silent_after) == (4_000, 3 * HOUR)


def test_a_duration_in_place_of_a_test_is_written_as_for(read: Callable[[str], CampaignSpec]) -> None:
    spec = read("{metric: errors, at_most: 0.01, for: 10m}")
    assert spec.guardrails[0].lasting == 10 * MINUTE
    assert spec.document["guardrails"] == [{"metric": "errors", "at_most": 0.01, "for": "10m"}]


@pytest.mark.parametrize(
    ("guardrail", "message"),
    [
        (
            "{metric: errors, at_most: 0.01, for: 10m, alpha: 5%}",
            "`alpha` belongs to a test, `for` replaces it",
        ),
        ("{metric: errors, at_most: 0.01, for: 10m, min_events: 5}", "`min_events` belongs to a test"),
        ("{metric: errors, at_most: 0.01, for: 0s}", "must be longer than nothing"),
        ("{metric: errors, at_most: 0.01, lasting: 10m}", "unknown key"),
        ("{metric: errors, at_most: 0.01, alpha: 50%}", "`alpha` must be less than 50%"),
        ("{metric: errors, at_most: 0.01, alpha: 0.05}", "0.05 has no unit"),
        ("{metric: errors, at_most: 0.01, expected_units: 0}", "expected_units"),
        ("{metric: errors, at_most: 0.01, silent_after: 0s}", "must be longer than nothing"),
    ],
)
def test_contradictions_are_named(read: Callable[[str], CampaignSpec], guardrail: str, message: str) -> None:
    with pytest.raises(DiagnosticsError) as error:
        read(guardrail)
    assert message in str(error.value)
