"""From campaign.yaml to a spec: typed values, filled defaults, and every problem at its line in one pass."""

# ruff: noqa: E501  tables of cases, one a line

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from blackopt.campaign import CampaignSpec, Form, from_mapping, load, parse
from blackopt.diagnostics import Problem
from blackopt.errors import DiagnosticsError

DAY = 86_400_000_000
HOUR = DAY // 24

MANUAL = """\
version: 1
name: by-hand
policy: {use: t-linear, inputs: 1, outputs: 1}
optimizer: {use: t-es}
objective: {minimize: cost}
budget: {trials: 10}
"""

pytestmark = pytest.mark.usefixtures("throwaway")


def problems_of(text: str) -> list[Problem]:
    with pytest.raises(DiagnosticsError) as caught:
        parse(text, file="c.yaml", env={})
    return [problem for problem in caught.value.problems if isinstance(problem, Problem)]


def lines_of(text: str) -> list[str]:
    return [f"{p.line}:{p.column}: {p.path}: {p.message} ({p.hint})" for p in problems_of(text)]


def edited(campaign: str, old: str, new: str) -> str:
    assert campaign.count(old) == 1, f"{old!r} is there {campaign.count(old)} times"
    return campaign.replace(old, new)


# -- what comes out --------------------------------------------------------------------------------------------------


