"""Candidates by key and their centres: written once, told from vectors, proved by the chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from blackopt.errors import LedgerError, UsageError
from blackopt.ledger import Driver
from blackopt.ledger.canonical import sha256
from blackopt.ledger.rows import CentreRow, NewTell, NewTrial, TrialState
from blackopt.ledger.sqlite import sqlite3
from blackopt.types import Role, Status

KEYS = [bytes([0x4B, n]) + bytes(22) for n in range(4)]
CENTRE = CentreRow(0, "a" * 64, "b" * 64)


def keyed(number: int) -> NewTrial:
    return NewTrial(number, number, Role.SEARCH, 0, 0, None, key=KEYS[number])


def test_a_key_takes_the_place_of_the_vector(driver: Driver, make: Any) -> None:
    driver.ask([keyed(0), make.trial(1), keyed(2)], centre=CENTRE, at_us=5)
    first, whole, last = driver.ledger.trials()
    assert (first.keyed, whole.keyed, last.keyed) == (True, False, True)
    assert (first.body, last.body) == (KEYS[0], KEYS[2])
    assert first.vector_sha == sha256(KEYS[0])
    assert whole.vector.shape == (3,)
    with pytest.raises(UsageError, match="known by its key"):
        first.vector  # noqa: B018
    assert driver.ledger.centres() == [CENTRE]
    driver.ledger.verify()


def test_a_trial_has_one_of_the_two(driver: Driver, make: Any) -> None:
    both = replace(make.trial(0), key=KEYS[0])
    for trial in (both, replace(both, vector=None, key=None)):
        with pytest.raises(UsageError, match="a vector or a key"):
            driver.ask([trial], at_us=5)
    with pytest.raises(LedgerError):
        driver.ask([replace(keyed(0), key=b"short")], at_us=5)
    assert driver.ledger.trials() == []


def test_a_version_has_one_centre_however_many_windows_refer_to_it(driver: Driver) -> None:
    driver.ask([keyed(0)], centre=CENTRE, at_us=5)
    driver.ask([keyed(1)], centre=CENTRE, at_us=6)
    with pytest.raises(LedgerError, match="another"):
        driver.ask([keyed(2)], centre=replace(CENTRE, artifact_sha="c" * 64), at_us=7)
    assert driver.ledger.centres() == [CENTRE]
    assert [t.number for t in driver.ledger.trials()] == [0, 1]
    driver.ledger.verify()


@pytest.mark.parametrize(
    ("trigger", "change"),
    [
        ("candidate_key_frozen", "UPDATE candidate_key SET body = zeroblob(24) WHERE trial = 0"),
        ("centre_frozen", f"UPDATE centre SET artifact_sha = '{'d' * 64}'"),
        ("centre_kept", "DELETE FROM centre"),
    ],
)
def test_what_was_changed_is_refused_or_else_found(driver: Driver, trigger: str, change: str) -> None:
    driver.ask([keyed(0)], centre=CENTRE, at_us=5)
    conn = sqlite3.connect(driver.ledger.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        conn.execute(change)
    conn.execute(f"DROP TRIGGER {trigger}")
    conn.execute(change)
    conn.commit()
    conn.close()
    with pytest.raises(LedgerError, match=r"trial 0|centre 0"):
        driver.ledger.verify()


def _events(driver: Driver) -> list[tuple[str, dict[str, Any]]]:
    return [(e.kind, dict(e.data)) for e in driver.ledger.events()]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_chain_does_not_show_how_orders_were_put_together(
    ledger_of: Callable[[str], Driver], size: int
) -> None:
    chains = []
    for name, step in (("one", 1), ("some", size)):
        driver = ledger_of(name)
        driver.ask([keyed(n) for n in range(4)], at_us=5)
        parts = [range(first, first + step) for first in range(0, 4, step)]
        for part in parts:
            driver.intend(dict.fromkeys(part, "b" * 64), at_us=6)
        for part in parts:
            driver.live(dict.fromkeys(part, 99), at_us=7)
        driver.renewed(dict.fromkeys(range(4), 123))
        driver.close([0, 1, 2, 3], cause="window ended", at_us=8)
        for part in parts:
            driver.withdrawn(list(part), at_us=9)
        assert {t.state for t in driver.ledger.trials()} == {TrialState.AWAITING}
        assert {t.lease_until_us for t in driver.ledger.trials()} == {123}
        driver.ledger.verify()
        chains.append(_events(driver))
    assert chains[0] == chains[1]


@pytest.fixture
def ledger_of(tmp_path: Any, make: Any) -> Any:
    from contextlib import ExitStack

    from blackopt.ledger import Ledger

    with ExitStack() as stack:

        def made(name: str) -> Driver:
            ledger = stack.enter_context(Ledger.create(tmp_path / name, make.campaign, at_us=1))
            return stack.enter_context(ledger.drive(at_us=2))

        yield made


def test_a_batch_with_a_trial_in_another_state_writes_nothing(driver: Driver) -> None:
    driver.ask([keyed(n) for n in range(3)], at_us=5)
    driver.intend({0: "b"}, at_us=6)
    with pytest.raises(LedgerError, match="Trial 1"):
        driver.live({0: 9, 1: 9}, at_us=7)
    with pytest.raises(UsageError, match="at least one"):
        driver.intend({}, at_us=7)
    assert [t.state for t in driver.ledger.trials()] == [
        TrialState.PUSHING,
        TrialState.ASKED,
        TrialState.ASKED,
    ]
    driver.ledger.verify()


def test_snapshots_of_a_large_model_do_not_make_the_file_grow_for_ever(driver: Driver) -> None:
    state = bytes(2_000_000)
    sizes = []
    for n in range(8):
        driver.snapshot(tell_seq=0, asked=n, optimizer_version="1", state=state)
        driver.ask([keyed(n % 4) if n < 4 else _more(n)], at_us=n)
        driver.tell([NewTell(n, Status.VOID, cause="x")], at_us=n)
        driver.snapshot(tell_seq=n + 1, asked=n, optimizer_version="1", state=state + bytes([n]))
        sizes.append(driver.ledger.path.stat().st_size)
    assert sizes[-1] < 3.5 * len(state)


def _more(number: int) -> NewTrial:
    return NewTrial(number, number, Role.SEARCH, 0, 0, None, key=KEYS[0])
