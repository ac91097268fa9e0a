"""Pushes artifacts to production modules over HTTP (wire protocol 1, docs/protocol.md).

A burst is a few tries of one order, with the same key. What leaves a burst is a receipt, or the error that
says what is known: once one of its tries may have been applied, no later answer can make that unknown again
but a receipt.
"""

from __future__ import annotations

import email.utils
import random
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, IPvAnyNetwork, SecretStr

from blackopt.errors import (
    BlackoptError,
    ConfigurationError,
    FatalError,
    OutcomeUnknown,
    RetriableError,
    UsageError,
)
from blackopt.protocols import PluginOptions
from blackopt.types import Adopt, Live, Outcome, Push, Receipt, Withdraw
from blackopt_connectors._options import Seconds
from blackopt_connectors._signing import sign, signing_key
from blackopt_connectors._transport import Answer, Lost, NotSent, Transport, check_url
from blackopt_connectors._wire import (
    PROTOCOL,
    adopt_body,
    parse_incumbent,
    parse_json,
    parse_live,
    push_body,
    withdraw_body,
)

T = TypeVar("T")

BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 5.0
"""Waits inside a burst, and the longest Retry-After that is waited for there; a longer one is the caller's
to wait.
"""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset(
    [
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "idempotency-key",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ]
)


def _check_secret(secret: SecretStr) -> SecretStr:
    signing_key(secret.get_secret_value())
    return secret


def _check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if name.lower() in _OURS:
            raise ValueError(f"the header {name} is set by the connector")
        text = value.get_secret_value()
        if not (text.isascii() and text.isprintable()) or text != text.strip():
            raise ValueError(
                f"the value of the header {name} is not printable ASCII without spaces around it"
            )
    return headers


