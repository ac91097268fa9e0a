"""Maturity, surrogates, quiet hours and promotions, as a campaign declares them."""

# ruff: noqa: E501  tables of cases, one a line

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from blackopt.campaign import Anchor, MetricSpec, PromotionSpec, Quiet, Surrogate, changes, json_schema, parse
from blackopt.campaign.specs import delay
from blackopt.campaign.units import UNITS_US, parse_spread, whole_weeks
from blackopt.diagnostics import Problem
from blackopt.errors import DiagnosticsError
from blackopt.metrics.maturity import Maturity

DAY = UNITS_US["d"]
HOUR = UNITS_US["h"]

pytestmark = pytest.mark.usefixtures("throwaway")


@pytest.fixture
def full(campaign: str) -> str:
    """A campaign with every key of this file."""
    text = campaign.replace(
        "  metrics:\n",
        "  metrics:\n"
        "    click_2d: {kind: mean, query: c.sql, window: 2d, cuped: true, history: {query: past.sql}}\n"
        "    revenue_14d: {kind: revenue, cap: 250, query: r.sql, window: 14d, lag: 1h, bake: 3d,"
        " anchor: {event: signed_up, within: 2d}}\n"
        "    back_7d: {kind: retention, day: 7, within: true, query: b.sql, window: 8d}\n",
    )
    text = text.replace(
        "{maximize: visit_14d, relative_to: control}",
        "{maximize: revenue_14d, relative_to: control, surrogate: {metric: click_2d, slope: 0.4, error: 2%}}",
    )
    text = text.replace(
        "deadline: 30d}",
        "deadline: 30d, whole_weeks: true,"
        ' quiet: {hours: "20:00-08:00", days: [sun, sat], timezone: Europe/Berlin}}',
    )
    return text + (
        "promotion: {looks: 2, window: 9d, alpha: 1%, share: 40%, ramp: [2%, 50%], step: 12h, holdback: 10%,"
        " holdback_for: 56d}\n"
    )