def test_a_production_campaign(campaign: str, tmp_path: Path) -> None:
    file = tmp_path / "email.yaml"
    file.write_text(campaign)
    spec = load(file, env={})
    assert (spec.mode, spec.name, spec.base) == (Form.PRODUCTION, "email-offer", tmp_path)
    assert spec.ledger == tmp_path / "email-offer.db"
    assert spec.schedule is not None
    assert spec.traffic is not None
    assert spec.measure is not None
    assert (spec.schedule.window, spec.schedule.poll, spec.schedule.deadline) == (DAY, HOUR // 4, 30 * DAY)
    assert spec.schedule.lease == 3 * spec.schedule.poll
    assert (spec.traffic.share, spec.traffic.control, spec.traffic.arms) == (600_000, 200_000, 16)
    assert (spec.budget.trials, spec.budget.max_in_flight, spec.budget.confirm, spec.budget.breaches) == (
        320,
        16,
        0,
        5,
    )
    assert (spec.objective.metric, spec.objective.maximizes, spec.objective.effect) == (
        "visit_14d",
        True,
        "relative",
    )
    visits = spec.measure.metrics["visit_14d"]
    assert (visits.kind, visits.window, visits.lag, visits.min_units) == ("proportion", 14 * DAY, HOUR, 100)
    assert visits.options.model_dump() == {"query": Path("queries/visits.sql")}
    assert [(g.metric, g.at_most, g.at_least, g.min_units) for g in spec.guardrails] == [
        ("unsubscribe_14d", "1.05 * control", None, 200)
    ]
    assert (spec.optimizer.use, spec.optimizer.options.seed, spec.clock.use) == ("t-es", 7, "system")
    assert spec.evaluate is None


def test_an_evaluation(campaign: str) -> None:
    text = (
        MANUAL
        + "evaluate: {use: t-call, call: 'pkg.mod:func', workers: 2}\nledger: runs/x.db\nclock: {use: t-clock}\n"
    )
    spec = parse(text, base="/data", env={})
    assert (spec.mode, spec.ledger, spec.clock.use) == (Form.EVALUATION, Path("/data/runs/x.db"), "t-clock")
    assert spec.evaluate is not None
    assert spec.evaluate.options.model_dump() == {"call": "pkg.mod:func", "workers": 2}
    assert (spec.push, spec.measure, spec.traffic, spec.schedule, spec.guardrails) == (
        None,
        None,
        None,
        None,
        (),
    )


def test_a_manual_campaign() -> None:
    spec = parse(MANUAL, env={})
    assert spec.mode is Form.MANUAL
    assert (spec.objective.metric, spec.objective.maximizes, spec.budget.max_in_flight) == ("cost", False, 1)


@pytest.mark.parametrize(
    ("population", "arms", "in_flight", "expected"),
    [
        ("population: 16,", "", ", max_in_flight: 32", (16, 32)),
        ("population: 16,", ", arms: 4", ", max_in_flight: 8", (4, 8)),
        ("", "", ", max_in_flight: 12", (12, 12)),
        ("population: 6,", "", "", (6, 6)),
        ("", ", arms: 4", "", (4, 4)),
        ("", "", "", (1, 1)),
    ],
)
def test_arms_and_in_flight_follow_from_each_other(
    campaign: str, population: str, arms: str, in_flight: str, expected: tuple[int, int]
) -> None:
    text = edited(campaign, "population: 16,", population)
    text = edited(text, "control: 20%}", f"control: 20%{arms}}}")
    spec = parse(edited(text, ", max_in_flight: 16", in_flight), env={})
    assert spec.traffic is not None
    assert (spec.traffic.arms, spec.budget.max_in_flight) == expected


def test_a_guardrail_needs_as_many_units_as_its_metric_unless_it_says_otherwise(campaign: str) -> None:
    text = edited(campaign, "metric: unsubscribe_14d", "metric: visit_14d")
    spec = parse(edited(text, ", min_units: 200", ""), env={})
    assert spec.guardrails[0].min_units == 100


def test_a_mapping_gives_the_same_spec(campaign: str) -> None:
    spec = parse(campaign, env={})
    again = from_mapping(spec.document, env={})
    assert (again.sha256, again.canonical, again.schedule) == (spec.sha256, spec.canonical, spec.schedule)


def test_a_mapping_takes_pythons_own_values() -> None:
    spec = from_mapping(
        {
            "version": 1,
            "name": "sdk",
            "policy": {"use": "t-linear", "inputs": np.int64(3), "outputs": 1},
            "optimizer": {"use": "t-es", "sigma": np.float32(0.5)},
            "objective": {"minimize": "loss"},
            "budget": {"trials": 3},
            "ledger": Path("x.db"),
        },
        base="/data",
    )
    assert spec.document["policy"] == {"use": "t-linear", "inputs": 3, "outputs": 1}
    assert spec.ledger == Path("/data/x.db")


# -- what is refused -------------------------------------------------------------------------------------------------


def test_all_problems_of_core_and_plugins_in_one_pass(campaign: str) -> None:
    text = edited(campaign, "name: email-offer", "name: Email Offer")
    text = edited(text, "sigma: 0.3", "sgima: 0.3")
    text = edited(text, "http://127.0.0.1:8801/blackopt", "ftp://x")
    text = edited(text, "lag: 1h}", "lag: 1}")
    text = edited(text, "share: 60%", "share: 0.6")
    text = edited(text, "window: 1d,", "windw: 1d,")
    assert lines_of(text) == [
        "2:7: name: is not such a name (lower-case letters, digits and dashes, at most 63, such as email-offer)",
        "4:40: optimizer.sgima: unknown key (did you mean `sigma`?)",
        "5:25: push.url: 'ftp://x' is no address; its host would be X ()",
        "10:73: measure.metrics.unsubscribe_14d.lag: 1 has no unit (write 1s, 1m, 1h or 1d)",
        "13:34: traffic.share: 0.6 has no unit (write 60%)",
        "15:1: schedule.window: is required ()",
        "15:12: schedule.windw: unknown key (did you mean `window`?)",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version: 1", "version: 2", "1:10: version: is not a version of this format (write 1)"),
        ("version: 1", "version: true", "1:10: version: must be a valid integer ()"),
        ("version: 1\n", "", "1:1: version: is required ()"),
        ("trials: 320", "trials: 0", "14:18: budget.trials: must be greater than or equal to 1 ()"),
        ("trials: 320", "trials:", "14:17: budget.trials: is empty (give it a value, or leave the key out)"),
        ("trials: 320", 'trials: "320"',
         "14:18: budget.trials: must be a valid integer (a number, without quotes or separators)"),
        ("inputs: 18", "inputs: yes",
         "3:33: policy.inputs: must be a valid integer (a number, without quotes or separators)"),
        ("inputs: 18", "inputs: 18, bias: yes", "3:43: policy.bias: must be a valid boolean (write true)"),
        ("sigma: 0.3", "step: 3", "4:46: optimizer.step: must be 'sgd' or 'adam' ()"),
        ("kind: proportion, query: queries", "kind: proportio, query: queries",
         ("9:23: measure.metrics.visit_14d.kind: must be 'proportion', 'retention', 'mean', 'revenue', 'ratio', "
         "'quantile' or 'value' ()")),
        ("kind: proportion, query: queries/v", "kind: retention, query: queries/v",
         "9:16: measure.metrics.visit_14d: a retention needs `day` (such as day: 7)"),
        ("kind: proportion, query: queries/v", "kind: retention, day: 14, query: queries/v",
         "9:16: measure.metrics.visit_14d: its window ends before day 14 does (at least window: 15d)"),
        ("kind: proportion, query: queries/v", "kind: revenue, query: queries/v",
         "9:16: measure.metrics.visit_14d: a revenue needs `cap` (such as cap: 250)"),
        ("kind: proportion, query: queries/v", "kind: mean, cap: 3, query: queries/v",
         ("9:16: measure.metrics.visit_14d: `cap` belongs to a revenue (remove it, or write kind: revenue)")),
        ("kind: proportion, query: queries/v", "kind: quantile, query: queries/v",
         "9:16: measure.metrics.visit_14d: a quantile needs `quantile` (such as quantile: 0.9)"),
        ("kind: proportion, query: queries/v", "kind: quantile, quantile: 1.0, query: queries/v",
         "9:43: measure.metrics.visit_14d.quantile: must be less than 1 ()"),
        ("kind: proportion, query: queries/v", "kind: proportion, cuped: true, query: queries/v",
         ("9:16: measure.metrics.visit_14d: a proportion is not adjusted (`cuped` belongs to mean, revenue, "
         "ratio)")),
        ("kind: proportion, query: queries/v", "kind: value, min_events: 3, query: queries/v",
         "9:16: measure.metrics.visit_14d: a value counts no events (remove `min_events`)"),
        ("query: queries/visits.sql, ", "", "9:5: measure.metrics.visit_14d.query: is required ()"),
        ("min_units: 100", "min_unit: 100",
         "9:84: measure.metrics.visit_14d.min_unit: unknown key (did you mean `min_units`?)"),
        ("use: t-db", "use: t-web",
         ("7:8: measure.use: the connector `t-web` is not a Source: it has no read(), MetricOptions "
         "(use another connector that is a Source")),
        ("use: t-linear", "use: t-liner", "did you mean `t-linear`?"),
        ("use: t-linear, ", "", "3:1: policy.use: is required (installed policies: "),
        ("use: t-db", "use: [t-db]", "7:8: measure.use: must be the name of a plug-in (installed connectors: "),
        ("use: t-db", "use: t-heavy", "pip install 'throwaway[deep]'"),
        ("maximize: visit_14d", "maximize: visit_14",
         "11:23: objective.maximize: `visit_14` is not declared under `measure.metrics` (did you mean `visit_14d`?)"),
        ("maximize: visit_14d, ", "",
         "11:12: objective: needs exactly one of `maximize` and `minimize` (such as maximize: visit_14d)"),
        ("relative_to: control", "effect: absolute",
         "11:34: objective.effect: says nothing without `relative_to` (add relative_to: control)"),
        ("metric: unsubscribe_14d", "metric: unsubscribes",
         ("12:23: guardrails[0].metric: `unsubscribes` is not declared under `measure.metrics` "
         "(did you mean `unsubscribe_14d`?)")),
        ('"1.05 * control"', '"1.05 * kontrol"', "12:49: guardrails[0].at_most: must be a number, or a multiple"),
        ("min_units: 200", "at_least: 0", "12:14: guardrails[0]: needs exactly one of `at_most` and `at_least`"),
        ("min_units: 200}", "min_units: 200}, {metric: unsubscribe_14d, at_most: 0.1}",
         "12:84: guardrails[1]: is a second bound on the same side of `unsubscribe_14d` (keep one)"),
        ("share: 60%", "share: 0%", "13:34: traffic.share: must be more than 0% ()"),
        ("control: 20%}", "control: 100%}", "13:48: traffic.control: leaves no traffic for candidates (such as 20%)"),
        ("control: 20%}", "control: 0%}",
         "13:48: traffic.control: must be more than 0%: the objective is relative to the control (such as"),
        ("share: 60%", "share: 0.0019%", "13:34: traffic.share: 0.0019% is too little for 16 arms"),
        ("max_in_flight: 16", "max_in_flight: 15",
         ("14:38: budget.max_in_flight: is less than the 16 arms of a window (the optimizer's population) "
         "(at least 16, or arms: 15 under `traffic`)")),
        ("poll: 15m", "poll: 15m, lease: 10m",
         ("15:42: schedule.lease: is shorter than `poll` (15m): every candidate would lapse between two polls "
         "(at least 15m, better 45m)")),
        ("poll: 15m", "poll: 2d", "15:30: schedule.poll: is longer than `window` (1d)"),
        ("deadline: 30d", "deadline: 14d",
         ("15:45: schedule.deadline: is too early: `visit_14d` matures 14d1h after the window's end "
         "(at least 14d1h15m: one poll more)")),
        ("schedule: {window: 1d, poll: 15m, deadline: 30d}\n", "",
         "1:1: schedule: is required (a campaign with `push` needs all of push, measure, traffic, schedule)"),
        ("push: {", "evaluate: {use: t-call, call: a}\npush: {",
         "6:1: push: does not go with `evaluate` (a campaign has either"),
        ("traffic: {unit: customer, share: 60%, control: 20%}", "traffic: 60%",
         "13:10: traffic: must be a mapping (keys are unit, share, control, arms)"),
        ("policy: {use: t-linear, inputs: 18, outputs: 3}", "policy: t-linear",
         "3:9: policy: must be a mapping that names a plug-in (policy: {use: t-linear})"),
        ("unit: customer", "unit: a customer", "13:17: traffic.unit: is not such a name"),
        ("    visit_14d: {", "    14d visits: {", "9:5: measure.metrics.14d visits: is not a name for a metric"),
    ],
)  # fmt: skip
def test_one_edit_one_problem_at_its_place(campaign: str, old: str, new: str, expected: str) -> None:
    found = lines_of(edited(campaign, old, new))
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("poll: 15m", "poll: 15m, lease: 15m"),
        ("poll: 15m", "poll: 1d"),
        ("deadline: 30d", "deadline: 14d1h15m"),
        ("max_in_flight: 16", "max_in_flight: 16, confirm: 0"),
        ("share: 60%", "share: 0.0020%"),
    ],
)
def test_what_is_just_enough_is_accepted(campaign: str, old: str, new: str) -> None:
    assert parse(edited(campaign, old, new), env={}).mode is Form.PRODUCTION


