"""What is recorded of a campaign, and what counts as an edit of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackopt.campaign import changes, parse
from blackopt.campaign.document import canonical, frozen, plain_numbers, sha256

pytestmark = pytest.mark.usefixtures("throwaway")


def edited(campaign: str, old: str, new: str) -> str:
    assert campaign.count(old) == 1
    return campaign.replace(old, new)


def test_the_document_is_what_was_written_in_canonical_units(campaign: str) -> None:
    spec = parse(edited(campaign, "window: 1d,", "window: 24h,"), env={})
    assert spec.document["schedule"] == {"window": "1d"}, "defaults are left out, given or not"
    assert spec.document["traffic"] == {"unit": "customer", "share": "60%", "control": "20%"}
    assert spec.document["measure"]["metrics"]["visit_14d"] == {
        "kind": "proportion", "query": "queries/visits.sql", "window": "14d", "lag": "1h", "min_units": 100
    }  # fmt: skip
    assert spec.document["guardrails"] == [
        {"metric": "unsubscribe_14d", "at_most": "1.05 * control", "min_units": 200}
    ]
    assert json.loads(spec.canonical) == spec.document
    assert "arms" not in spec.canonical, "what follows from other keys is not recorded"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("window: 1d,", "window: 24h,"),
        ("sigma: 0.3", "sigma: 0.30"),
        ("deadline: 30d", "deadline: 720h"),
        (", deadline: 30d", ""),
        ("{use: t-linear, inputs: 18, outputs: 3}", "{outputs: 3, inputs: 18, use: t-linear}"),
        ('"1.05 * control"', "1.050*control"),
        ("trials: 320", "trials: 640, confirm: 3, breaches: 2"),
        ("max_in_flight: 16", "max_in_flight: 32"),
        ("poll: 15m", "poll: 5m, lease: 1h"),
        ("version: 1", "version: 1\nledger: elsewhere.db\nclock: {use: t-clock}"),
        ("version: 1", "version: 1  # a comment"),
    ],
)
def test_what_is_no_edit_of_a_started_campaign(campaign: str, old: str, new: str) -> None:
    before, after = parse(campaign, env={}), parse(edited(campaign, old, new), env={})
    assert before.sha256 == after.sha256
    assert changes(before.document, after.document) == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("sigma: 0.3", "sigma: 0.5", "`optimizer.sigma` 0.3 -> 0.5"),
        ("sigma: 0.3, ", "", "`optimizer.sigma` removed (was 0.3)"),
        ("seed: 7", "seed: 7, step: adam", "`optimizer.step` added: adam"),
        ("use: t-es", "use: random", None),
        ("maximize: visit_14d", "minimize: visit_14d", "`objective.maximize` removed (was visit_14d)"),
        ("window: 1d,", "window: 2d,", "`schedule.window` 1d -> 2d"),
        ("share: 60%", "share: 61%", "`traffic.share` 60% -> 61%"),
        ("queries/visits.sql", "queries/other.sql",
         "`measure.metrics.visit_14d.query` queries/visits.sql -> queries/other.sql"),
        ('"1.05 * control"', "0.1", "`guardrails[0].at_most` 1.05 * control -> 0.1"),
        ("inputs: 18", "inputs: 18, bias: false", "`policy.bias` added: false"),
        ("127.0.0.1:8801", "127.0.0.1:8802",
         "`push.url` http://127.0.0.1:8801/blackopt -> http://127.0.0.1:8802/blackopt"),
    ],
)  # fmt: skip
def test_f59_an_edit_after_the_start_is_noticed_and_named(
    campaign: str, old: str, new: str, line: str | None
) -> None:
    text = edited(campaign, old, new)
    if line is None:
        text = edited(text, "population: 16, sigma: 0.3, ", "")
        text = edited(text, "control: 20%}", "control: 20%, arms: 16}")
        line = "`optimizer.use` t-es -> random"
    before, after = parse(campaign, env={}), parse(text, env={})
    assert before.sha256 != after.sha256
    assert line in changes(before.document, after.document)


def test_f61_a_flipped_sign_is_an_edit(campaign: str) -> None:
    flipped = parse(edited(campaign, "maximize: visit_14d", "minimize: visit_14d"), env={})
    assert flipped.sha256 != parse(campaign, env={}).sha256


SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1.5, "a", "1"])
TREES = st.dictionaries(
    st.sampled_from(["budget", "schedule", "optimizer", "x"]),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        max_leaves=5,
    ),
)


@given(TREES, TREES)
def test_changes_are_named_exactly_if_the_hash_differs(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert bool(changes(old, new)) == (sha256(old) != sha256(new))


def test_only_what_is_operational_is_left_out_of_the_hash() -> None:
    document = {
        "name": "x",
        "ledger": "x.db",
        "clock": {"use": "t"},
        "budget": {"trials": 1},
        "schedule": {"window": "1d", "poll": "1m", "lease": "3m", "deadline": "2d"},
    }
    assert frozen(document) == {"name": "x", "schedule": {"window": "1d", "deadline": "2d"}}


def test_the_canonical_text_is_the_same_on_every_machine() -> None:
    document = plain_numbers({"b": [1.0, 0.1, 1e300], "a": "é"})
    assert canonical(document) == '{"a":"é","b":[1,0.1,1e+300]}'
    assert sha256(document) == "70ba4ad3b7ff918d74b713ed24e1083db3aa883a0b1e39879dad6bc3e140bbc6"
