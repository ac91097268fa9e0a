"""References to secrets: where they work, and everywhere they must not show."""

# ruff: noqa: E501  tables of cases, one a line

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from blackopt.campaign import CampaignSpec, changes, parse
from blackopt.diagnostics import Problem
from blackopt.errors import DiagnosticsError

HIDDEN = 'canary-7f3a9c\n"quoted"-8b1d'

pytestmark = pytest.mark.usefixtures("throwaway")


def with_push(campaign: str, push: str) -> str:
    lines = [f"push: {push}" if line.startswith("push:") else line for line in campaign.splitlines()]
    return "\n".join(lines) + "\n"


def push_of(campaign: str, push: str, *, base: Path = Path(), env: dict[str, str] | None = None) -> Any:
    spec = parse(with_push(campaign, push), base=base, env=env or {})
    assert spec.push is not None
    return spec.push.options


def problems_of(
    campaign: str, push: str, *, base: Path = Path(), env: dict[str, str] | None = None
) -> list[Problem]:
    with pytest.raises(DiagnosticsError) as caught:
        push_of(campaign, push, base=base, env=env)
    return [problem for problem in caught.value.problems if isinstance(problem, Problem)]


def test_references_reach_the_plugin(campaign: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\r\n")
    push = '{use: t-web, url: "http://${HOST}:80/$$x/$1", secret: "${file:token}", headers: {A: "Bearer ${HOST}"}}'
    options = push_of(campaign, push, base=tmp_path, env={"HOST": "example.net"})
    assert options.url == "http://example.net:80/$x/$1"
    assert options.secret.get_secret_value() == "from-a-file"
    assert options.headers["A"].get_secret_value() == "Bearer example.net"


def test_a_value_is_not_read_for_references_again(campaign: str) -> None:
    options = push_of(campaign, '{use: t-web, url: "http://${A}"}', env={"A": "${B}$$", "B": "b"})
    assert options.url == "http://${B}$$"


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("${GONE}", "the environment has no GONE", "export GONE=..."),
        ("${HOTS}", "the environment has no HOTS", "did you mean `HOST`?"),
        ("${EMPTY}", "EMPTY is empty in the environment", "export EMPTY=..."),
        ("${file:gone}", "there is no file gone", "it is looked for in "),
        ("${file:folder}", "there is no file folder", "it is looked for in "),
        ("${file:empty}", "empty does not hold a secret", "UTF-8 text of 1 to 65536 bytes"),
        ("${file:binary}", "binary does not hold a secret", "UTF-8 text of 1 to 65536 bytes"),
        ("${file:big}", "big does not hold a secret", "UTF-8 text of 1 to 65536 bytes"),
        ("${file:}", "${file:} names no file", "write ${file:path}, relative to the campaign"),
        ("${a b}", "${a b} is not a reference", "write ${NAME} or ${file:path}, or $$ for a dollar sign"),
        ("${}", "${} is not a reference", "write ${NAME} or ${file:path}, or $$ for a dollar sign"),
        ("${OPEN", "a reference is not closed", "write ${NAME}, or $$ for a dollar sign"),
    ],
)
def test_a_reference_that_leads_nowhere_is_located(
    campaign: str, tmp_path: Path, reference: str, message: str, hint: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "big").write_text("x" * 70_000)
    push = f'{{use: t-web, url: "http://x", secret: "{reference}"}}'
    [problem] = problems_of(campaign, push, base=tmp_path, env={"HOST": "h", "EMPTY": ""})
    assert (problem.line, problem.column, problem.path, problem.message) == (5, 45, "push.secret", message)
    assert problem.hint.startswith(hint)


def test_the_cores_own_keys_take_no_reference(campaign: str) -> None:
    text = campaign.replace("name: email-offer", 'name: "${NAME}"').replace("poll: 15m", 'poll: "${POLL}"')
    text = text.replace("maximize: visit_14d", 'maximize: "${M}"').replace("use: t-web", 'use: "${U}"')
    with pytest.raises(DiagnosticsError) as caught:
        parse(text, env={"NAME": "x", "POLL": "1m", "M": "visit_14d", "U": "t-web"})
    problems = [p for p in caught.value.problems if isinstance(p, Problem)]
    assert [p.path for p in problems] == ["name", "push.use", "objective.maximize", "schedule.poll"]
    assert {p.message for p in problems} == {
        "takes no reference, because it is copied to the ledger and to reports"
    }


