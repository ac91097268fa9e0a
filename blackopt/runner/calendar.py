"""How long a campaign takes: window after window, as many in flight as may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """One window, in microseconds: how long it is served, and from its end until its trials are told."""

    window: int
    told: int


def calendar(
    search: Span,
    confirming: Span,
    *,
    trials: int,
    arms: int,
    max_in_flight: int,
    confirm: int,
    group: int = 1,
) -> int:
    """From the first window's start to the last tell, in microseconds, if nothing is late or withdrawn.

    The rules of :mod:`blackopt.runner.production`: one window at a time; the next one opens when there is
    room in flight for all its arms, or when nothing is in flight; confirmations follow when the search has
    been told.

    Args:
        search: of a window of the search.
        confirming: of a confirmation, which waits for the objective and may last whole weeks.
        trials, arms, max_in_flight, confirm, group: as in the campaign.
    """
    now = last = 0
    flying: list[tuple[int, int]] = []  # when told, how many
    left, to_confirm = trials, confirm
    while left or to_confirm:
        flying = [(at, n) for at, n in flying if at > now]
        in_flight = sum(n for _, n in flying)
        wanted = min(arms, left) if left else 1
        room = min(wanted, max_in_flight - in_flight)
        room -= room % group if left and room > group else 0
        full = room >= (wanted - wanted % group if left else 1)
        if room <= 0 or not (full or not flying) or (not left and last > now and to_confirm == confirm):
            now = min(at for at, _ in flying)
            continue
        span = search if left else confirming
        now += span.window
        last = now + span.told
        flying.append((last, room))
        left, to_confirm = (left - room, to_confirm) if left else (0, to_confirm - 1)
    return last
