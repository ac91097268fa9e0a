"""Standard Webhooks signatures (https://www.standardwebhooks.com), symmetric scheme ``v1``.

The signed text is ``<webhook-id>.<webhook-timestamp>.<raw body>``; the signature is its HMAC-SHA256.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping

from blackopt.errors import UsageError
from blackopt.serving.answers import Rejected

TOLERANCE_S = 300.0
"""How far a timestamp may be from the receiver's clock, in either direction, in seconds."""

# No dot: the signed text is split at dots, and must split in one way only.
_ID = re.compile(r"[!-\-/-~]{1,256}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def key_of(secret: str) -> bytes:
    """The HMAC key of a secret: ``whsec_<base64>`` is decoded, anything else is taken as UTF-8 text.

    Raises:
        UsageError: it is empty, or not base64 after the prefix. The secret is not in the message.
    """
    if secret.startswith("whsec_"):
        encoded = secret.removeprefix("whsec_")
        try:
            # Secrets are passed around without their padding; both sides put it back.
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except ValueError:  # not chained: the cause holds the secret
            raise UsageError("secrets: what follows whsec_ is not base64") from None
    else:
        key = secret.encode()
    if not key:
        raise UsageError("secrets: a secret is empty; pass no secrets at all to leave orders unsigned")
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The ``webhook-signature`` of a body: ``v1,<base64>``. ``timestamp`` is in seconds since 1970, UTC."""
    return f"v1,{_digest(key_of(secret), message_id, str(timestamp), body)}"


def _digest(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    text = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()


class Verifier:
    """Checks signatures against several secrets, so that a secret can be rotated without a gap.

    Args:
        secrets: current and previous; empty means that nothing is checked.
        wall: seconds since 1970, UTC.
        tolerance_s: how old, or how far in the future, a timestamp may be.
    """

    def __init__(
        self, secrets: Iterable[str], wall: Callable[[], float], tolerance_s: float = TOLERANCE_S
    ) -> None:
        self._keys = tuple(key_of(secret) for secret in secrets)
        self._wall = wall
        self._tolerance_s = tolerance_s

    @property
    def active(self) -> bool:
        """Whether there is a secret to check against."""
        return bool(self._keys)

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Return if one of the signatures is right.

        Args:
            headers: with names in lower case.
            body: the raw bytes as received.

        Raises:
            Rejected: 401.
        """
        if not self._keys:
            return
        message_id = headers.get("webhook-id", "")
        timestamp = headers.get("webhook-timestamp", "")
        signatures = headers.get("webhook-signature", "")
        if not (message_id and timestamp and signatures):
            raise Rejected(401, "signature: webhook-id, webhook-timestamp and webhook-signature are required")
        if not _ID.fullmatch(message_id) or not _TIMESTAMP.fullmatch(timestamp):
            raise Rejected(401, "signature: webhook-id or webhook-timestamp is malformed")
        age_s = self._wall() - int(timestamp)
        if abs(age_s) > self._tolerance_s:
            raise Rejected(
                401, f"signature: timestamp is off by {age_s:.0f} s, more than {self._tolerance_s:.0f} s"
            )
        given = [part[3:] for part in signatures.split(" ") if part.startswith("v1,")]
        expected = [_digest(key, message_id, timestamp, body) for key in self._keys]
        # Every pair is compared, in constant time: how long it takes says nothing about which one matched.
        matches = [hmac.compare_digest(g.encode(), e.encode()) for g in given for e in expected]
        if not any(matches):
            raise Rejected(401, "signature: it does not fit the body under any secret of this module")