def test_a_rule_of_the_plugin_is_not_blamed_on_a_reference_that_leads_nowhere(campaign: str) -> None:
    text = edited(campaign, 'url: "http://127', 'mode: fast, secret: "${GONE}", url: "http://127')
    assert [line.split(" (")[0] for line in lines_of(text)] == [
        "5:40: push.secret: the environment has no GONE"
    ]


@pytest.mark.parametrize("section", ["policy", "optimizer", "objective", "budget"])
def test_required_sections_of_every_form(section: str) -> None:
    text = "".join(line for line in MANUAL.splitlines(keepends=True) if not line.startswith(section))
    assert lines_of(text) == [f"1:1: {section}: is required ()"]


def test_the_forms_exclude_each_other() -> None:
    assert lines_of(MANUAL + "guardrails: []\n")[0].startswith(
        "1:1: push: is required (a campaign with `guardrails`"
    )
    text = edited(MANUAL, "minimize: cost", "minimize: cost, relative_to: control")
    assert lines_of(text) == ["5:29: objective.relative_to: needs traffic with a control (remove the key)"]


def test_what_could_not_be_read_is_reported_once(campaign: str) -> None:
    text = edited(campaign, "max_in_flight: 16", "max_in_flight: .nan")
    text = edited(text, "relative_to: control", "relative_to: *c")
    assert [line.split(" ")[1] for line in lines_of(text)] == [
        "objective.relative_to:",
        "budget.max_in_flight:",
    ]


