"""Wire protocol v1: the bodies that targets send and read. docs/protocol.md is its specification."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

from blackopt.errors import UsageError
from blackopt.types import Live, Placement, Push, Withdraw

PROTOCOL = 1


def push_body(order: Push) -> bytes:
    """The body of a push.

    Raises:
        UsageError: the lease is not a positive, finite number of seconds.
    """
    if not (math.isfinite(order.ttl_s) and order.ttl_s > 0):
        raise UsageError(f"ttl_s: expected a positive, finite number of seconds, got {order.ttl_s!r}")
    return _dump(
        {
            "protocol": PROTOCOL,
            "kind": "push",
            "campaign": order.campaign,
            "trial": order.trial,
            "arm": order.arm,
            "epoch": order.epoch,
            "ttl_s": float(order.ttl_s),
            "artifact": {
                "media_type": order.artifact.media_type,
                "sha256": order.artifact.sha256,
                "body": base64.b64encode(order.artifact.body).decode(),
            },
            "placement": _placement(order.placement),
        }
    )


def withdraw_body(order: Withdraw) -> bytes:
    """The body of a withdrawal."""
    return _dump(
        {
            "protocol": PROTOCOL,
            "kind": "withdraw",
            "campaign": order.campaign,
            "trial": order.trial,
            "arm": order.arm,
            "epoch": order.epoch,
        }
    )


def parse_json(body: bytes) -> Any:
    """Parse JSON that somebody else wrote.

    Raises:
        ValueError: it is not UTF-8, not JSON, has a number that is not finite, or is nested absurdly deep.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def parse_live(item: Any) -> Live:
    """One entry of a ``live`` list.

    Raises:
        ValueError: a field is missing or has another type.
    """
    if not isinstance(item, Mapping):
        raise ValueError(f"an entry of `live` is {type(item).__name__}, not an object")
    seconds = item.get("expires_in_s")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise ValueError("`expires_in_s` of an entry of `live` is not a finite number")
    return Live(
        campaign=_field(item, "campaign", str),
        trial=_field(item, "trial", int),
        arm=_field(item, "arm", str),
        epoch=_field(item, "epoch", int),
        sha256=_field(item, "sha256", str),
        expires_in_s=float(seconds),
    )


def _field(item: Mapping[str, Any], name: str, kind: type) -> Any:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(
            f"`{name}` of an entry of `live` is {type(value).__name__}, expected {kind.__name__}"
        )
    return value


def _placement(placement: Placement | None) -> dict[str, object] | None:
    if placement is None:
        return None
    return {
        "window": placement.window,
        "salt": placement.salt,
        "slice": [placement.slice.lower, placement.slice.upper],
        "control": [placement.control.lower, placement.control.upper],
    }


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
