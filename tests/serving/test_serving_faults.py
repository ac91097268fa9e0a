"""What goes wrong between a driver and a module, by the number of its scenario."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from blackopt.errors import ConfigurationError, UsageError
from blackopt.serving import Arms, Refused, sign
from blackopt.types import Artifact

SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB0aGUgbW9kdWxl"


def signed(
    bench: Any, body: dict[str, Any], secret: str = SECRET, age_s: int = 0
) -> tuple[bytes, dict[str, str]]:
    raw, at = json.dumps(body).encode(), int(bench.wall) - age_s
    key = hashlib.sha256(b"order").hexdigest()
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": key,
        "Webhook-Id": key,
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": sign(secret, key, at, raw),
    }
    return raw, headers


def test_f03_an_order_sent_twice_is_applied_once(bench: Any) -> None:
    assert bench.push()[1]["outcome"] == "applied"
    before = bench.state.stat()
    bench.now += 10
    assert bench.push()[1]["outcome"] == "repeated"
    assert bench.loaded.count(b'{"price":1.5}') == 1
    assert bench.live()[0]["expires_in_s"] == 900
    # A renewal is the commonest order of all: it must cost no write.
    assert (bench.state.stat().st_ino, bench.state.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_f10_a_driver_that_woke_up_late_is_fenced(bench: Any) -> None:
    bench.push(epoch=1)
    bench.push(epoch=2)
    for answer in (bench.push(epoch=1), bench.withdraw(epoch=1), bench.push(trial=2, epoch=1)):
        assert answer[0] == 409
        assert answer[1]["detail"].startswith("fenced: ")
    assert [(arm["trial"], arm["epoch"]) for arm in bench.live()] == [(1, 2)]


def test_f21_an_epoch_from_an_old_backup_is_refused_even_after_a_restart(bench: Any) -> None:
    bench.push(epoch=7)
    bench.start()
    assert bench.push(trial=2, epoch=6)[0] == 409
    assert bench.push(trial=2, epoch=7)[0] == 200


def test_f38_f39_a_restarted_module_starts_on_the_incumbent_until_it_is_leased_again(bench: Any) -> None:
    bench.push()
    assert bench.served() == {"t1", "control", None}
    bench.start()
    assert bench.served() == {None}
    assert bench.live() == []
    assert bench.push()[1]["outcome"] == "repeated"
    assert bench.served() == {"t1", "control", None}


def test_f57_a_lease_that_ended_while_nobody_looked_has_ended(bench: Any) -> None:
    bench.push()
    bench.now += 10**6
    assert bench.served() == {None}
    assert bench.withdraw()[1]["outcome"] == "applied"


@pytest.mark.parametrize("wall", [0.0, 4_102_444_800.0])
def test_f58_a_lease_is_a_duration_whatever_the_wall_clock_says(bench: Any, wall: float) -> None:
    bench.wall = wall
    bench.push(ttl_s=60.0)
    bench.wall += 86_400.0
    bench.now += 59.0
    assert "t1" in bench.served()
    bench.now += 1.0
    assert bench.served() == {None}


@pytest.mark.parametrize("secrets", [[SECRET], ["the next secret", SECRET]])
def test_f66_forged_and_old_orders_are_refused_and_a_replay_applies_nothing(
    bench: Any, bodies: Any, secrets: list[str]
) -> None:
    push_body, withdraw_body = bodies
    bench.start(secrets=secrets)
    raw, headers = signed(bench, push_body())
    assert bench.post("/push", raw.replace(b'"trial": 1', b'"trial": 2'), headers)[0] == 401
    assert bench.post("/push", raw)[0] == 401
    assert bench.post("/push", *signed(bench, push_body(), secret="guessed"))[0] == 401
    assert bench.post("/push", *signed(bench, push_body(), age_s=301))[0] == 401
    assert bench.post("/push", *signed(bench, push_body(), age_s=-301))[0] == 401
    assert bench.arms.handle("GET", "/live", {}, b"")[0] == 401
    assert bench.served() == {None}
    assert not bench.state.exists()

    assert bench.post("/push", raw, headers)[1]["outcome"] == "applied"
    assert bench.post("/push", raw, headers)[1]["outcome"] == "repeated"
    assert bench.post("/withdraw", *signed(bench, withdraw_body()))[0] == 200
    assert bench.post("/push", raw, headers)[1]["detail"].startswith("withdrawn: ")
    # The signature does not cover the path: a push is not a withdrawal for being sent there.
    assert bench.post("/withdraw", raw, headers)[0] == 400


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "", "/etc", "a/b", "a\\b", "a\0", "a\n", "-x", "a" * 129, 7, None]
)
def test_f67_names_that_could_be_paths_are_refused(bench: Any, name: object) -> None:
    for answer in (bench.push(campaign=name), bench.push(arm=name), bench.withdraw(campaign=name)):
        assert answer[0] == 400
        assert answer[1]["detail"].startswith("malformed: ")
    assert bench.live() == []
    assert not bench.state.exists()


def test_f76_without_blackopt_the_lease_ends_and_the_incumbent_is_back(bench: Any) -> None:
    bench.push(ttl_s=100.0)
    bench.push(trial=2, ttl_s=300.0)
    bench.now += 100.0
    # Its units are not the control: they have seen a candidate.
    assert bench.served() == {"t2", "control", None}
    bench.now += 200.0
    assert bench.served() == {None}
    assert {bench.arms.assign("email-offer", f"u{i}").value["price"] for i in range(50)} == {1.0}


def test_f77_the_kill_file_stops_everything_without_ledger_or_network(bench: Any) -> None:
    bench.push()
    assert "t1" in bench.served()
    bench.kill_file.touch()
    assert "t1" in bench.served()  # looked up at most once a second
    bench.now += 1.0
    assert bench.served() == {None}
    assert bench.live() == []
    assert bench.arms.arm("email-offer", "t1") is None
    assert bench.push()[0] == 503
    assert bench.withdraw(trial=2)[0] == 200
    bench.kill_file.unlink()
    bench.now += 1.0
    assert "t1" in bench.served()


def test_f77_a_kill_file_that_cannot_be_looked_up_counts_as_present(bench: Any) -> None:
    loop = bench.state.with_name("loop")
    loop.symlink_to(loop)
    bench.start(kill_file=loop / "KILL")
    assert bench.push()[0] == 503
    assert bench.served() == {None}


def test_f77_a_dangling_link_counts_as_a_kill_file(bench: Any) -> None:
    bench.push()
    bench.kill_file.symlink_to("nowhere")
    assert bench.start().handle("GET", "/live", {}, b"")[0] == 200
    assert bench.push()[0] == 503


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"text": '{"price":2.5}'}, "bounds"),
        ({"text": '{"price":NaN}'}, "bounds"),
        ({"text": '{"price":1.0,"discount":0.9}'}, "bounds"),
        ({"text": "{}"}, "bounds"),
        ({"ttl_s": 1e9}, "lease"),
        (
            {"placement": {"window": 1, "salt": "s", "slice": [0, 400_001], "control": [500_000, 600_000]}},
            "share",
        ),
    ],
)
def test_f78_the_module_has_the_last_word(bench: Any, fields: dict[str, Any], code: str) -> None:
    bench.start(max_share=0.4)
    status, answer = bench.push(**fields)
    assert (status, answer["outcome"], answer["detail"].partition(":")[0]) == (422, "refused", code)
    assert bench.served() == {None}
    assert bench.loaded.count(b'{"price":2.5}') == 0


def test_f78_the_share_counts_all_live_arms_of_the_campaign(bench: Any) -> None:
    bench.start(max_share=0.2)
    assert bench.push(trial=1)[0] == 200
    assert bench.push(trial=2)[0] == 200
    assert bench.push(trial=3)[1]["detail"].startswith("share: ")
    assert bench.push(trial=3, campaign="another")[0] == 200
    bench.withdraw(trial=1)
    assert bench.push(trial=4)[0] == 200


def test_a_check_that_breaks_refuses_and_says_how(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(artifact: Artifact) -> None:
        raise KeyError("price")

    for options in (
        {"accept": broken},
        {"load": lambda a: json.loads(a.body)["cost"] if b"5" in a.body else None},
    ):
        bench.start(**options)
        status, answer = bench.push()
        assert status == 422
        assert answer["detail"].startswith("bounds: the module's check failed with KeyError: ")
    assert "Traceback" in caplog.text


def test_a_refusal_gives_the_modules_own_reason(bench: Any) -> None:
    def never(artifact: Artifact) -> None:
        raise Refused("prices are frozen until Monday")

    bench.start(accept=never)
    assert bench.push()[1]["detail"] == "bounds: prices are frozen until Monday"


def test_f12_when_orders_cannot_be_written_nothing_new_is_served_and_withdrawals_still_stop(
    bench: Any,
) -> None:
    bench.push()
    beside = Path(f"{bench.state}.tmp")
    beside.symlink_to("/dev/full")  # a write fails, as on a full disk
    status, answer = bench.push(trial=2)
    assert (status, answer["outcome"], answer["detail"].partition(":")[0]) == (503, "unavailable", "state")
    assert [arm["trial"] for arm in bench.live()] == [1]
    assert bench.withdraw()[0] == 503
    assert bench.live() == []
    assert bench.push()[0] == 503
    assert bench.withdraw()[0] == 503  # still not durable, so still not confirmed
    beside.unlink()
    assert bench.withdraw()[1]["outcome"] == "repeated"
    bench.start()
    assert bench.push()[1]["detail"].startswith("withdrawn: ")
    assert bench.push(trial=2)[1]["outcome"] == "applied"


def test_f67_a_link_planted_beside_the_state_file_is_not_written_through(bench: Any) -> None:
    victim = bench.state.with_name("victim")
    victim.write_bytes(b"precious")
    Path(f"{bench.state}.tmp").symlink_to(victim)
    assert bench.push()[0] == 503
    assert victim.read_bytes() == b"precious"


def test_two_processes_cannot_share_a_state_file(bench: Any) -> None:
    with pytest.raises(ConfigurationError, match="in use"):
        Arms(accept=lambda _: None, incumbent=Artifact(b"{}"), secrets=[], state=bench.state)


def test_f11_a_forked_child_does_not_write_its_parents_state(bench: Any) -> None:
    bench.push()
    before = bench.state.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: the child only exits
        child = os.fork()
    if child == 0:
        os._exit(0 if bench.push(trial=2)[0] == 503 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bench.state.read_bytes() == before


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"format":3,"campaigns":{}}',
        b'{"format":1,"campaigns":{"c":{}}}',
        b'{"format":1,"campaigns":{"c":{"epoch":true,"window":0,"applied":{},"withdrawn":[]}}}',
    ],
)
def test_a_damaged_state_file_stops_the_start_and_is_left_alone(bench: Any, damaged: bytes) -> None:
    bench.arms.close()
    bench.state.write_bytes(damaged)
    with pytest.raises(ConfigurationError) as raised:
        bench.start()
    assert str(bench.state) in str(raised.value)
    assert bench.state.read_bytes() == damaged


def test_the_state_file_is_private_and_holds_no_secret(bench: Any, bodies: Any) -> None:
    bench.start(secrets=[SECRET])
    assert bench.post("/push", *signed(bench, bodies[0]()))[0] == 200
    assert bench.state.stat().st_mode & 0o077 == 0
    assert SECRET not in repr(vars(bench.arms)) + bench.state.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_share": 0.0}, "max_share"),
        ({"max_share": 1.1}, "max_share"),
        ({"max_ttl_s": 0}, "max_ttl_s"),
        ({"secrets": "one string"}, "secrets"),
        ({"secrets": [""]}, "secrets"),
        ({"secrets": ["whsec_"]}, "secrets"),
        ({"secrets": ["whsec_no*base64"]}, "secrets"),
    ],
)
def test_impossible_arguments(bench: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        bench.start(**options)
    assert "no*base64" not in str(raised.value)
