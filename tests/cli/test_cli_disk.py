"""The disk is full, or may not be written: a clear message, nothing lost, and the same command goes on."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blackopt import Ledger


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def run_to_the_end(folder: Any) -> None:
    answer = folder.call("run", "-q")
    assert answer.code == 0, answer.err


def whole(ledger: Path) -> list[int]:
    """The trials of a ledger that verifies, in the order in which they were told."""
    with Ledger.open(ledger) as opened:
        opened.verify()
        return [tell.trial for tell in opened.tells()]


def test_f12_a_full_disk_loses_nothing_and_the_run_goes_on(evaluation: Any, small_disk: Path) -> None:
    file = evaluation.path / "campaign.yaml"
    text = f"ledger: {small_disk}/pricing.db\n" + file.read_text()
    file.write_text(text)
    assert evaluation.call("run", "-q").code == 0
    told = whole(small_disk / "pricing.db")
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize))
    file.write_text(text.replace("trials: 6", "trials: 40"))
    answer = evaluation.run("run", "-q")
    assert answer.code == 75
    assert answer.err.startswith("error: The disk is full")
    assert "next:" in answer.err
    assert "Traceback" not in answer.err
    assert evaluation.call("status").code == 0, "reading works on a full disk"
    ballast.unlink()
    assert whole(small_disk / "pricing.db")[: len(told)] == told
    run_to_the_end(evaluation)
    assert len(whole(small_disk / "pricing.db")) == 42


def test_f12_a_file_that_may_not_grow_is_temporary_too(evaluation: Any) -> None:
    file = evaluation.path / "campaign.yaml"
    assert evaluation.call("run", "-q").code == 0
    ledger = evaluation.path / "pricing.db"
    told = whole(ledger)
    file.write_text(file.read_text().replace("trials: 6", "trials: 200"))
    limit = ledger.stat().st_size + 4096

    def capped() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    answer = evaluation.run("run", "-q", preexec_fn=capped)
    assert answer.code in (1, 75)
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err
    assert whole(ledger)[: len(told)] == told
    run_to_the_end(evaluation)
    assert sorted(whole(ledger)) == list(range(202))


def test_f18_a_read_only_folder_is_refused_before_any_evaluation(evaluation: Any) -> None:
    folder = evaluation.path / "fixed"
    folder.mkdir()
    bound = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if bound.returncode != 0:
        pytest.skip(f"a read-only file system cannot be mounted here: {bound.stderr.strip()}")
    try:
        file = evaluation.path / "campaign.yaml"
        file.write_text(f"ledger: {folder}/pricing.db\n" + file.read_text())
        answer = evaluation.call("run")
        assert answer.code == 1
        assert "cannot be written" in answer.err
        assert "nothing was" in answer.err
        assert "told" not in answer.err
    finally:
        subprocess.run(["umount", str(folder)], check=True)
