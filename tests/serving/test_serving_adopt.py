"""An adopted incumbent: who gets it, what undoes it, and what a restart makes of it."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from blackopt.errors import ConfigurationError
from blackopt.serving import Arms, within
from blackopt.types import Artifact

WHOLE_WINDOW = {"window": 1, "salt": "7.1", "slice": [500_000, 1_000_000], "control": [0, 500_000]}


def said(answer: tuple[int, dict[str, str]]) -> tuple[int, str]:
    status, body = answer
    return status, body["outcome"] if status == 200 else body["detail"].partition(":")[0]


def test_it_is_what_is_served_in_the_control_and_in_no_arm(bench: Any) -> None:
    bench.push()
    assert said(bench.adopt()) == (200, "applied")
    for i in range(300):
        given = bench.arms.assign("email-offer", f"u{i}")
        assert given.value == {"price": 1.5 if given.arm == "t1" else 1.25}
    assert bench.served() == {"t1", "control", None}
    assert bench.arms.assign("email-offer", "").value == {"price": 1.25}  # a unit without an id
    assert bench.price(campaign="another") == 1.0


def test_a_module_that_splits_no_traffic_asks_for_it_by_campaign(bench: Any) -> None:
    assert bench.arms.incumbent("email-offer").value == {"price": 1.0}
    bench.adopt()
    given = bench.arms.incumbent("email-offer")
    assert (given.arm, given.window, given.value) == (None, 0, {"price": 1.25})
    assert bench.arms.incumbent("another").value == {"price": 1.0}
    bench.kill_file.touch()
    bench.now += 1.0
    assert bench.arms.incumbent("email-offer").value == {"price": 1.0}


def test_the_arms_go_on_with_their_leases(bench: Any) -> None:
    bench.push(ttl_s=100.0)
    before = bench.live()
    bench.adopt()
    assert bench.live() == before
    bench.now += 100.0
    assert bench.served() == {None}
    assert {bench.price(f"u{i}") for i in range(50)} == {1.25}


def test_it_is_loaded_once_and_never_by_a_reader(bench: Any) -> None:
    bench.adopt()
    bench.adopt()
    bench.adopt(epoch=2)
    bench.adopt(number=2, epoch=2)  # the same artifact under a later number is the one that is there
    assert bench.loaded == [b'{"price":1.0}', b'{"price":1.25}']
    assert bench.incumbents()[0]["number"] == 2
    assert len({id(bench.arms.assign("email-offer", f"u{i}").value) for i in range(100)}) == 1


def test_f03_a_repeat_writes_nothing(bench: Any) -> None:
    bench.adopt()
    before = bench.state.stat()
    assert said(bench.adopt()) == (200, "repeated")
    assert (bench.state.stat().st_ino, bench.state.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_way_back_is_the_former_artifact_under_the_next_number(bench: Any) -> None:
    bench.adopt(number=1, text='{"price":1.25}')
    bench.adopt(number=2, text='{"price":1.75}')
    assert said(bench.adopt(number=1, text='{"price":1.25}')) == (422, "stale")
    assert said(bench.adopt(number=3, text='{"price":1.25}')) == (200, "applied")
    assert bench.price() == 1.25


def test_f10_f21_a_driver_that_was_replaced_adopts_nothing(bench: Any) -> None:
    bench.push(epoch=5)
    assert said(bench.adopt(epoch=4)) == (409, "fenced")
    bench.start()
    assert said(bench.adopt(epoch=4)) == (409, "fenced")
    assert said(bench.adopt(epoch=6, text='{"price":9.0}')) == (422, "bounds")
    assert said(bench.push(epoch=5)) == (409, "fenced")  # even a refused adoption raises the fence
    assert bench.incumbents() == []
    assert bench.price() == 1.0


def test_a_number_is_one_artifact_with_one_media_type(bench: Any, bodies: Any) -> None:
    bench.adopt()
    assert said(bench.adopt(text='{"price":1.5}')) == (422, "conflict")
    artifact = bodies[0](text='{"price":1.25}')["artifact"] | {
        "media_type": "application/json; charset=utf-8"
    }
    assert said(bench.adopt(artifact=artifact)) == (422, "conflict")
    assert bench.price() == 1.25


@pytest.mark.parametrize("text", ['{"price":2.5}', '{"price":NaN}', "{}", '{"price":1,"x":1}', "[]", "\x00"])
def test_f78_the_module_has_the_last_word(bench: Any, text: str) -> None:
    bench.adopt()
    assert said(bench.adopt(number=2, text=text)) == (422, "bounds")
    assert bench.price() == 1.25
    assert text.encode() not in bench.loaded
    assert said(bench.adopt(number=2, text='{"price":1.5}')) == (200, "applied")


def test_f77_the_kill_file_undoes_it_as_long_as_it_is_there(bench: Any) -> None:
    bench.adopt()
    bench.push()
    bench.kill_file.touch()
    bench.now += 1.0
    assert {bench.price(f"u{i}") for i in range(100)} == {1.0}
    assert [(e["served"], e["detail"].partition(":")[0]) for e in bench.incumbents()] == [(False, "killed")]
    assert said(bench.adopt()) == (503, "killed")
    assert said(bench.adopt(number=2)) == (503, "killed")
    assert bench.start().assign("email-offer", "u10").value == {"price": 1.0}
    bench.kill_file.unlink()
    bench.now += 1.0
    assert {bench.price(f"u{i}") for i in range(100)} == {1.25}
    assert bench.incumbents()[0]["number"] == 1


def test_f39_a_restart_serves_it_before_anybody_sends_anything(bench: Any) -> None:
    bench.adopt(number=3)
    bench.push()
    bench.start()
    assert bench.live() == []
    assert bench.price() == 1.25
    assert [(e["campaign"], e["number"], e["served"]) for e in bench.incumbents()] == [
        ("email-offer", 3, True)
    ]
    assert said(bench.adopt(number=2)) == (422, "stale")
    assert said(bench.adopt(number=3)) == (200, "repeated")
    assert bench.loaded.count(b'{"price":1.25}') == 2  # once a life


def test_without_a_state_file_a_restart_forgets_it_and_says_so(bench: Any) -> None:
    bench.start(state=None)
    bench.adopt()
    assert bench.price() == 1.25
    bench.start(state=None)
    assert bench.incumbents() == []
    assert bench.price() == 1.0
    assert said(bench.adopt()) == (200, "applied")


def tighter(artifact: Artifact) -> None:
    within({"price": (0.5, 1.1)})(artifact)


def broken(artifact: Artifact) -> Any:
    parsed = json.loads(artifact.body)
    if parsed["price"] > 1.0:
        raise OSError("the model server is away")
    return parsed


@pytest.mark.parametrize(
    ("options", "why"),
    [({"accept": tighter}, "outside [0.5, 1.1]"), ({"load": broken}, "OSError: the model server is away")],
)
def test_what_cannot_be_served_after_a_restart_leaves_the_configured_incumbent(
    bench: Any, caplog: pytest.LogCaptureFixture, options: dict[str, Any], why: str
) -> None:
    bench.adopt(number=2)
    bench.adopt(number=1, campaign="another", text='{"price":0.75}')
    bench.start(**options)
    assert (bench.price(), bench.price(campaign="another")) == (1.0, 0.75)
    other, own = bench.incumbents()
    assert (own["number"], own["served"], own["detail"].partition(":")[0]) == (2, False, "bounds")
    assert why in own["detail"]
    assert other["served"]
    assert "adopted incumbent 2 is not served" in caplog.text
    # The same order is judged again, and once the cause has gone it is served again.
    assert said(bench.adopt(number=2)) == (422, "bounds")
    assert said(bench.adopt(number=1)) == (422, "stale")
    assert said(bench.push(text='{"price":1.0}')) == (200, "applied")
    assert bench.arms.assign("email-offer", "u3").value == {"price": 1.0}  # the control
    bench.start()
    assert bench.price() == 1.25


def test_what_was_refused_after_a_restart_is_served_when_it_is_sent_again(bench: Any) -> None:
    away = True

    def load(artifact: Artifact) -> Any:
        return broken(artifact) if away else json.loads(artifact.body)

    bench.adopt()
    bench.start(load=load)
    assert bench.price() == 1.0
    away = False
    assert said(bench.adopt()) == (200, "repeated")
    assert bench.price() == 1.25
    assert [entry["served"] for entry in bench.incumbents()] == [True]


def test_f12_what_cannot_be_written_is_not_adopted(bench: Any) -> None:
    bench.adopt()
    beside = Path(f"{bench.state}.tmp")
    beside.symlink_to("/dev/full")  # a write fails, as on a full disk
    assert said(bench.adopt(number=2, text='{"price":1.5}')) == (503, "state")
    assert (bench.price(), bench.incumbents()[0]["number"]) == (1.25, 1)
    beside.unlink()
    assert said(bench.adopt(number=2, text='{"price":1.5}')) == (200, "applied")


def test_a_state_file_from_before_adoptions_is_read_and_written_anew(bench: Any) -> None:
    bench.push(epoch=3)
    bench.withdraw(trial=2, epoch=3)
    bench.arms.close()
    document = json.loads(bench.state.read_bytes())
    for entry in document["campaigns"].values():
        assert entry.pop("adopted") is None
    bench.state.write_text(json.dumps({**document, "format": 1}))
    bench.start()
    assert said(bench.push(epoch=2)) == (409, "fenced")
    assert said(bench.push(trial=2, epoch=3)) == (422, "withdrawn")
    assert said(bench.push(epoch=3)) == (200, "repeated")
    assert bench.incumbents() == []
    assert said(bench.adopt(epoch=3)) == (200, "applied")
    bench.start()
    assert bench.price() == 1.25


@pytest.mark.parametrize(
    "change",
    [
        {"body": "eyJwcmljZSI6MS41fQ=="},
        {"body": "*"},
        {"number": "1"},
        {"sha256": "0" * 64},
        {"sha256": None},
    ],
)
def test_a_damaged_incumbent_in_the_state_file_stops_the_start(bench: Any, change: dict[str, Any]) -> None:
    bench.adopt()
    bench.arms.close()
    document = json.loads(bench.state.read_bytes())
    document["campaigns"]["email-offer"]["adopted"] |= change
    bench.state.write_text(json.dumps(document))
    before = bench.state.read_bytes()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        bench.start()
    assert bench.state.read_bytes() == before


def test_a_format_2_without_its_incumbents_is_damaged(bench: Any) -> None:
    bench.push()
    bench.arms.close()
    document = json.loads(bench.state.read_bytes())
    del document["campaigns"]["email-offer"]["adopted"]
    bench.state.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match="adopted"):
        bench.start()


def test_an_artifact_of_any_bytes_survives_a_restart(tmp_path: Path, bodies: Any) -> None:
    body = bytes(range(256)) * 40

    def arms() -> Arms[Artifact]:
        incumbent = Artifact(b"\x00model", "application/octet-stream")
        return Arms(accept=lambda _: None, incumbent=incumbent, secrets=[], state=tmp_path / "state.json")

    artifact = Artifact(body, "application/x-onnx")
    order = {
        "protocol": 1,
        "kind": "adopt",
        "campaign": "c",
        "number": 1,
        "epoch": 1,
        "artifact": {
            "media_type": artifact.media_type,
            "sha256": artifact.sha256,
            "body": base64.b64encode(body).decode(),
        },
    }
    first = arms()
    json_type = {"content-type": "application/json"}
    assert first.handle("POST", "/adopt", json_type, json.dumps(order).encode())[0] == 200
    first.close()
    second = arms()
    assert second.assign("c", "u").value == artifact
    second.close()


def test_readers_never_see_half_an_adoption(bench: Any) -> None:
    """A request is served one incumbent, whole: by the time an adoption is answered, only the new one.

    Readers look while numbers rise; the artifact and what was loaded of it always belong together, the
    price never goes back, and the control and the rest follow the same order.
    """
    bench.start(state=None, accept=lambda _: None)
    bench.push(placement=WHOLE_WINDOW, text='{"price":0.5}', ttl_s=10_000.0)
    units = [f"u{i}" for i in range(40)]
    arms = {unit: bench.arms.assign("email-offer", unit).arm for unit in units}
    assert set(arms.values()) == {"t1", "control"}
    problems: list[object] = []
    reached = [0.0] * 3
    answered = [0.0]
    done = threading.Event()

    def read(reader: int) -> None:
        last = 0.0
        while not done.is_set():
            for unit in (*units, ""):
                floor = answered[0]
                given = bench.arms.assign("email-offer", unit)
                price = given.value["price"]
                if given.arm != arms.get(unit) or json.loads(given.artifact.body) != given.value:
                    problems.append(given)
                elif given.arm == "t1":
                    if price != 0.5:
                        problems.append(given)
                elif price < max(last, floor):
                    problems.append((given, last, floor))
                else:
                    last = price
            reached[reader] = last

    readers = [threading.Thread(target=read, args=(reader,)) for reader in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 5000):
            if number > 300 and min(reached) > 50:
                break
            price = 1 + number
            assert said(bench.adopt(number=number, text=json.dumps({"price": price})))[0] == 200
            answered[0] = price
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert problems == []
    assert min(reached) > 50


def test_adoptions_from_many_threads_leave_the_highest_number(bench: Any) -> None:
    bench.start(state=None, accept=lambda _: None)
    outcomes: list[tuple[int, str]] = []

    def adopt(number: int) -> None:
        outcomes.append(said(bench.adopt(number=number, text=json.dumps({"price": number}))))

    threads = [threading.Thread(target=adopt, args=(1 + n % 8,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {code for _, code in outcomes} <= {"applied", "repeated", "stale"}
    assert sum(code == "applied" for _, code in outcomes) <= 8
    assert bench.price() == 8
    assert [entry["number"] for entry in bench.incumbents()] == [8]


def test_a_slow_load_holds_up_no_withdrawal(bench: Any) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(artifact: Artifact) -> Any:
        if artifact.body == b'{"price":1.25}':
            entered.set()
            assert release.wait(30.0)
        return json.loads(artifact.body)

    bench.start(load=slow)
    bench.push()
    answers: list[tuple[int, str]] = []
    thread = threading.Thread(target=lambda: answers.append(said(bench.adopt())))
    thread.start()
    assert entered.wait(30.0)
    assert bench.price() == 1.0
    assert said(bench.withdraw()) == (200, "applied")
    release.set()
    thread.join()
    assert answers == [(200, "applied")]
    assert bench.price() == 1.25
