"""Wire protocol v1: the bodies that targets send and read. docs/protocol.md is its specification."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

from blackopt.errors import UsageError
from blackopt.types import Adopt, Artifact, Live, Placement, Push, Withdraw

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
            "artifact": _artifact(order.artifact),
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


def adopt_body(order: Adopt) -> bytes:
    """The body of an adoption.

    Raises:
        UsageError: the number is not positive.
    """
    if order.number < 1:
        raise UsageError(f"number: adoptions are numbered from 1, got {order.number}")
    return _dump(
        {
            "protocol": PROTOCOL,
            "kind": "adopt",
            "campaign": order.campaign,
            "number": order.number,
            "epoch": order.epoch,
            "artifact": _artifact(order.artifact),
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
    item = _entry(item, "live")
    seconds = item.get("expires_in_s")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise ValueError("`expires_in_s` of an entry of `live` is not a finite number")
    return Live(
        campaign=_field(item, "campaign", str, "live"),
        trial=_field(item, "trial", int, "live"),
        arm=_field(item, "arm", str, "live"),
        epoch=_field(item, "epoch", int, "live"),
        sha256=_field(item, "sha256", str, "live"),
        expires_in_s=float(seconds),
    )


def parse_incumbent(item: Any) -> tuple[str, int, str, bool]:
    """Campaign, number, sha256 of one entry of an ``incumbents`` list, and whether it is served.

    Raises:
        ValueError: a field is missing or has another type.
    """
    item, where = _entry(item, "incumbents"), "incumbents"
    if not isinstance(item.get("served"), bool):
        raise ValueError("`served` of an entry of `incumbents` is neither true nor false")
    return (
        _field(item, "campaign", str, where),
        _field(item, "number", int, where),
        _field(item, "sha256", str, where),
        item["served"],
    )


def _entry(item: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise ValueError(f"an entry of `{where}` is {type(item).__name__}, not an object")
    return item


def _field(item: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(
            f"`{name}` of an entry of `{where}` is {type(value).__name__}, expected {kind.__name__}"
        )
    return value


def _artifact(artifact: Artifact) -> dict[str, object]:
    return {
        "media_type": artifact.media_type,
        "sha256": artifact.sha256,
        "body": base64.b64encode(artifact.body).decode(),
    }


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
