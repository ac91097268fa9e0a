"""From the bytes of an order to a :class:`~blackopt.types.Push`, a ``Withdraw`` or an ``Adopt``.

The schemas in docs/protocol say the same, and are not needed here: a module embeds nothing but this package.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping

from blackopt.serving import strict_json
from blackopt.serving.answers import Rejected
from blackopt.types import Adopt, Artifact, Placement, Push, Slice, Withdraw

PROTOCOL = 1
MAX_BODY = 16 * 1024 * 1024
"""Bytes of a request body, the artifact in base64 included."""

WHOLE = 1_000_000
"""All traffic, in millionths."""

# Names become keys of files, logs and tables on both sides: no separator and no leading dot to traverse with.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SALT = re.compile(r"[!-~]{1,128}")
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(; ?[A-Za-z0-9_.+-]+=[A-Za-z0-9_.+-]+)*"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 2**53 - 1


def malformed(why: str) -> Rejected:
    """400: not an order of this protocol at all."""
    return Rejected(400, f"malformed: {why}")


def parse_push(raw: bytes, key: str) -> Push:
    """The push that a body spells.

    Args:
        raw: body as received.
        key: its idempotency key, for the record; what is repeated is decided from the order itself.

    Raises:
        Rejected: 400 if it is not a push of protocol 1; 422 if the artifact is not what its sha256 says.
    """
    fields = _order(raw, "push")
    campaign, trial, arm, epoch = _address(fields)
    ttl_s = fields.number("ttl_s")
    if ttl_s <= 0:
        raise malformed(f"ttl_s: expected seconds > 0, got {ttl_s!r}")
    artifact = _artifact(fields.object("artifact"))
    placement = fields.optional("placement")
    order = Push(
        key=key,
        campaign=campaign,
        trial=trial,
        arm=arm,
        epoch=epoch,
        ttl_s=ttl_s,
        artifact=artifact,
        placement=None if placement is None else _placement(placement),
    )
    fields.done()
    return order


def parse_withdraw(raw: bytes, key: str) -> Withdraw:
    """The withdrawal that a body spells.

    Raises:
        Rejected: 400 if it is not a withdrawal of protocol 1.
    """
    fields = _order(raw, "withdraw")
    campaign, trial, arm, epoch = _address(fields)
    fields.done()
    return Withdraw(key=key, campaign=campaign, trial=trial, arm=arm, epoch=epoch)


def parse_adopt(raw: bytes, key: str) -> Adopt:
    """The adoption that a body spells.

    Raises:
        Rejected: 400 if it is not an adoption of protocol 1; 422 if the artifact is not what its sha256 says.
    """
    fields = _order(raw, "adopt")
    campaign, number, epoch = fields.text("campaign", NAME), fields.whole("number"), fields.whole("epoch")
    if number < 1:
        raise malformed(f"number: expected a whole number from 1, got {number}")
    artifact = _artifact(fields.object("artifact"))
    fields.done()
    return Adopt(key=key, campaign=campaign, number=number, epoch=epoch, artifact=artifact)


class _Fields:
    """The members of one object, each taken once; what is left over at the end is an error."""

    def __init__(self, members: Mapping[str, object], where: str = "") -> None:
        self._left = dict(members)
        self._where = where

    def take(self, name: str) -> object:
        if name not in self._left:
            raise malformed(f"{self._where}{name} is missing")
        return self._left.pop(name)

    def text(self, name: str, pattern: re.Pattern[str]) -> str:
        value = self.take(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise malformed(
                f"{self._where}{name}: expected a string like {pattern.pattern}, got {_short(value)}"
            )
        return value

    def whole(self, name: str) -> int:
        return _whole(self.take(name), f"{self._where}{name}")

    def number(self, name: str) -> float:
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise malformed(f"{self._where}{name}: expected a number, got {_short(value)}")
        return float(value)

    def object(self, name: str) -> _Fields:
        value = self.take(name)
        if not isinstance(value, dict):
            raise malformed(f"{self._where}{name}: expected an object, got {_short(value)}")
        return _Fields(value, f"{self._where}{name}.")

    def optional(self, name: str) -> _Fields | None:
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return self.object(name)

    def slice(self, name: str) -> Slice:
        value = self.take(name)
        if not isinstance(value, list) or len(value) != 2:
            raise malformed(f"{self._where}{name}: expected [lower, upper], got {_short(value)}")
        lower, upper = (_whole(bound, f"{self._where}{name}", WHOLE) for bound in value)
        return Slice(lower, upper)

    def done(self) -> None:
        if self._left:
            raise malformed(f"{self._where}{min(self._left)!r} is not a field of protocol {PROTOCOL}")


def _order(raw: bytes, kind: str) -> _Fields:
    try:
        value = strict_json.parse(raw)
    except ValueError as error:
        raise malformed(f"body: {error}") from error
    if not isinstance(value, dict):
        raise malformed(f"body: expected an object, got {_short(value)}")
    fields = _Fields(value)
    protocol = fields.whole("protocol")
    if protocol != PROTOCOL:
        raise malformed(f"protocol {protocol}; this module speaks {PROTOCOL}")
    # The signature covers the body and not the path, so the body has to say what it is.
    said = fields.take("kind")
    if said != kind:
        raise malformed(f"kind: expected {kind!r} here, got {_short(said)}")
    return fields


def _address(fields: _Fields) -> tuple[str, int, str, int]:
    campaign, trial = fields.text("campaign", NAME), fields.whole("trial")
    arm = fields.take("arm")
    if arm != f"t{trial}":
        raise malformed(f"arm: expected 't{trial}', got {_short(arm)}")
    return campaign, trial, f"t{trial}", fields.whole("epoch")


def _artifact(fields: _Fields) -> Artifact:
    media_type, sha256 = fields.text("media_type", _MEDIA_TYPE), fields.text("sha256", _SHA256)
    text = fields.take("body")
    if not isinstance(text, str):
        raise malformed(f"artifact.body: expected base64, got {_short(text)}")
    try:
        artifact = Artifact(base64.b64decode(text, validate=True), media_type)
    except ValueError as error:  # binascii.Error, or a character that is not ASCII
        raise malformed("artifact.body: not base64") from error
    fields.done()
    if artifact.sha256 != sha256:
        raise Rejected(422, f"sha256: the artifact's is {artifact.sha256}, the order says {sha256}")
    return artifact


def _placement(fields: _Fields) -> Placement:
    placement = Placement(
        fields.whole("window"), fields.text("salt", _SALT), fields.slice("slice"), fields.slice("control")
    )
    fields.done()
    return placement


def _whole(value: object, where: str, largest: int = _LARGEST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise malformed(f"{where}: expected a whole number from 0 to {largest}, got {_short(value)}")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
