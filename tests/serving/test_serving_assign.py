"""What the module's hot path returns, and that nothing slow or half-done is on it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from blackopt.errors import UsageError
from blackopt.serving import Arms, Refused, within
from blackopt.serving.arms import uptime
from blackopt.serving.bounds import Bound
from blackopt.traffic import bucket
from blackopt.types import Artifact


def test_every_unit_gets_what_its_bucket_says(bench: Any) -> None:
    bench.push(trial=1)
    bench.push(trial=2, text='{"price":0.75}')
    seen = set()
    for unit in (f"u{i}" for i in range(500)):
        at = bucket("email-offer", "7.1", unit)
        arm = "control" if at < 200_000 else "t1" if 300_000 <= at < 400_000 else None
        arm = "t2" if 400_000 <= at < 500_000 else arm
        given = bench.arms.assign("email-offer", unit)
        assert (given.arm, given.window) == (arm, 0 if arm is None else 1)
        assert given.value == {"price": {"t1": 1.5, "t2": 0.75}.get(arm or "", 1.0)}
        assert given.artifact.body == {"t1": b'{"price":1.5}', "t2": b'{"price":0.75}'}.get(
            arm or "", b'{"price":1.0}'
        )
        seen.add(arm)
    assert seen == {None, "control", "t1", "t2"}


@pytest.mark.parametrize(
    ("lower", "upper", "inside"), [(0, 1, True), (-1, 1, True), (-1, 0, False), (1, 2, False)]
)
def test_slices_include_their_lower_bound_and_not_their_upper(
    bench: Any, lower: int, upper: int, inside: bool
) -> None:
    at = bucket("email-offer", "7.1", "u1")
    around, elsewhere = [at + lower, at + upper], [at + 100, at + 200]
    for trial, (own, control, arm) in enumerate([(around, elsewhere, "t0"), (elsewhere, around, "control")]):
        placement = {"window": 1, "salt": "7.1", "slice": own, "control": control}
        assert bench.push(trial=trial, placement=placement)[0] == 200
        assert bench.arms.assign("email-offer", "u1").arm == (arm if inside else None)
        bench.withdraw(trial=trial)


def test_artifacts_are_loaded_once_per_push_and_never_by_a_reader(bench: Any) -> None:
    bench.push()
    loaded = list(bench.loaded)
    assert loaded == [b'{"price":1.0}', b'{"price":1.5}']
    values = [bench.arms.assign("email-offer", f"u{i}") for i in range(300)]
    bench.push()
    bench.push(epoch=2)
    assert bench.loaded == loaded
    assert len({id(v.value) for v in values}) == 2


def test_without_load_the_value_is_the_artifact() -> None:
    incumbent = Artifact(b"\x00model", "application/octet-stream")
    arms = Arms(accept=lambda _: None, incumbent=incumbent, secrets=[])
    assert arms.assign("c", "u").value is incumbent


def test_a_unit_without_an_id_is_in_no_arm(bench: Any, bodies: Any) -> None:
    placement = {"window": 1, "salt": "s", "slice": [0, 1_000_000], "control": [0, 0]}
    bench.push(placement=placement)
    assert bench.arms.assign("email-offer", "u").arm == "t1"
    assert bench.arms.assign("email-offer", "").arm is None
    assert bench.arms.assign("email-offer", "\ud800").arm is None


@pytest.mark.parametrize("live", [False, True])
def test_a_unit_that_is_no_string_is_a_mistake_on_every_day(bench: Any, live: bool) -> None:
    if live:
        bench.push()
    with pytest.raises(UsageError, match="unit"):
        bench.arms.assign("email-offer", 42)


def test_campaigns_do_not_meet(bench: Any) -> None:
    bench.push()
    assert bench.served("another") == {None}


def test_an_arm_without_placement_is_found_by_name(bench: Any) -> None:
    assert bench.arms.arm("email-offer", "t1") is None
    bench.push(placement=None, ttl_s=10.0)
    given = bench.arms.arm("email-offer", "t1")
    assert (given.arm, given.window, given.value) == ("t1", 0, {"price": 1.5})
    assert bench.served() == {None}
    bench.now += 10.0
    assert bench.arms.arm("email-offer", "t1") is None


def test_the_default_clock_goes_forward() -> None:
    first = uptime()
    assert 0 < first <= uptime()


def test_readers_never_see_half_an_order(bench: Any) -> None:
    bench.start(state=None)
    problems: list[object] = []
    seen: set[str | None] = set()
    done = threading.Event()

    def price(arm: str | None) -> float:
        return 1.0 if arm in (None, "control") else 1 + int((arm or "")[1:]) % 10 / 10

    def read() -> None:
        while not done.is_set():
            for i in range(50):
                given = bench.arms.assign("email-offer", f"u{i}")
                seen.add(given.arm)
                window = 0 if given.arm is None else given.window
                if given.value != {"price": price(given.arm)} or window != given.window:
                    problems.append(given)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for trial in range(5000):
            if trial > 300 and len(seen) > 10:
                break
            placement = {
                "window": trial,
                "salt": f"7.{trial}",
                "slice": [0, 500_000],
                "control": [500_000, 900_000],
            }
            text = json.dumps({"price": price(f"t{trial}")})
            assert bench.push(trial=trial, text=text, placement=placement)[0] == 200
            if trial % 3 == 0:
                assert bench.withdraw(trial=trial)[0] == 200
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert problems == []
    assert {None, "control"} < seen


def test_orders_from_many_threads_are_applied_once_each(bench: Any) -> None:
    bench.start(state=None)
    outcomes: list[str] = []

    def push(trial: int) -> None:
        outcomes.append(bench.push(trial=trial, placement=None)[1]["outcome"])

    threads = [threading.Thread(target=push, args=(n % 8,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["applied"] * 8 + ["repeated"] * 24
    assert [arm["trial"] for arm in bench.live()] == list(range(8))


BOUNDS: Mapping[str, Bound] = {
    "price": (0.5, 2.0),
    "weights": (-1.0, 1.0),
    "tone": frozenset({"warm", "plain"}),
}
GOOD = {"price": 1, "weights": [[0.5, -1.0], [1.0, 0]], "tone": "warm"}


def test_within_accepts_what_is_inside() -> None:
    within(BOUNDS)(Artifact(json.dumps(GOOD).encode()))
    within({"price": (1.0, 1.0)})(Artifact(b'{"price":1}', "application/json; charset=utf-8"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": 2.0000001}, "'price' is 2.0000001, outside"),
        ({"price": -1e308}, "outside"),
        ({"price": True}, "not a finite number"),
        ({"price": None}, "not a finite number"),
        ({"price": {"now": 1.0}}, "not a finite number"),
        ({"price": []}, "empty list"),
        ({"weights": [[0.5, -1.0], [1.0, 1.5]]}, r"'weights'\[1\]\[1\] is 1.5, outside"),
        ({"weights": [["0.5"]]}, "not a finite number"),
        ({"tone": "rude"}, "'tone' is 'rude', not one of"),
        ({"tone": 1}, "not one of"),
        ({"colour": "red"}, "'colour' is not a parameter"),
    ],
)
def test_f78_within_refuses_what_is_outside(change: dict[str, object], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        within(BOUNDS)(Artifact(json.dumps({**GOOD, **change}).encode()))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"price":NaN}', "NaN is not JSON"),
        (b'{"price":-Infinity}', "not JSON"),
        (b'{"price":1e999}', "does not fit"),
        (b'{"price":1,"price":1}', "twice"),
        (b"[" * 100_000, "deep"),
        (b'{"price":' + b"9" * 5000 + b"}", "not JSON"),
        (b"\xff\xfe1\x00", "not JSON"),
        (b"[1.0]", "one object"),
        (b"{}", "'price' is missing"),
    ],
)
def test_f78_within_refuses_what_is_not_plain_json(body: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        within({"price": (0.5, 2.0)})(Artifact(body))


def test_within_refuses_another_media_type() -> None:
    with pytest.raises(Refused, match="media type"):
        within({"price": (0.5, 2.0)})(Artifact(b'{"price":1}', "application/x-onnx"))


@pytest.mark.parametrize(
    "bounds", [{}, {"p": (1.0, 0.0)}, {"p": (float("nan"), 1.0)}, {"p": (1.0,)}, {"p": [0, 1]}, {"p": set()}]
)
def test_impossible_bounds(bounds: Any) -> None:
    with pytest.raises(UsageError, match="bounds"):
        within(bounds)