def test_a_problem_shows_its_line_with_a_caret(campaign: str) -> None:
    with pytest.raises(DiagnosticsError) as caught:
        parse(edited(campaign, "sigma: 0.3", "sgima: 0.3"), file="email.yaml", env={})
    assert str(caught.value) == (
        "email.yaml:4:40: optimizer.sgima: unknown key (did you mean `sigma`?)\n"
        "    | optimizer: {use: t-es, population: 16, sgima: 0.3, seed: 7}\n"
        "    |                                        ^\n"
        "email.yaml cannot be used: 1 problem; nothing was started\n"
        "  next:  mend the campaign and check it again"
    )
    assert caught.value.exit_code == 2


def test_a_mapping_has_key_paths_instead_of_lines() -> None:
    with pytest.raises(DiagnosticsError) as caught:
        from_mapping(
            {"version": 1, "name": "x", "optimizer": {"use": "t-es", "sigma": float("nan")}, "policy": {1: 2}}
        )
    assert [str(problem) for problem in caught.value.problems] == [
        "<mapping>: optimizer.sigma: nan is not a number that can be used",
        "<mapping>: policy: has a key that is no text: 1",
        "<mapping>: objective: is required",
        "<mapping>: budget: is required",
        *[str(p) for p in caught.value.problems if "policy.use" in str(p)],
    ]