class HttpOptions(PluginOptions):
    """Options of ``use: http``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(check_url)] = Field(
        repr=False, description="orders go to <url>/push, <url>/withdraw and <url>/adopt"
    )
    secret: Annotated[SecretStr, AfterValidator(_check_secret)] | None = Field(
        None, description="signs every request (Standard Webhooks): whsec_<base64>, or any text"
    )
    headers: Annotated[dict[str, SecretStr], AfterValidator(_check_headers)] = Field(
        default_factory=dict, description="further headers; their values are treated as secrets"
    )
    connect_timeout: Seconds = Field(5.0, description="for the connection of a try")
    timeout: Seconds = Field(15.0, description="for a whole try, to the last byte of its answer")
    tries: int = Field(3, ge=1, le=10, description="tries of an order before it is left for later")
    ca_file: Path | None = Field(None, description="certificates to trust instead of the public ones (PEM)")
    networks: tuple[IPvAnyNetwork, ...] = Field(
        (), description="private networks that may be reached, as CIDR"
    )


class HttpTarget:
    """A :class:`blackopt.protocols.Target` behind an HTTP address.

    Args:
        options: see :class:`HttpOptions`.
        base: directory of the campaign file; ``ca_file`` is relative to it.
        sleep: waits the given seconds between the tries of a burst.
        now: Unix time in seconds, for signatures.
        jitter: source of the waits' randomness; nothing but waits depends on it.
    """

    Options: ClassVar[type[PluginOptions]] = HttpOptions

    def __init__(
        self,
        options: PluginOptions,
        *,
        base: Path,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
        jitter: random.Random | None = None,
    ) -> None:
        if not isinstance(options, HttpOptions):
            raise UsageError(f"options: expected HttpOptions, got {type(options).__name__}")
        self.options = options
        ca_file = base / options.ca_file if options.ca_file else None
        if ca_file is not None and not ca_file.is_file():
            raise ConfigurationError(
                "the file of trusted certificates is missing",
                where=f"ca_file: {options.ca_file}",
                safe="nothing was sent",
                next_step="put the PEM file there, or leave ca_file out to trust the public authorities",
            )
        secret = options.secret.get_secret_value() if options.secret else None
        self._key = signing_key(secret) if secret else None
        self._transport = Transport(
            options.url,
            connect_timeout_s=options.connect_timeout,
            timeout_s=options.timeout,
            headers={name: value.get_secret_value() for name, value in options.headers.items()},
            ca_file=ca_file,
            networks=options.networks,
            secrets=[secret] if secret else [],
        )
        self._sleep, self._now = sleep, now
        self._jitter = jitter or random.Random()  # noqa: S311  # waits are no secret

    def check(self) -> str:
        """Ask what is live, which tests address, certificate, signature and protocol, and changes nothing."""
        live, incumbents = self._listed()
        old = "; it takes no adoptions: update it before a promotion" if incumbents is None else ""
        return f"{self._transport.shown()}: protocol {PROTOCOL}, {len(live)} arms live{old}"

    def push(self, order: Push) -> Receipt:
        """Send a push; see :meth:`_deliver` for the errors."""
        return self._deliver("/push", order.key, push_body(order))

    def withdraw(self, order: Withdraw) -> Receipt:
        """Send a withdrawal; see :meth:`_deliver` for the errors."""
        return self._deliver("/withdraw", order.key, withdraw_body(order))

    def adopt(self, order: Adopt) -> Receipt:
        """Send an adoption; see :meth:`_deliver` for the errors."""
        return self._deliver("/adopt", order.key, adopt_body(order))

    def observe(self) -> list[Live]:
        """Which arms the module says it serves.

        Raises:
            RetriableError: no usable answer. Reading changes nothing, so no outcome can be unknown.
            ConfigurationError: wrong address or credentials.
        """
        return self._listed()[0]

    def incumbent(self, campaign: str) -> tuple[int, str] | None:
        """Number and sha256 of the adopted incumbent that the module says it serves; None: its own.

        Errors as of :meth:`observe`.
        """
        for of, number, sha256, served in self._listed()[1] or ():
            if of == campaign and served:
                return number, sha256
        return None

    def close(self) -> None:
        """Nothing is kept open between requests."""

    def _listed(self) -> tuple[list[Live], list[tuple[str, int, str, bool]] | None]:
        """Both lists of the module's answer; the second is None where it is older than adoptions."""
        answer = self._burst("GET", "/live", str(uuid.uuid4()), b"", self._read)
        where = self._transport.shown("/live")
        try:
            parsed = parse_json(answer.body)
            if not isinstance(parsed, dict) or not isinstance(parsed.get("live"), list):
                raise ValueError("it is not an object with a list `live`")
            live = [parse_live(item) for item in parsed["live"]]
            adopted = parsed.get("incumbents")
            if adopted is not None and not isinstance(adopted, list):
                raise ValueError("its `incumbents` is not a list")
            incumbents = None if adopted is None else [parse_incumbent(item) for item in adopted]
        except ValueError as error:
            raise RetriableError(
                "the module's list of live arms is unreadable", where=where, why=str(error)
            ) from error
        if parsed.get("protocol") != PROTOCOL:
            raise ConfigurationError(
                "the module speaks another protocol",
                where=where,
                why=f"expected protocol {PROTOCOL}, it says {str(parsed.get('protocol'))[:20]}",
                safe="nothing was sent that could be misunderstood",
                next_step="run the same version of blackopt on both sides",
            )
        return live, incumbents

    def _deliver(self, path: str, key: str, body: bytes) -> Receipt:
        """Send one order in a burst of tries.

        Raises:
            RetriableError: certainly not applied (refused connection, certificate, 429, 503 with
            Retry-After). OutcomeUnknown: a try may have been applied (no or no intelligible answer, 5xx).
            ConfigurationError: 401, 403, 404, a redirect, or an address that does not speak the protocol.
            FatalError: 410: the module is gone for good.
        """
        return self._burst("POST", path, key, body, self._receipt)

    def _burst(self, method: str, path: str, key: str, body: bytes, read: Callable[[str, Answer], T]) -> T:
        unknown: OutcomeUnknown | None = None
        for attempt in range(self.options.tries):
            try:
                return read(path, self._once(method, path, key, body))
            except RetriableError as error:
                last = error
                if isinstance(error, OutcomeUnknown):
                    unknown = error
            except BlackoptError as error:
                if unknown is None:
                    raise
                # The next burst meets the same refusal, with nothing unknown behind it.
                raise _still_unknown(unknown, error, None) from error
            wait_s = last.retry_after_s or 0.0
            if attempt + 1 == self.options.tries or wait_s > BACKOFF_CAP_S:
                break
            # Full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS, 2015), above what the other
            # side asked for.
            ceiling_s = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**attempt)
            self._sleep(max(wait_s, self._jitter.uniform(0.0, ceiling_s)))
        if unknown is not None and last is not unknown and not isinstance(last, OutcomeUnknown):
            raise _still_unknown(unknown, last, last.retry_after_s) from last
        raise last

    def _once(self, method: str, path: str, key: str, body: bytes) -> Answer:
        headers = {"Idempotency-Key": key} if method == "POST" else {}
        if body:
            headers["Content-Type"] = "application/json"
        if self._key is not None:
            headers |= sign(self._key, key, int(self._now()), body)
        where = self._transport.shown(path)
        try:
            return self._transport.send(method, path, body, headers)
        except NotSent as error:
            raise RetriableError(
                "the module cannot be reached", where=where, why=str(error), safe="nothing was sent"
            ) from None
        except Lost as error:
            if method == "GET":
                raise RetriableError("the module did not answer", where=where, why=str(error)) from None
            raise self._unknown(where, str(error)) from None

    def _read(self, path: str, answer: Answer) -> Answer:
        if answer.status == 200:
            return answer
        self._raise_for(path, answer)
        raise RetriableError(
            "the module did not answer", where=self._transport.shown(path), why=f"HTTP {answer.status}"
        )

    def _receipt(self, path: str, answer: Answer) -> Receipt:
        """The answer's meaning; the table is in docs/connectors.md."""
        if answer.status == 200 or (
            400 <= answer.status < 500 and answer.status not in (401, 403, 404, 410, 429)
        ):
            try:
                parsed = parse_json(answer.body)
                outcome, detail = Outcome(parsed["outcome"]), parsed.get("detail", "")
                if not isinstance(detail, str):
                    raise TypeError("`detail` is not a text")
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                problem = self._transport.scrub(f"{type(error).__name__}: {error}")
            else:
                if answer.status == 200 or outcome is Outcome.REFUSED:
                    return Receipt(outcome, self._transport.scrub(detail))
                problem = f"it says {outcome}"
            if answer.status == 413:
                return Receipt(Outcome.REFUSED, "too large: HTTP 413")
            if answer.status in (200, 408):
                raise self._unknown(
                    self._transport.shown(path), f"HTTP {answer.status} whose body is unreadable: {problem}"
                )
        self._raise_for(path, answer)
        raise self._unknown(self._transport.shown(path), f"HTTP {answer.status}", self._retry_after_s(answer))

    def _raise_for(self, path: str, answer: Answer) -> None:
        """Raise for a status whose meaning does not depend on the request; return for 1xx, 2xx and 5xx."""
        where, status = self._transport.shown(path), answer.status
        retry_after_s = self._retry_after_s(answer)
        unavailable = self._unavailable(answer) if status == 503 else None
        if status == 429 or (status == 503 and (unavailable or retry_after_s is not None)):
            raise RetriableError(
                "the module asks to wait",
                where=where,
                why=unavailable or f"HTTP {status}",
                safe="not applied",
                retry_after_s=retry_after_s,
            )
        if status == 410:
            raise FatalError(
                "the module is gone for good",
                where=where,
                why="HTTP 410",
                safe="not applied; what it served ends with its lease",
                next_step="point `url` to the module's new address, or run `blackopt stop`",
            )
        if 300 <= status < 500:
            why, next_step = self._misconfigured(status, answer)
            raise ConfigurationError(
                "the module's address or credentials are wrong",
                where=where,
                why=why,
                safe="not applied",
                next_step=f"{next_step}, then run `blackopt check`",
            )

    def _unavailable(self, answer: Answer) -> str | None:
        """The module's own word that it applies nothing now; a proxy's 503 does not carry it."""
        try:
            parsed = parse_json(answer.body)
        except ValueError:
            return None
        if not isinstance(parsed, dict) or parsed.get("outcome") != "unavailable":
            return None
        return f"HTTP 503: {self._transport.scrub(str(parsed.get('detail', '')))}"

    def _misconfigured(self, status: int, answer: Answer) -> tuple[str, str]:
        if status < 400:
            to = self._transport.scrub(answer.headers.get("location", "nowhere").partition("?")[0])
            return (
                f"HTTP {status} redirects to {to}; redirects are not followed",
                "write the final address as `url`",
            )
        if status in (401, 403):
            said = self._transport.scrub(answer.body[:200].decode("utf-8", "replace"))
            return f"HTTP {status}: {said}", "compare `secret` and `headers` (and the clocks) on both sides"
        if _detail(answer).startswith("malformed: "):
            return (
                f"HTTP {status}: {self._transport.scrub(_detail(answer))}",
                "update the module, which does not know this order",
            )
        return (
            f"HTTP {status}, and no answer of the protocol",
            "compare `url` with the address the module serves",
        )

    def _unknown(self, where: str, why: str, retry_after_s: float | None = None) -> OutcomeUnknown:
        return OutcomeUnknown(
            "the module's answer was lost",
            where=where,
            why=why,
            safe="sent again with the same key it is applied at most once; its lease ends it in any case",
            retry_after_s=retry_after_s,
        )

    def _retry_after_s(self, answer: Answer) -> float | None:
        """Seconds of a Retry-After header (RFC 9110, 10.2.3); None where there is none or it is
        unreadable.
        """
        text = answer.headers.get("retry-after", "").strip()
        if text.isdecimal() and len(text) <= 9:
            return float(text)
        at = _unix(text)
        if at is None:
            return None
        # A date is a time of the other side's clock: count from its own Date where it gives one.
        return max(0.0, at - (_unix(answer.headers.get("date", "")) or self._now()))


def _detail(answer: Answer) -> str:
    """What an answer of the protocol says; empty for any other."""
    try:
        parsed = parse_json(answer.body)
    except ValueError:
        return ""
    return str(parsed.get("detail", "")) if isinstance(parsed, dict) else ""


def _unix(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _still_unknown(
    unknown: OutcomeUnknown, then: BlackoptError, retry_after_s: float | None
) -> OutcomeUnknown:
    return OutcomeUnknown(
        unknown.what,
        where=unknown.where,
        why=f"{unknown.why}; the next try: {then.what}" + (f" ({then.why})" if then.why else ""),
        safe=unknown.safe,
        retry_after_s=retry_after_s,
    )
