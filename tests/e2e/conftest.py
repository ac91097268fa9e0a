"""The retention example, small: its campaign in a folder, and its app in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

RETENTION = Path(__file__).resolve().parents[2] / "examples" / "retention"
SMALLER = {"population: 16": "population: 8", "arms: 16": "arms: 8", "min_units: 100": "min_units: 10"}


@pytest.fixture
def small_campaign() -> Callable[[Path, Mapping[str, str]], Path]:
    """Write the example's campaign and queries, with fewer arms and further texts replaced."""

    def write(folder: Path, changes: Mapping[str, str]) -> Path:
        (folder / "queries").mkdir(parents=True)
        for query in RETENTION.glob("queries/*.sql"):
            (folder / "queries" / query.name).write_text(query.read_text())
        text = (RETENTION / "campaign.yaml").read_text()
        for old, new in {**SMALLER, **changes}.items():
            assert old in text, old
            text = text.replace(old, new)
        path = folder / "campaign.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def small_app() -> Callable[..., AbstractContextManager[dict[str, str]]]:
    """The app with few users, so that most of the time is blackopt's; gives the campaign's environment."""

    @contextmanager
    def running(folder: Path, users: int, *options: str) -> Iterator[dict[str, str]]:
        environment = {**os.environ, "APP_SECRET": "a secret of this test"}
        command = [sys.executable, str(RETENTION / "app.py"), "--directory", str(folder), "--seed", "5"]
        command += ["--users", str(users), *options]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            port = urlsplit(json.loads(process.stdout.readline())["address"]).port
            yield {**environment, "APP_PORT": str(port)}
        finally:
            process.terminate()
            process.wait(timeout=30)
            if process.stdout is not None:
                process.stdout.close()

    return running
