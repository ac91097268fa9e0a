"""The file target on a real directory."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blackopt.errors import ConfigurationError, OutcomeUnknown, RetriableError
from blackopt.protocols import Target
from blackopt.testing.targets import CAMPAIGN, TargetConformance, a_push, a_withdrawal, an_adoption
from blackopt.types import Outcome, Receipt
from blackopt_connectors.file import FileOptions, FileTarget


def a_target(base: Path, **more: Any) -> FileTarget:
    (base / "arms").mkdir(exist_ok=True)
    return FileTarget(FileOptions(directory=Path("arms")), base=base, **more)


class TestConformance(TargetConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> FileTarget:
        return a_target(tmp_path)

    @pytest.fixture
    def restart(self, tmp_path: Path) -> Callable[[], Target]:
        return lambda: a_target(tmp_path)


def test_the_file_is_the_body_of_the_push(tmp_path: Path) -> None:
    order = a_push(4, epoch=2)
    a_target(tmp_path).push(order)
    path = tmp_path / "arms" / "conformance" / "t4.json"
    body = json.loads(path.read_bytes())
    assert (body["protocol"], body["kind"], body["trial"], body["epoch"]) == (1, "push", 4, 2)
    assert body["artifact"]["sha256"] == order.artifact.sha256
    assert body["placement"]["slice"] == [140_000, 150_000]
    assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0
    assert [entry.name for entry in path.parent.iterdir() if entry.name.endswith(".tmp")] == []


def test_leases_are_counted_from_the_modification_time(tmp_path: Path) -> None:
    target = a_target(tmp_path, now=lambda: 1_000_100.0)
    target.push(a_push(1, ttl_s=300.0))
    path = tmp_path / "arms" / "conformance" / "t1.json"
    os.utime(path, (1_000_000, 1_000_000))
    assert [live.expires_in_s for live in target.observe()] == [200.0]
    os.utime(path, (999_000, 999_000))
    assert target.observe() == []


def test_f58_a_skewed_clock_never_lengthens_a_lease(tmp_path: Path) -> None:
    target = a_target(tmp_path, now=lambda: 0.0)
    target.push(a_push(1, ttl_s=300.0))
    assert [live.expires_in_s for live in target.observe()] == [300.0]


def test_the_fence_and_the_withdrawals_outlive_the_process(tmp_path: Path) -> None:
    a_target(tmp_path).push(a_push(1, epoch=7))
    a_target(tmp_path).withdraw(a_withdrawal(1, epoch=7))
    again = a_target(tmp_path)
    assert again.push(a_push(2, epoch=6)).detail.startswith("fenced")
    assert again.push(a_push(1, epoch=8)).detail.startswith("withdrawn")


def test_f67_links_are_not_followed(tmp_path: Path) -> None:
    target = a_target(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "arms" / "conformance").symlink_to(outside)
    with pytest.raises(ConfigurationError):
        target.push(a_push(1))
    assert list(outside.iterdir()) == []
    assert target.observe() == []
    (tmp_path / "arms" / "conformance").unlink()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target.push(a_push(2))
    (tmp_path / "arms" / "conformance" / "t1.json").symlink_to(victim)
    target.push(a_push(1))
    assert victim.read_text() == "precious"
    assert sorted(live.trial for live in target.observe()) == [1, 2]


def test_a_missing_directory_is_never_created(tmp_path: Path) -> None:
    target = FileTarget(FileOptions(directory=Path("tpyo")), base=tmp_path)
    for call in (target.check, target.observe, lambda: target.push(a_push(1))):
        with pytest.raises(ConfigurationError, match="cannot be used") as caught:
            call()
        assert str(tmp_path) not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_f12_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = a_target(tmp_path)
    target.push(a_push(1, ttl_s=100.0))
    before = (tmp_path / "arms" / "conformance" / "t1.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RetriableError, match="could not be written") as caught:
        target.push(a_push(1, ttl_s=200.0))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert (tmp_path / "arms" / "conformance" / "t1.json").read_bytes() == before
    assert not list((tmp_path / "arms" / "conformance").glob("*.tmp"))


def test_a_directory_that_is_not_confirmed_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = a_target(tmp_path)
    target.push(a_push(1))
    real = os.fsync

    def broken(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OutcomeUnknown):
        target.push(a_push(1, ttl_s=200.0))


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '{"protocol": 2}', '{"protocol": 1, "campaign": "x"}']
)
def test_a_foreign_file_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    target = a_target(tmp_path)
    target.push(a_push(1))
    path = tmp_path / "arms" / "conformance" / "t2.json"
    path.write_text(text)
    with pytest.raises(RetriableError) as caught:
        target.observe()
    assert caught.value.where == "arms/conformance/t2.json"
    assert path.read_text() == text
    assert target.push(a_push(2)).outcome is Outcome.APPLIED
    assert len(target.observe()) == 2


def test_f10_an_order_waits_for_the_order_before_it_and_then_meets_its_fence(tmp_path: Path) -> None:
    """Comparing with the fence and writing do not interleave with those of a newer driver."""
    target = a_target(tmp_path)
    target.push(a_push(1, epoch=1))
    folder = tmp_path / "arms" / "conformance"
    receipts: list[Receipt] = []
    old = threading.Thread(target=lambda: receipts.append(target.push(a_push(2, epoch=1))))
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old.start()
        old.join(0.1)  # time for an order that does not wait
        (folder / ".fence").write_text("2\n")
    old.join()
    assert [receipt.outcome for receipt in receipts] == [Outcome.REFUSED]
    assert not (folder / "t2.json").exists()


def test_the_incumbent_file_is_the_body_of_the_adoption(tmp_path: Path) -> None:
    target, order = a_target(tmp_path), an_adoption(3, epoch=2)
    target.adopt(order)
    path = tmp_path / "arms" / "conformance" / "incumbent"
    body = json.loads(path.read_bytes())
    assert (body["protocol"], body["kind"], body["number"], body["epoch"]) == (1, "adopt", 3, 2)
    assert body["artifact"]["sha256"] == order.artifact.sha256
    assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0
    # An arm may have any name, so it must not be taken for the incumbent, nor the incumbent for it.
    target.push(replace(a_push(1, epoch=2), arm="incumbent"))
    assert [live.arm for live in target.observe()] == ["incumbent"]
    assert target.incumbent(CAMPAIGN) == (3, order.artifact.sha256)
    assert json.loads(path.read_bytes()) == body


def test_a_campaign_that_was_never_ordered_anything_has_no_incumbent(tmp_path: Path) -> None:
    assert a_target(tmp_path).incumbent("never-seen") is None
    assert a_target(tmp_path).incumbent("../up") is None
    assert list((tmp_path / "arms").iterdir()) == []


def test_f12_a_full_disk_leaves_the_old_incumbent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = a_target(tmp_path)
    target.adopt(an_adoption(1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RetriableError, match="could not be written") as caught:
            target.adopt(an_adoption(2))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert target.incumbent(CAMPAIGN) == (1, an_adoption(1).artifact.sha256)
    assert not list((tmp_path / "arms" / "conformance").glob("*.tmp"))
    assert target.adopt(an_adoption(2)).outcome is Outcome.APPLIED


def test_an_adoption_that_is_not_confirmed_is_unknown_until_the_disk_confirms_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = a_target(tmp_path)
    target.push(a_push(1))
    real = os.fsync

    def broken(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        for _ in range(2):  # the repeat finds the file, and knows no better whether it would survive
            with pytest.raises(OutcomeUnknown):
                target.adopt(an_adoption(1))
    assert target.adopt(an_adoption(1)).outcome is Outcome.REPEATED


@pytest.mark.parametrize(
    "change",
    [
        {"campaign": "another"},
        {"kind": "push"},
        {"protocol": 2},
        {"number": "one"},
        {"artifact": {"body": "e30=", "sha256": "0" * 64, "media_type": "application/json"}},
        {"artifact": {"body": "*", "sha256": "0" * 64, "media_type": "application/json"}},
        {"artifact": None},
    ],
)
def test_a_foreign_incumbent_file_is_named_and_left_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    target = a_target(tmp_path)
    target.adopt(an_adoption(1))
    path = tmp_path / "arms" / "conformance" / "incumbent"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    before = path.read_bytes()
    for call in (lambda: target.incumbent(CAMPAIGN), lambda: target.adopt(an_adoption(2))):
        with pytest.raises(RetriableError, match="no adoption") as caught:
            call()
        assert caught.value.where == "arms/conformance/incumbent"
    assert path.read_bytes() == before
    assert len(target.observe()) == 0


def test_f10_an_adoption_waits_for_the_order_before_it_and_then_meets_its_fence(tmp_path: Path) -> None:
    target = a_target(tmp_path)
    target.adopt(an_adoption(1, epoch=1))
    folder = tmp_path / "arms" / "conformance"
    receipts: list[Receipt] = []
    old = threading.Thread(target=lambda: receipts.append(target.adopt(an_adoption(2, epoch=1))))
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old.start()
        old.join(0.1)  # time for an order that does not wait
        (folder / ".fence").write_text("2\n")
    old.join()
    assert [receipt.outcome for receipt in receipts] == [Outcome.REFUSED]
    assert target.incumbent(CAMPAIGN) == (1, an_adoption(1).artifact.sha256)


def test_trials_withdrawn_in_any_order_stay_so_and_are_written_as_ranges(tmp_path: Path) -> None:
    target, trials = a_target(tmp_path), [5, 3, 4, 9, 1, 2, 7]
    for trial in trials:
        target.withdraw(a_withdrawal(trial))
    assert (tmp_path / "arms" / "conformance" / ".withdrawn").read_text() == "1-5\n7\n9\n"
    for trial in range(1, 11):
        refused = target.push(a_push(trial)).outcome is Outcome.REFUSED
        assert refused == (trial in trials)
