"""Strict YAML: what a file may hold, and where its problems are."""

# ruff: noqa: E501  tables of cases, one a line

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from blackopt.campaign import parse
from blackopt.campaign.findings import Findings, Place
from blackopt.campaign.text import MAX_BYTES, decode, read
from blackopt.errors import DiagnosticsError

BOMB = """\
a: &a [x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]
"""


def value_of(text: str) -> Any:
    findings = Findings("c.yaml")
    data = read(f"key: {text}\n", findings)
    assert not findings.problems, findings.problems
    assert data is not None
    return data["key"]


def problems_of(text: str) -> list[tuple[int, int, str]]:
    findings = Findings("c.yaml")
    read(text, findings)
    return [(p.line, p.column, p.message) for p in findings.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("-0.0", 0.0),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("NO", "NO"),
        ("True", "True"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'null'", "null"),
        ('"1e3"', "1e3"),
        ("1:30", "1:30"),
        ("190:20:30", "190:20:30"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("2026-01-01", "2026-01-01"),
        ("1.2.3", "1.2.3"),
        ("60%", "60%"),
        ("nan", "nan"),
        ("18446744073709551616", 2**64),
        ("|\n  12\n", "12\n"),
        ("[1, {a: no}]", [1, {"a": "no"}]),
    ],
)
def test_f60_scalars_are_what_they_look_like(text: str, value: object) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


def test_f60_the_traps_are_real_in_an_ordinary_loader() -> None:
    """The reason for all this: what PyYAML itself makes of the same texts."""
    assert yaml.safe_load("a: 1e3\nb: no\nc: 010\nd: 1:30\na: 2") == {"a": 2, "b": False, "c": 8, "d": 90}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", (3, 1, "is given twice; the first is on line 1")),
        ("a: {b: 1, b: 1}\n", (1, 11, "is given twice; the first is on line 1")),
        ("a: .nan\n", (1, 4, ".nan is not a number")),
        ("a: [1, -.inf]\n", (1, 8, "-.inf is not a number")),
        ("a: 1e400\n", (1, 4, "1e400 is too large for a number")),
        ("a: 012\n", (1, 4, "012 is octal to some readers and decimal to others")),
        (f"a: {'9' * 5000}\n", (1, 4, "is an integer of more than 64 bits")),
        ("a: !!python/name:os.system x\n", (1, 4, "tags (tag:yaml.org,2002:python/name:os.system) are not allowed")),
        ("a: !x 1\n", (1, 4, "tags (!x) are not allowed")),
        ("a: &x 1\n", (1, 4, "anchors (&x) are not allowed")),
        ("<<: {a: 1}\n", (1, 1, "merge keys (<<) are not allowed")),
        ("? [a]\n: 1\n", (1, 3, "a key must be plain text")),
        ("{a: 1}: 2\n", (1, 1, "a key must be plain text")),
        ("a: 1\n---\nb: 2\n", (2, 1, "a second document begins here")),
        ("%YAML 1.2\n---\na: 1\n", (1, 1, "directives (%YAML, %TAG) are not allowed")),
        ("", (1, 1, "the file is empty")),
        ("# only a comment\n", (1, 1, "the file is empty")),
        ("- a\n- b\n", (1, 1, "must be a mapping")),
        ("just text\n", (1, 1, "must be a mapping")),
        ('a: "\\0"\n', (1, 4, "holds a character that is not text (NUL or half a surrogate pair)")),
        ('a: "\\uD800"\n', (1, 4, "holds a character that is not text (NUL or half a surrogate pair)")),
        ("a: 1\nb: \x07\n", (2, 4, "holds a character that YAML does not allow")),
    ],
)  # fmt: skip
def test_f60_what_a_campaign_may_not_hold(text: str, expected: tuple[int, int, str]) -> None:
    assert problems_of(text) == [expected]


