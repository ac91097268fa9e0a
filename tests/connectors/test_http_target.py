"""The HTTP target against the real module, and against every misbehaviour of a server."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from standardwebhooks.webhooks import Webhook

from blackopt.errors import (
    BlackoptError,
    ConfigurationError,
    FatalError,
    OutcomeUnknown,
    RetriableError,
    UsageError,
)
from blackopt.protocols import Target
from blackopt.testing.targets import CAMPAIGN, TargetConformance, a_push, a_withdrawal, an_adoption
from blackopt.types import Artifact, Outcome
from blackopt_connectors.http import HttpOptions, HttpTarget

APPLIED = {"outcome": "applied", "detail": ""}
CANARY = "canary-4f1d"


def a_target(module: Any, secret: str, base: Path) -> HttpTarget:
    return HttpTarget(HttpOptions(url=module.url, secret=SecretStr(secret)), base=base)


class TestConformance(TargetConformance):
    @pytest.fixture
    def target(self, module: Any, module_secret: str, tmp_path: Path) -> HttpTarget:
        return a_target(module, module_secret, tmp_path)

    @pytest.fixture
    def restart(self, module: Any, module_secret: str, tmp_path: Path) -> Callable[[], Target]:
        def again() -> HttpTarget:
            module.stop()
            module.start()
            return a_target(module, module_secret, tmp_path)

        return again

    @pytest.fixture
    def unacceptable(self, unacceptable_artifact: Artifact) -> Artifact:
        return unacceptable_artifact


class Bench:
    """A target at a scripted server; the waits between tries are recorded and not slept."""

    def __init__(self, server: Any, base: Path) -> None:
        self.server, self.base = server, base
        self.waits: list[float] = []

    def target(self, **options: Any) -> HttpTarget:
        fields = {"url": self.server.url, "timeout": "10s", **options}
        return HttpTarget(
            HttpOptions.model_validate(fields),
            base=self.base,
            sleep=self.waits.append,
            now=lambda: 1_750_000_000.0,
        )


@pytest.fixture
def bench(server: Any, tmp_path: Path) -> Bench:
    return Bench(server, tmp_path)


# -- the protocol --------------------


def test_the_body_of_a_push_is_wire_protocol_1(bench: Bench) -> None:
    bench.server.then(bench.server.answer(200, APPLIED))
    order = a_push(17, epoch=3, ttl_s=900, body=b'{"price":1}')
    assert bench.target().push(order).outcome is Outcome.APPLIED
    (request,) = bench.server.received
    assert (request.method, request.path) == ("POST", "/blackopt/push")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == order.key
    assert "webhook-signature" not in request.headers
    assert json.loads(request.body) == {
        "protocol": 1,
        "kind": "push",
        "campaign": "conformance",
        "trial": 17,
        "arm": "t17",
        "epoch": 3,
        "ttl_s": 900.0,
        "artifact": {
            "media_type": "application/json",
            "sha256": hashlib.sha256(b'{"price":1}').hexdigest(),
            "body": base64.b64encode(b'{"price":1}').decode(),
        },
        "placement": {"window": 1, "salt": "7.1", "slice": [270_000, 280_000], "control": [0, 100_000]},
    }


def test_the_body_of_a_withdrawal_is_wire_protocol_1(bench: Bench) -> None:
    bench.server.then(bench.server.answer(200, {"outcome": "repeated"}))
    assert bench.target().withdraw(a_withdrawal(17, epoch=3)).outcome is Outcome.REPEATED
    (request,) = bench.server.received
    assert request.path == "/blackopt/withdraw"
    assert json.loads(request.body) == {
        "protocol": 1,
        "kind": "withdraw",
        "campaign": "conformance",
        "trial": 17,
        "arm": "t17",
        "epoch": 3,
    }


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_" + base64.b64encode(b"a key of some length").decode(), b"a key of some length"),
        ("whsec_" + base64.b64encode(b"a key of a length").decode().rstrip("="), b"a key of a length"),
        ("just a pass phrase", b"just a pass phrase"),
    ],
)
def test_signatures_are_those_of_standard_webhooks(bench: Bench, secret: str, key: bytes) -> None:
    bench.server.then(
        bench.server.answer(200, APPLIED), bench.server.answer(200, {"protocol": 1, "live": []})
    )
    target = HttpTarget(HttpOptions(url=bench.server.url, secret=SecretStr(secret)), base=bench.base)
    order = a_push(1)
    target.push(order)
    target.observe()
    pushed, observed = bench.server.received
    assert pushed.headers["webhook-id"] == order.key
    Webhook(key).verify(pushed.body, pushed.headers)
    Webhook(key).verify(observed.body, observed.headers, json_parse=False)
    assert observed.method == "GET"
    assert observed.body == b""


def test_live_arms_are_read(bench: Bench) -> None:
    entry = {"campaign": "c", "trial": 4, "arm": "t4", "epoch": 2, "sha256": "ab", "expires_in_s": 12.5}
    bench.server.then(bench.server.answer(200, {"protocol": 1, "live": [entry]}))
    (live,) = bench.target().observe()
    assert (live.campaign, live.trial, live.arm, live.epoch, live.sha256) == ("c", 4, "t4", 2, "ab")
    assert live.expires_in_s == 12.5


def test_check_says_what_was_reached(bench: Bench) -> None:
    bench.server.then(bench.server.answer(200, {"protocol": 1, "live": [], "incumbents": []}))
    assert bench.target().check() == f"{bench.server.url}: protocol 1, 0 arms live"


def test_a_module_from_before_adoptions_is_told_apart(bench: Bench) -> None:
    old = {"outcome": "refused", "detail": "malformed: no 'adopt' here; there are push, withdraw and live"}
    listing = bench.server.answer(200, {"protocol": 1, "live": []})
    bench.server.then(listing, listing, bench.server.answer(404, old))
    assert "it takes no adoptions" in bench.target().check()
    assert bench.target().incumbent(CAMPAIGN) is None
    with pytest.raises(ConfigurationError, match="does not know this order"):
        bench.target().adopt(an_adoption(1))


def test_the_body_of_an_adoption_is_wire_protocol_1(bench: Bench) -> None:
    bench.server.then(bench.server.answer(200, APPLIED))
    order = an_adoption(2, epoch=3, body=b'{"price":1}')
    assert bench.target().adopt(order).outcome is Outcome.APPLIED
    (request,) = bench.server.received
    assert (request.method, request.path) == ("POST", "/blackopt/adopt")
    assert request.headers["idempotency-key"] == order.key
    assert json.loads(request.body) == {
        "protocol": 1,
        "kind": "adopt",
        "campaign": "conformance",
        "number": 2,
        "epoch": 3,
        "artifact": {
            "media_type": "application/json",
            "sha256": hashlib.sha256(b'{"price":1}').hexdigest(),
            "body": base64.b64encode(b'{"price":1}').decode(),
        },
    }


def test_an_adoption_whose_answer_was_lost_is_recognised(bench: Bench) -> None:
    bench.server.then(bench.server.drop(), bench.server.answer(200, {"outcome": "repeated"}))
    assert bench.target().adopt(an_adoption(1)).outcome is Outcome.REPEATED
    first, second = bench.server.received
    assert first.body == second.body
    bench.server.then(*[bench.server.drop()] * 3)
    with pytest.raises(OutcomeUnknown):
        bench.target().adopt(an_adoption(1))


@pytest.mark.parametrize("number", [0, -1])
def test_adoptions_are_numbered_from_one(bench: Bench, number: int) -> None:
    with pytest.raises(UsageError, match="number"):
        bench.target().adopt(an_adoption(number))
    assert bench.server.received == []


def test_only_an_incumbent_that_is_served_counts(bench: Bench) -> None:
    entry = {"campaign": CAMPAIGN, "number": 3, "sha256": "0" * 64, "served": True, "detail": ""}
    other = {**entry, "campaign": "another", "number": 8}
    for served, expected in ((True, (3, "0" * 64)), (False, None)):
        listing = {"protocol": 1, "live": [], "incumbents": [other, {**entry, "served": served}]}
        bench.server.then(bench.server.answer(200, listing))
        assert bench.target().incumbent(CAMPAIGN) == expected


@pytest.mark.parametrize(
    "incumbents",
    [
        {},
        [7],
        [{"campaign": "c", "number": 1, "sha256": "0"}],
        [{"campaign": "c", "number": "1", "sha256": "0", "served": True}],
        [{"campaign": "c", "number": True, "sha256": "0", "served": True}],
    ],
)
def test_unreadable_incumbents_are_an_error(bench: Bench, incumbents: Any) -> None:
    bench.server.then(*[bench.server.answer(200, {"protocol": 1, "live": [], "incumbents": incumbents})] * 3)
    with pytest.raises(RetriableError, match="unreadable"):
        bench.target().incumbent(CAMPAIGN)


def test_another_protocol_is_a_configuration_error(bench: Bench) -> None:
    bench.server.then(bench.server.answer(200, {"protocol": 2, "live": []}))
    with pytest.raises(ConfigurationError, match="another protocol"):
        bench.target().observe()


# -- refusals --------------------


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_refusal_is_a_receipt_and_is_not_repeated(bench: Bench, status: int) -> None:
    bench.server.then(bench.server.answer(status, {"outcome": "refused", "detail": "bounds: too\nhigh"}))
    receipt = bench.target().push(a_push(1))
    assert (receipt.outcome, receipt.detail) == (Outcome.REFUSED, "bounds: too high")
    assert len(bench.server.received) == 1


def test_too_large_is_a_refusal_whoever_says_it(bench: Bench) -> None:
    bench.server.then(bench.server.answer(413, b"<html>"))
    assert bench.target().push(a_push(1)).outcome is Outcome.REFUSED


@pytest.mark.parametrize("status", [401, 403, 404, 400, 405, 422])
def test_a_wrong_address_or_credential_stops_the_campaign(bench: Bench, status: int) -> None:
    bench.server.then(bench.server.answer(status, b"<h1>no</h1>"))
    with pytest.raises(ConfigurationError, match="address or credentials") as caught:
        bench.target().push(a_push(1))
    assert "blackopt check" in caught.value.next_step
    assert len(bench.server.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_f33_redirects_are_not_followed(bench: Bench, status: int) -> None:
    server = bench.server
    server.then(
        server.answer(status, b"", Location=f"{server.url}/elsewhere?token={CANARY}"),
        server.answer(200, APPLIED),
    )
    with pytest.raises(ConfigurationError, match="address") as caught:
        bench.target().push(a_push(1))
    assert len(server.received) == 1
    assert "/elsewhere" in caught.value.why
    assert CANARY not in str(caught.value)


def test_f34_gone_is_fatal(bench: Bench) -> None:
    bench.server.then(bench.server.answer(410, {"outcome": "refused"}))
    with pytest.raises(FatalError, match="gone for good"):
        bench.target().push(a_push(1))


# -- faults --------------------


def test_f02_an_unreachable_module_certainly_has_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    waits: list[float] = []
    options = HttpOptions(url=f"http://127.0.0.1:{port}/", tries=3)
    with pytest.raises(RetriableError, match="cannot be reached") as caught:
        HttpTarget(options, base=tmp_path, sleep=waits.append).push(a_push(1))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert len(waits) == 2


def test_f03_request_sent_reply_lost(module: Any, module_secret: str, bench: Bench) -> None:
    """The real module applies, the reply is lost; the same key is sent again, and it is applied once."""

    def applied_then_dropped(connection: socket.socket, request: Any) -> None:
        module.arms.handle(request.method, request.path, request.headers, request.body)

    def forwarded(connection: socket.socket, request: Any) -> None:
        status, body = module.arms.handle(request.method, request.path, request.headers, request.body)
        bench.server.answer(status, body)(connection, request)

    bench.server.then(applied_then_dropped, forwarded)
    target = HttpTarget(
        HttpOptions(url=bench.server.url, secret=SecretStr(module_secret)),
        base=bench.base,
        sleep=bench.waits.append,
    )
    assert target.push(a_push(1)).outcome is Outcome.REPEATED
    first, second = bench.server.received
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert (
        len(
            HttpTarget(
                HttpOptions(url=module.url, secret=SecretStr(module_secret)), base=bench.base
            ).observe()
        )
        == 1
    )


@pytest.mark.parametrize("kind", ["silence", "drop"])
def test_f30_a_lost_answer_is_unknown(bench: Bench, kind: str) -> None:
    replies = [getattr(bench.server, kind)() for _ in range(2)]
    bench.server.then(*replies)
    with pytest.raises(OutcomeUnknown, match="lost"):
        bench.target(timeout="100ms", tries=2).push(a_push(1))
    assert len(bench.server.received) == 2


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_f31_server_errors_are_tried_again_within_the_burst(bench: Bench, status: int) -> None:
    bench.server.then(*[bench.server.answer(status, b"oops")] * 2, bench.server.answer(200, APPLIED))
    assert bench.target().push(a_push(1)).outcome is Outcome.APPLIED
    assert len(bench.waits) == 2
    assert 0 <= bench.waits[0] <= 0.2
    assert 0 <= bench.waits[1] <= 0.4
    assert len({request.headers["idempotency-key"] for request in bench.server.received}) == 1


def test_f31_after_the_burst_the_outcome_is_unknown(bench: Bench) -> None:
    bench.server.then(*[bench.server.answer(500)] * 3)
    with pytest.raises(OutcomeUnknown):
        bench.target().push(a_push(1))
    assert len(bench.server.received) == 3


def test_what_was_unknown_stays_unknown_whatever_comes_after(bench: Bench) -> None:
    for after in (429, 401, 410, 302):
        bench.server.then(bench.server.drop(), bench.server.answer(after, b"", Retry_After="60"))
        with pytest.raises(OutcomeUnknown) as caught:
            bench.target(tries=2).push(a_push(1))
        assert str(after) in caught.value.why


@pytest.mark.parametrize("status", [429, 503])
def test_f32_a_short_retry_after_is_a_floor_of_the_wait(bench: Bench, status: int) -> None:
    bench.server.then(bench.server.answer(status, b"", Retry_After="3"), bench.server.answer(200, APPLIED))
    assert bench.target().push(a_push(1)).outcome is Outcome.APPLIED
    assert bench.waits == [3.0]


@pytest.mark.parametrize("status", [429, 503])
def test_f32_a_long_retry_after_is_left_to_the_caller(bench: Bench, status: int) -> None:
    bench.server.then(bench.server.answer(status, b"", Retry_After="120"))
    with pytest.raises(RetriableError, match="wait") as caught:
        bench.target().push(a_push(1))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert caught.value.retry_after_s == 120.0
    assert bench.waits == []


def test_f32_a_date_is_counted_from_the_other_sides_clock(bench: Bench) -> None:
    date, later = "Mon, 01 Jan 2001 00:00:00 GMT", "Mon, 01 Jan 2001 00:10:00 GMT"
    bench.server.then(bench.server.answer(429, b"", Date=date, Retry_After=later))
    with pytest.raises(RetriableError) as caught:
        bench.target().push(a_push(1))
    assert caught.value.retry_after_s == 600.0


def test_the_modules_own_word_that_it_applies_nothing_is_no_unknown(bench: Bench) -> None:
    body = {"outcome": "unavailable", "detail": "killed: the module's kill file is present"}
    bench.server.then(bench.server.answer(503, body))
    with pytest.raises(RetriableError) as caught:
        bench.target(tries=1).push(a_push(1))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert "kill file" in caught.value.why


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("start", "chunk"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        (HEAD + b"\r\n", b" "),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_f35_slow_loris_meets_the_total_deadline(bench: Bench, start: bytes, chunk: bytes) -> None:
    """Bytes keep coming, so no timeout of a single read would ever fire."""
    bench.server.then(bench.server.endless(start, chunk, pause_s=0.01))
    with pytest.raises(OutcomeUnknown, match="lost") as caught:
        bench.target(timeout="150ms", tries=1).push(a_push(1))
    assert "0.15 s" in caught.value.why


@pytest.mark.parametrize(
    "start",
    [HEAD + b"\r\n", HEAD + b"Content-Length: 99999999999\r\n\r\n", b"HTTP/1.1 302 X\r\nLocation: /\r\n\r\n"],
)
def test_f35_an_endless_body_meets_the_size_limit(bench: Bench, start: bytes) -> None:
    bench.server.then(bench.server.endless(start, b" " * 65536))
    with pytest.raises(OutcomeUnknown) as caught:
        bench.target(tries=1).push(a_push(1))
    assert "longer than 1048576 bytes" in caught.value.why


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"outcome": "appl',
        b"<html>",
        b"[" * 200_000,
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"outcome": "maybe"}',
        b'{"outcome": ["applied"]}',
        b'{"outcome": "applied", "detail": 3}',
        b'{"outcome": "applied", "x": NaN}',
    ],
)
def test_f36_an_unreadable_answer_is_unknown(bench: Bench, body: bytes) -> None:
    bench.server.then(bench.server.answer(200, body))
    with pytest.raises(OutcomeUnknown):
        bench.target(tries=1).push(a_push(1))


def test_f36_a_truncated_answer_is_unknown(bench: Bench) -> None:
    bench.server.then(
        bench.server.raw(HEAD + b'Content-Length: 999\r\n\r\n{"outcome": "applied", "detail": ""}')
    )
    with pytest.raises(OutcomeUnknown):
        bench.target(tries=1).push(a_push(1))


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500,
    ],
)
def test_garbage_instead_of_http_is_unknown(bench: Bench, raw: bytes) -> None:
    bench.server.then(bench.server.raw(raw))
    with pytest.raises(OutcomeUnknown):
        bench.target(tries=1).push(a_push(1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"protocol": 1}',
        b'{"protocol": 1, "live": [{"campaign": "c"}]}',
        b'{"protocol":1,"live":[3]}',
    ],
)
def test_f36_an_unreadable_list_of_arms_is_retriable(bench: Bench, body: bytes) -> None:
    bench.server.then(bench.server.answer(200, body))
    with pytest.raises(RetriableError) as caught:
        bench.target(tries=1).observe()
    assert not isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize("kind", ["silence", "drop"])
def test_reading_what_is_live_is_never_unknown(bench: Bench, kind: str) -> None:
    bench.server.then(getattr(bench.server, kind)())
    with pytest.raises(RetriableError) as caught:
        bench.target(tries=1, timeout="100ms").observe()
    assert not isinstance(caught.value, OutcomeUnknown)


# -- the way there --------------------


def test_f37_an_unknown_name_fails_closed(tmp_path: Path) -> None:
    target = HttpTarget(HttpOptions(url="https://no-such-host.invalid/", tries=1), base=tmp_path)
    with pytest.raises(RetriableError, match="cannot be reached") as caught:
        target.push(a_push(1))
    assert not isinstance(caught.value, OutcomeUnknown)


def test_tls_with_a_trusted_certificate_works(
    tls_server: Callable[..., Any], certificates: Any, tmp_path: Path
) -> None:
    server = tls_server(certificates.good)
    server.then(server.answer(200, APPLIED))
    target = HttpTarget(HttpOptions(url=server.url, ca_file=certificates.good_pem), base=tmp_path)
    assert target.push(a_push(1)).outcome is Outcome.APPLIED


def test_f37_an_expired_certificate_fails_closed(
    tls_server: Callable[..., Any], certificates: Any, tmp_path: Path
) -> None:
    server = tls_server(certificates.expired)
    target = HttpTarget(HttpOptions(url=server.url, ca_file=certificates.expired_pem, tries=1), base=tmp_path)
    with pytest.raises(RetriableError) as caught:
        target.push(a_push(1))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert "expired" in caught.value.why
    assert server.received == []


def test_f37_a_certificate_of_nobody_known_fails_closed(
    tls_server: Callable[..., Any], certificates: Any, tmp_path: Path
) -> None:
    server = tls_server(certificates.good)
    with pytest.raises(RetriableError, match="cannot be reached") as caught:
        HttpTarget(HttpOptions(url=server.url, tries=1), base=tmp_path).push(a_push(1))
    assert "not trusted" in caught.value.why
    assert server.received == []


def test_proxies_and_credentials_of_the_environment_are_ignored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login someone password {CANARY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    bench.server.then(bench.server.answer(200, APPLIED))
    bench.target().push(a_push(1))
    assert "authorization" not in bench.server.received[0].headers


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
    ],
)
def test_f68_metadata_addresses_are_blocked(tmp_path: Path, host: str) -> None:
    """Also where the campaign lists their network."""
    options = HttpOptions.model_validate({"url": f"https://{host}/", "networks": ["0.0.0.0/0", "::/0"]})
    with pytest.raises(ConfigurationError, match="blocked"):
        HttpTarget(options, base=tmp_path).push(a_push(1))


def test_f68_private_networks_are_reached_only_where_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="blocked") as caught:
        HttpTarget(HttpOptions(url="http://10.255.255.1/"), base=tmp_path).check()
    assert '["10.255.255.1/32"]' in caught.value.next_step


def test_f68_a_public_address_needs_https(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="blocked") as caught:
        HttpTarget(HttpOptions(url="http://8.8.8.8/"), base=tmp_path).check()
    assert "https" in caught.value.next_step


# -- secrets --------------------


def test_f72_no_message_contains_a_secret(bench: Bench) -> None:
    """The other side echoes all it was sent; none of our secrets gets into a text."""
    port = bench.server.port
    options = {
        "url": f"http://user:{CANARY}@127.0.0.1:{port}/base?token={CANARY}q",
        "secret": f"{CANARY}secret",
        "headers": {"X-Token": f"{CANARY}header"},
    }

    def echo(connection: socket.socket, request: Any) -> None:
        status = statuses.pop()
        body = json.dumps({"outcome": "refused", "detail": f"{request.headers} {request.path} {options}"})
        bench.server.answer(status, body.encode(), Location=f"http://x/{CANARY}header")(connection, request)

    texts = []
    statuses = [422, 401, 302, 500, 404, 410]
    for _ in range(6):
        bench.server.then(echo)
        try:
            texts.append(repr(bench.target(**options, tries=1).push(a_push(1))))
        except BlackoptError as error:
            texts.append(f"{error} {error!r} {vars(error)}")
    bench.server.then(bench.server.drop())
    with pytest.raises(RetriableError) as caught:
        bench.target(**options, tries=1).check()
    target = bench.target(**options)
    texts += [str(caught.value), repr(target.options), str(target.options)]
    assert len(texts) == 9
    for text in texts:
        assert CANARY not in text
    sent = bench.server.received[0]
    assert base64.b64decode(sent.headers["authorization"].removeprefix("Basic ")).decode() == f"user:{CANARY}"
    assert sent.path == f"/base/push?token={CANARY}q"
    assert sent.headers["x-token"] == f"{CANARY}header"


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": f"ftp://user:{CANARY}@host/"},
        {"url": f"https://user:{CANARY}@/"},
        {"url": f"https://host/#{CANARY}"},
        {"secret": f"whsec_{CANARY}!"},
        {"secret": ""},
        {"headers": {"X": f"{CANARY}\r\nHost: evil"}},
        {"headers": {"Host": CANARY}},
        {"headers": {"a b": CANARY}},
        {"timeout": 15},
        {"timeout": "15"},
        {"timeout": "0s"},
        {"tries": 0},
        {"verify": False},
    ],
)
def test_f72_wrong_options_are_refused_without_showing_them(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        HttpOptions.model_validate({"url": "https://host/", **wrong})
    assert CANARY not in str(caught.value)


def test_a_missing_ca_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="certificates"):
        HttpTarget(HttpOptions(url="https://host/", ca_file=Path("missing.pem")), base=tmp_path)
