"""Whether an arm may have the traffic that its push asks for."""

from __future__ import annotations

from collections.abc import Iterable

from blackopt.serving.answers import Rejected
from blackopt.serving.orders import WHOLE
from blackopt.serving.state import Memory
from blackopt.types import Placement, Push, Slice


def check_placement(
    order: Push, placement: Placement, memory: Memory, live: Iterable[Push], max_share: float
) -> None:
    """Refuse a slice that is impossible, taken, or more traffic than the module lends out.

    Args:
        order: the push that asks.
        placement: its own.
        memory: of its campaign.
        live: the pushes of the arms that will be served beside it.
        max_share: part of all units that the arms of the campaign may have together.

    Raises:
        Rejected: 422.
    """
    own, control = placement.slice, placement.control
    if placement.window < memory.window:
        raise Rejected(422, f"window: {placement.window} is over; {memory.window} has been served")
    if own.lower >= own.upper or control.lower > control.upper:
        raise Rejected(422, f"slice: {_text(own)} or control {_text(control)} is empty or reversed")
    if _overlap(own, control):
        raise Rejected(422, f"slice: {_text(own)} overlaps the control's {_text(control)}")
    share = own.upper - own.lower
    for arm in live:
        other = arm.placement
        if arm.campaign != order.campaign or arm.trial == order.trial or other is None:
            continue
        if (other.salt, other.control) != (placement.salt, control):
            raise Rejected(422, f"slice: {arm.arm} has another salt or control in this window")
        if _overlap(own, other.slice):
            raise Rejected(422, f"slice: {_text(own)} overlaps {_text(other.slice)} of {arm.arm}")
        share += other.slice.upper - other.slice.lower
    if share > round(max_share * WHOLE):
        raise Rejected(422, f"share: {share} millionths of all units; at most {max_share:.2%} here")


def _overlap(a: Slice, b: Slice) -> bool:
    return a.lower < b.upper and b.lower < a.upper


def _text(part: Slice) -> str:
    return f"[{part.lower}, {part.upper})"