def test_a_tab_is_told_to_be_a_space() -> None:
    findings = Findings("c.yaml")
    assert read("a:\n\tb: 1\n", findings) is None
    [problem] = findings.problems
    assert (problem.line, problem.hint) == (2, "indent with spaces, not tabs")


def test_an_unquoted_reference_is_told_to_be_quoted() -> None:
    findings = Findings("c.yaml")
    assert read("push: {use: http, secret: ${NAME}}\n", findings) is None
    [problem] = findings.problems
    assert (problem.line, problem.hint) == (1, 'quote references: "${NAME}"')


def test_f60_all_structural_problems_come_at_once() -> None:
    assert [line for line, _, _ in problems_of("a: .nan\nb: &x 1\nc: 012\na: 2\n")] == [1, 2, 3, 4]


def test_f70_a_yaml_bomb_is_refused_at_its_aliases() -> None:
    problems = problems_of(BOMB)
    assert {message for _, _, message in problems} >= {
        "anchors (&a) are not allowed",
        "aliases (*a) are not allowed",
    }
    with pytest.raises(DiagnosticsError) as caught:
        parse(BOMB)
    assert 0 < len(caught.value.problems) <= 50
    assert len(str(caught.value)) < 20_000


def test_f70_depth_and_size_are_limited() -> None:
    assert problems_of("a: " + "[" * 33 + "]" * 33) == [(1, 35, "is nested more than 32 levels deep")]
    assert problems_of("a: " + "[" * 50_000)[0][2] == "is nested more than 32 levels deep"
    assert problems_of("a: " + "é" * (MAX_BYTES // 2))[0][2] == "is larger than 256 KiB"


def test_bytes_that_are_no_utf8_are_located() -> None:
    findings = Findings("c.yaml")
    assert decode(b"a: 1\nb: \xff\n", findings) is None
    assert [(p.line, p.column, p.message) for p in findings.problems] == [(2, 4, "is not UTF-8 text")]
    assert decode(b"\xef\xbb\xbfa: 1", Findings("")) == "a: 1"
    assert decode(b"x" * (MAX_BYTES + 1), Findings("")) is None


def test_places_of_keys_and_values() -> None:
    findings = Findings("c.yaml")
    read("a:\n  - {b: 1}\n  - c: 2\n", findings)
    assert findings.keys["a", 0, "b"] == Place(2, 6)
    assert findings.values["a", 0, "b"] == Place(2, 9)
    assert findings.values["a", 1, "c"] == Place(3, 8)


def test_places_survive_unusual_line_breaks() -> None:
    findings = Findings("c.yaml")
    read("a: 1\r\nb: 2\u2028c: .nan\r\n", findings)
    [problem] = findings.problems
    assert findings.lines[problem.line - 1][problem.column - 1 :].startswith(".nan")


JUNK = st.text(st.sampled_from("ab:-{}[]&*!|>%@`'\"#?,~ \n\t$\\01.eu\x07\ud800é"), max_size=60)
KEYS = st.sampled_from(
    [
        "version",
        "name",
        "policy",
        "use",
        "measure",
        "metrics",
        "m",
        "objective",
        "guardrails",
        "traffic",
        "budget",
        "schedule",
        "push",
        "evaluate",
        "window",
        "maximize",
    ]
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JUNK)
@example('a: "\\UFFFFFFFF"')
@example("%YAML 1." + "9" * 5000 + "\n---\na: 1")
@example("a: !<")
@example("? ")
@example("\ufeff")
def test_junk_ends_in_diagnostics_and_nothing_else(text: str) -> None:
    with pytest.raises(DiagnosticsError) as caught:
        parse(text, env={})
    assert caught.value.problems
    str(caught.value).encode("utf-8", "strict")


@given(st.dictionaries(KEYS, TREES, min_size=1))
def test_yaml_of_any_shape_ends_in_diagnostics_and_nothing_else(tree: dict[str, Any]) -> None:
    with pytest.raises(DiagnosticsError) as caught:
        parse(yaml.safe_dump(tree, allow_unicode=True), env={})
    assert caught.value.problems