def canary_campaigns(campaign: str) -> dict[str, str]:
    """Campaigns that are wrong in ways whose messages might quote an interpolated value."""
    pushes = {
        "quoted by a validator": '{use: t-web, url: "${TOKEN}"}',
        "quoted in part and changed": '{use: t-web, url: "ftp://${TOKEN}/x"}',
        "raised by a plug-in's own fault": '{use: t-web, url: "${EXPLODE}", secret: "${TOKEN}"}',
        "quoted by a validator of the model": '{use: t-web, url: "http://x", mode: fast, secret: "${TOKEN}"}',
        "not one of the literals": '{use: t-web, url: "http://x", mode: "${TOKEN}"}',
        "not in the enum": '{use: t-web, url: "http://x", colour: "${TOKEN}"}',
        "of another type": '{use: t-web, url: "http://x", sizes: "${TOKEN}"}',
        "an item of another type": '{use: t-web, url: "http://x", sizes: ["${TOKEN}"]}',
        "a mapping expected": '{use: t-web, url: "http://x", headers: "${TOKEN}"}',
        "beside an unknown key": '{use: t-web, url: "http://x", retry: {token: "${TOKEN}", tmes: 1}}',
        "unknown key": '{use: t-web, url: "http://x", nonsense: "${TOKEN}"}',
    }
    return {name: with_push(campaign, push) for name, push in pushes.items()}


@pytest.mark.parametrize("name", list(canary_campaigns("push:\n")))
def test_f72_no_message_quotes_a_secret(campaign: str, name: str) -> None:
    text = canary_campaigns(campaign)[name]
    with pytest.raises(DiagnosticsError) as caught:
        parse(text, env={"TOKEN": HIDDEN, "EXPLODE": "explode"})
    error = caught.value
    shown = "".join([str(error), repr(error), repr(error.problems), *traceback.format_exception(error)])
    chained = repr([error.__cause__, error.__context__])
    for part in ("canary", "7f3a9c", 'quoted\\"', "8b1d"):
        assert part not in (shown + chained).lower()


def test_f72_no_record_of_a_campaign_holds_a_secret(campaign: str) -> None:
    push = '{use: t-web, url: "http://u:${TOKEN}@x", secret: "${TOKEN}", headers: {A: "${TOKEN}"}}'
    spec = parse(with_push(campaign, push), env={"TOKEN": HIDDEN})
    other = parse(with_push(campaign, push), env={"TOKEN": "another"})
    assert spec.push is not None
    assert HIDDEN in spec.push.options.url  # type: ignore[attr-defined]
    for shown in (repr(spec), str(spec), repr(spec.push), spec.canonical, json.dumps(spec.document)):
        assert "canary-" not in shown
    assert spec.document["push"]["secret"] == "${TOKEN}"
    assert spec.sha256 == other.sha256, "a rotated secret is no edit"
    assert changes(spec.document, other.document) == []


@pytest.mark.parametrize(
    ("push", "path", "message"),
    [
        ('{use: t-web, url: "http://x", secret: canary-7f3a9c}', "push.secret", "is a secret in plain text"),
        (
            '{use: t-web, url: "http://x", headers: {A: canary-7f3a9c}}',
            "push.headers.A",
            "is a secret in plain text",
        ),
        (
            '{use: t-web, url: "http://x", retry: {token: canary-7f3a9c}}',
            "push.retry.token",
            "is a secret in plain text",
        ),
        ('{use: t-web, url: "http://me:canary-7f3a9c@x"}', "push.url", "holds a password in plain text"),
        (
            '{use: t-web, nope: 1, url: "http://x", secret: "canary-7f3a9c"}',
            "push.secret",
            "is a secret in plain text",
        ),
    ],
)
def test_f72_a_secret_that_is_written_out_is_refused_and_not_shown(
    campaign: str, push: str, path: str, message: str
) -> None:
    with pytest.raises(DiagnosticsError) as caught:
        parse(with_push(campaign, push), env={})
    problems = {p.path: p.message for p in caught.value.problems if isinstance(p, Problem)}
    assert problems[path] == message
    assert "canary" not in str(caught.value)


def test_the_place_of_a_store_takes_neither_passwords_nor_references(campaign: str) -> None:
    for store, message in (
        ("sftp://me:canary-7f3a9c@x/centres", "holds a password in plain text"),
        (
            "sftp://me:${TOKEN}@x/centres",
            "takes no reference, because it is copied to the ledger and to reports",
        ),
    ):
        with pytest.raises(DiagnosticsError) as caught:
            parse(campaign + f'explore: {{unit: request, store: "{store}"}}\n', env={"TOKEN": "x"})
        problems = {p.path: p.message for p in caught.value.problems if isinstance(p, Problem)}
        assert problems["explore.store"] == message
        assert "canary" not in str(caught.value)


def test_f72_a_secret_over_several_lines_is_not_shown_either(campaign: str) -> None:
    push = '\n  use: t-web\n  url: "http://x"\n  secret: |\n    canary-one\n    canary-two\n  bad: 1'
    with pytest.raises(DiagnosticsError) as caught:
        parse(with_push(campaign, push), env={})
    assert len(caught.value.problems) == 2
    assert "canary" not in str(caught.value)
    assert "| " in str(caught.value), "the other problem still shows its line"


def test_the_environment_is_the_callers(campaign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLACKOPT_TEST_HOST", "from-the-process")
    text = with_push(campaign, '{use: t-web, url: "http://${BLACKOPT_TEST_HOST}"}')
    spec: CampaignSpec = parse(text)
    assert spec.push is not None
    assert spec.push.options.url == "http://from-the-process"  # type: ignore[attr-defined]
    with pytest.raises(DiagnosticsError):
        parse(text, env={})