def edited(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


def problems_of(text: str) -> list[str]:
    with pytest.raises(DiagnosticsError) as caught:
        parse(text, file="c.yaml", env={})
    found = [problem for problem in caught.value.problems if isinstance(problem, Problem)]
    return [f"{p.line}: {p.path}: {p.message} ({p.hint})" for p in found]


# -- what comes out --------------------------------------------------------------------------------------------------


def test_every_key_is_read(full: str) -> None:
    spec = parse(full, env={})
    assert spec.measure is not None
    assert spec.schedule is not None
    metrics = spec.measure.metrics
    revenue, back, click = metrics["revenue_14d"], metrics["back_7d"], metrics["click_2d"]
    assert (revenue.bake, revenue.anchor) == (3 * DAY, Anchor(event="signed_up", within="2d"))  # type: ignore[arg-type]
    assert (back.day, back.within, back.history) == (7, True, None)
    assert click.history is not None
    assert click.history.model_dump() == {"query": Path("past.sql")}
    assert spec.objective.surrogate == Surrogate(metric="click_2d", slope=0.4, error=0.02)
    assert spec.schedule.quiet == Quiet(hours="20:00-08:00", days=("sat", "sun"), timezone="Europe/Berlin")  # type: ignore[arg-type]
    assert spec.schedule.quiet.hours == (20 * 60, 8 * 60)
    assert spec.schedule.whole_weeks
    assert spec.promotion == PromotionSpec(
        2, 14 * DAY, 0.01, 400_000, (20_000, 500_000), DAY // 2, 100_000, 56 * DAY
    )


def test_a_promotion_has_defaults_where_the_section_is_absent(campaign: str) -> None:
    expected = PromotionSpec(
        3, DAY, 0.025, 500_000, (10_000, 50_000, 100_000, 250_000, 500_000), DAY, 50_000, 28 * DAY
    )
    assert parse(campaign, env={}).promotion == expected


def test_only_production_promotes(campaign: str) -> None:
    manual = "".join(line + "\n" for line in campaign.splitlines() if line.split(":")[0] in ("version", "name", "policy", "optimizer", "budget"))  # fmt: skip
    manual += "objective: {minimize: cost}\n"
    assert parse(manual, env={}).promotion is None
    assert problems_of(manual + "promotion: {}\n")[0].startswith(
        "1: push: is required (a campaign with `promotion`"
    )
    evaluated = manual + "evaluate: {use: t-call, call: 'a:b'}\npromotion: {}\n"
    assert "promotion: does not go with `evaluate`" in problems_of(evaluated)[0]


def test_the_document_holds_what_was_written_in_canonical_units(full: str) -> None:
    document = parse(full, env={}).document
    again = parse(json.dumps(document), env={})
    assert again.document == document
    assert document["schedule"]["quiet"] == {
        "hours": "20:00-08:00",
        "days": ["sat", "sun"],
        "timezone": "Europe/Berlin",
    }
    assert document["objective"]["surrogate"] == {"metric": "click_2d", "slope": 0.4, "error": 0.02}
    assert document["measure"]["metrics"]["click_2d"]["history"] == {"query": "past.sql"}
    assert document["promotion"]["window"] == "9d"
    jsonschema.validate(document, json_schema())


def test_keys_that_are_not_written_change_no_document(campaign: str) -> None:
    document = parse(campaign, env={}).document
    assert "promotion" not in document
    assert set(document["schedule"]) == {"window"}


def test_a_promotion_may_be_edited_and_the_rest_may_not(full: str) -> None:
    spec = parse(full, env={})
    promotion = parse(edited(full, "looks: 2", "looks: 5"), env={})
    assert promotion.sha256 == spec.sha256
    assert changes(spec.document, promotion.document) == []
    for old, new in (("slope: 0.4", "slope: 0.5"), ("bake: 3d", "bake: 4d"), ("08:00", "09:00")):
        other = parse(edited(full, old, new), env={})
        assert other.sha256 != spec.sha256
        assert len(changes(spec.document, other.document)) == 1


def test_what_delays_a_metric_adds_up(full: str) -> None:
    spec = parse(full, env={})
    assert spec.measure is not None
    metric: MetricSpec = spec.measure.metrics["revenue_14d"]
    assert metric.anchor is not None
    assert delay(metric) == (2 + 14 + 3) * DAY + HOUR
    rule = Maturity(metric.window, metric.lag, metric.bake, metric.anchor.within)
    assert delay(metric) == rule.mature_at(0)


def test_a_guardrail_is_silent_only_after_all_of_its_metrics_delay(full: str) -> None:
    text = edited(full, "metric: unsubscribe_14d", "metric: revenue_14d")
    assert parse(text, env={}).guardrails[0].silent_after == 19 * DAY + HOUR + 2 * HOUR // 4


def test_references_in_a_history_are_the_sources_own(full: str) -> None:
    text = edited(full, "query: past.sql", 'query: "${PAST}"')
    spec = parse(text, env={"PAST": "older.sql"})
    assert spec.measure is not None
    history = spec.measure.metrics["click_2d"].history
    assert history is not None
    assert history.model_dump() == {"query": Path("older.sql")}
    assert spec.document["measure"]["metrics"]["click_2d"]["history"] == {"query": "${PAST}"}
    assert "is not set" in problems_of(text)[0] or "has no PAST" in problems_of(text)[0]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("anchor: {event: signed_up, within: 2d}", "anchor: signed_up", "10: measure.metrics.revenue_14d.anchor: "),
        ("within: 2d}", "within: 0d}", "10: measure.metrics.revenue_14d.anchor.within: must be longer than nothing"),
        ("event: signed_up, ", "", "10: measure.metrics.revenue_14d.anchor.event: is required"),
        ("event: signed_up", "event: signed up", "10: measure.metrics.revenue_14d.anchor.event: is not such a name"),
        ("event: signed_up", "evnt: signed_up", "10: measure.metrics.revenue_14d.anchor.evnt: unknown key (did you mean `event`?)"),
        ("bake: 3d", "bake: 3", "10: measure.metrics.revenue_14d.bake: 3 has no unit"),
        ("kind: retention, day: 7, within", "kind: proportion, within", "11: measure.metrics.back_7d: `within` belongs to a retention"),
        ("day: 7, within", "day: 0, within", "11: measure.metrics.back_7d: no day lies between day 1 and day 0"),
        ("history: {query: past.sql}", "history: {}", "9: measure.metrics.click_2d.history.query: is required"),
        ("history: {query: past.sql}", "history: {query: p, kind: mean}", "9: measure.metrics.click_2d.history.kind: unknown key"),
        ("history: {query: past.sql}", "history: past.sql", "9: measure.metrics.click_2d.history: "),
        ("metric: click_2d, slope", "metric: clicks_2d, slope", "14: objective.surrogate.metric: `clicks_2d` is not declared under `measure.metrics` (did you mean `click_2d`?)"),
        ("metric: click_2d, slope", "metric: revenue_14d, slope", "14: objective.surrogate.metric: is the objective itself"),
        ("window: 2d, cuped", "window: 19d1h, cuped", "14: objective.surrogate.metric: matures 19d1h after a window's end, `revenue_14d` 19d1h (a surrogate must mature sooner)"),
        ("relative_to: control, surrogate", "surrogate", "14: objective.surrogate: needs `relative_to`: it is effects that it maps (add relative_to: control)"),
        ("slope: 0.4", "slope: 0", "14: objective.surrogate: `slope` must be finite and not 0"),
        ("error: 2%", "error: -0.1", "14: objective.surrogate.error: must be a share, or a number of at least 0"),
        ("deadline: 30d", "deadline: 19d1h", "18: schedule.deadline: is too early: `revenue_14d` matures 19d1h after the window's end (at least 19d1h15m: one poll more)"),
        ("Europe/Berlin", "Europe/Berlim", "18: schedule.quiet.timezone: `Europe/Berlim` is not a time zone (did you mean `Europe/Berlin`?)"),
        ("timezone: Europe/Berlin", "timezone: Europe", "18: schedule.quiet.timezone: `Europe` is not a time zone"),
        ("timezone: Europe/Berlin", "timezone: ../etc/passwd", "18: schedule.quiet.timezone: `../etc/passwd` is not a time zone"),
        ("20:00-08:00", "20-8", '18: schedule.quiet.hours: must be two times of a day (such as "20:00-08:00")'),
        ("20:00-08:00", "20:00-24:30", "18: schedule.quiet.hours: `20:00-24:30` is later than 24:00"),
        ("20:00-08:00", "08:00-08:00", "18: schedule.quiet.hours: `08:00-08:00` is all of a day, or nothing"),
        ("20:00-08:00", "00:00-24:00", "18: schedule.quiet.hours: `00:00-24:00` is all of a day, or nothing"),
        ("[sun, sat]", "[sun, mon, tue, wed, thu, fri, sat]", "18: schedule.quiet.days: is every day: nothing would ever start"),
        ("[sun, sat]", "[sun, sun]", "18: schedule.quiet.days: names a day twice"),
        ("[sun, sat]", "[sunday]", "18: schedule.quiet.days[0]: must be 'mon', 'tue'"),
        ("[sun, sat]", "[]", "18: schedule.quiet.days: "),
        ('hours: "20:00-08:00", days: [sun, sat], ', "", "18: schedule.quiet: needs `hours` or `days`"),
        ("looks: 2", "looks: 0", "19: promotion.looks: must be greater than or equal to 1"),
        ("looks: 2", "looks: 60", "19: promotion.looks: 60 looks of 14d take longer than two years"),
        ("window: 9d", "window: 1m", "19: promotion.window: is shorter than `schedule.poll` (15m)"),
        ("step: 12h", "step: 1m", "19: promotion.step: is shorter than `schedule.poll` (15m)"),
        ("alpha: 1%", "alpha: 50%", "19: promotion: `alpha` must be less than 50%"),
        ("share: 40%", "share: 100%", "19: promotion: `share` leaves no control"),
        ("ramp: [2%, 50%]", "ramp: [2%, 2%]", "19: promotion.ramp: must rise from step to step"),
        ("ramp: [2%, 50%]", "ramp: [2%, 51%]", "19: promotion.ramp: 51% leaves no equal control"),
        ("ramp: [2%, 50%]", "ramp: [0%, 50%]", "19: promotion.ramp[0]: must be more than 0%"),
        ("ramp: [2%, 50%]", "ramp: []", "19: promotion.ramp: "),
        ("holdback: 10%", "holdback: 51%", "19: promotion: `holdback` must be at most 50%"),
        ("holdback_for: 56d", "holdback_for: 0d", "19: promotion.holdback_for: must be longer than nothing"),
    ],
)  # fmt: skip
def test_one_edit_one_problem_at_its_line(full: str, old: str, new: str, expected: str) -> None:
    found = problems_of(edited(full, old, new))
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("window: 2d, cuped", "window: 19d, cuped"),
        ("deadline: 30d", "deadline: 19d1h15m"),
        ("days: [sun, sat], ", ""),
        ('hours: "20:00-08:00", ', ""),
        ("20:00-08:00", "20:00-24:00"),
        ("20:00-08:00", "00:00-08:00"),
        ("looks: 2", "looks: 52"),
        ("step: 12h", "step: 15m"),
        ("holdback: 10%", "holdback: 0%"),
        ("error: 2%", "error: 0"),
        ("slope: 0.4", "slope: -0.4"),
        ("day: 7, within", "day: 1, within"),
    ],
)
def test_what_is_just_enough_is_accepted(full: str, old: str, new: str) -> None:
    jsonschema.validate(parse(edited(full, old, new), env={}).document, json_schema())


def test_the_json_schema_has_no_reference_out_of_a_section(full: str) -> None:
    schema = json_schema()
    document = parse(full, env={}).document
    document["schedule"]["quiet"]["hour"] = "20:00-08:00"
    with pytest.raises(jsonschema.ValidationError, match="hour"):
        jsonschema.validate(document, schema)
    assert schema["properties"]["promotion"]["properties"]["ramp"]["default"] == [
        "1%",
        "5%",
        "10%",
        "25%",
        "50%",
    ]


@pytest.mark.parametrize(("text", "value"), [("2%", 0.02), ("0%", 0.0), (0.5, 0.5), (3, 3.0)])
def test_a_spread(text: object, value: float) -> None:
    assert parse_spread(text) == value


@pytest.mark.parametrize(("days", "weeks"), [(1, 1), (7, 1), (8, 2), (14, 2)])
def test_whole_weeks(days: int, weeks: int) -> None:
    assert whole_weeks(days * DAY) == weeks * 7 * DAY
    assert whole_weeks(days * DAY - 1) == weeks * 7 * DAY