def test_a_mapping_that_holds_itself_is_refused() -> None:
    loop: dict[str, object] = {}
    loop["policy"] = loop
    with pytest.raises(DiagnosticsError, match="nested more than 32 levels deep"):
        from_mapping(loop)
    with pytest.raises(DiagnosticsError, match="cannot be a set"):
        from_mapping({"name": {1, 2}})


def test_many_problems_are_counted_and_not_all_shown() -> None:
    with pytest.raises(DiagnosticsError, match="of which the first 50 are shown") as caught:
        parse("".join(f"key{i}: 1\n" for i in range(200)), env={})
    assert len(caught.value.problems) == 50


@pytest.mark.parametrize(
    ("path", "message"),
    [("missing.yaml", "does not exist"), (".", "is not a file"), ("a\0b", "does not exist")],
)
def test_files_that_cannot_be_read(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(DiagnosticsError, match=message):
        load(tmp_path / path)


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(DiagnosticsError, match="is not a file"):
        load(tmp_path / "c.yaml")


def test_a_file_with_wrong_bytes(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes("version: 1\nname: é\n".encode("latin-1"))
    with pytest.raises(DiagnosticsError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}:2:7: is not UTF-8 text")


def test_nothing_in_a_file_can_drive_the_terminal() -> None:
    with pytest.raises(DiagnosticsError) as caught:
        parse('"k\\e[31mey": 1\n', env={})
    assert "\x1b" not in str(caught.value)


def test_the_first_party_plugins_go_through_the_same_door(tmp_path: Path) -> None:
    spec: CampaignSpec = parse(
        """
version: 1
name: email-offer
policy:    {use: linear, inputs: 18, outputs: 3}
optimizer: {use: openai-es, population: 16, sigma: 0.3, seed: 7}
push:      {use: http, url: "http://127.0.0.1:8801/blackopt", secret: "${MAILER_SECRET}"}
measure:
  use: sql
  url: sqlite:///events.db
  metrics:
    visit_14d: {kind: proportion, query: queries/visits.sql, window: 14d, lag: 1h}
objective: {maximize: visit_14d, relative_to: control}
traffic:   {unit: customer, share: 60%, control: 20%}
budget:    {trials: 320, max_in_flight: 16}
schedule:  {window: 1d, poll: 15m, deadline: 30d}
""",
        base=tmp_path,
        env={"MAILER_SECRET": "whsec_" + "x" * 32},
    )
    assert spec.mode is Form.PRODUCTION
    assert "whsec" not in repr(spec) + spec.canonical
