"""A module under test with a clock in the test's hand, and short ways to order it about."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blackopt.serving import Arms, within
from blackopt.types import Artifact

INCUMBENT = Artifact(b'{"price":1.0}')
JSON_TYPE = {"Content-Type": "application/json"}


class Bench:
    """One module, restartable on the same state file. ``now`` is its clock, in seconds."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "arms.json"
        self.kill_file = folder / "KILL"
        self.now = 1000.0
        self.wall = 1_767_225_600.0
        self.loaded: list[bytes] = []
        self.arms: Arms[Any] = self.start()

    def start(self, **options: Any) -> Arms[Any]:
        if hasattr(self, "arms"):
            self.arms.close()
        defaults: dict[str, Any] = {
            "accept": within({"price": (0.5, 2.0)}),
            "incumbent": INCUMBENT,
            "secrets": [],
            "load": self.load,
            "state": self.state,
            "kill_file": self.kill_file,
            "clock": lambda: self.now,
            "wall": lambda: self.wall,
        }
        self.arms = Arms(**{**defaults, **options})
        return self.arms

    def load(self, artifact: Artifact) -> Any:
        self.loaded.append(artifact.body)
        return json.loads(artifact.body)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str]]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer = self.arms.handle("POST", path, JSON_TYPE if headers is None else headers, raw)
        return status, json.loads(answer)

    def push(self, **fields: Any) -> tuple[int, dict[str, str]]:
        return self.post("/push", push_body(**fields))

    def withdraw(self, **fields: Any) -> tuple[int, dict[str, str]]:
        return self.post("/withdraw", withdraw_body(**fields))

    def adopt(self, **fields: Any) -> tuple[int, dict[str, str]]:
        return self.post("/adopt", adopt_body(**fields))

    def incumbents(self) -> list[dict[str, Any]]:
        status, answer = self.arms.handle("GET", "/live", {}, b"")
        assert status == 200
        incumbents: list[dict[str, Any]] = json.loads(answer)["incumbents"]
        return incumbents

    def price(self, unit: str = "u10", campaign: str = "email-offer") -> float:
        price: float = self.arms.assign(campaign, unit).value["price"]
        return price

    def live(self) -> list[dict[str, Any]]:
        status, answer = self.arms.handle("GET", "/live", {}, b"")
        assert status == 200
        live: list[dict[str, Any]] = json.loads(answer)["live"]
        return live

    def served(self, campaign: str = "email-offer", units: int = 200) -> set[str | None]:
        return {self.arms.assign(campaign, f"u{i}").arm for i in range(units)}


def push_body(trial: int = 1, text: str = '{"price":1.5}', **fields: Any) -> dict[str, Any]:
    artifact = Artifact(text.encode())
    lower = 200_000 + 100_000 * trial
    return {
        "protocol": 1,
        "kind": "push",
        "campaign": "email-offer",
        "trial": trial,
        "arm": f"t{trial}",
        "epoch": 1,
        "ttl_s": 900.0,
        "artifact": {
            "media_type": artifact.media_type,
            "sha256": artifact.sha256,
            "body": base64.b64encode(artifact.body).decode(),
        },
        "placement": {"window": 1, "salt": "7.1", "slice": [lower, lower + 100_000], "control": [0, 200_000]},
        **fields,
    }


def withdraw_body(trial: int = 1, **fields: Any) -> dict[str, Any]:
    order = {"protocol": 1, "kind": "withdraw", "campaign": "email-offer", "trial": trial, "arm": f"t{trial}"}
    return {**order, "epoch": 1, **fields}


def adopt_body(number: int = 1, text: str = '{"price":1.25}', **fields: Any) -> dict[str, Any]:
    artifact = push_body(text=text)["artifact"]
    order = {"protocol": 1, "kind": "adopt", "campaign": "email-offer", "number": number, "epoch": 1}
    return {**order, "artifact": artifact, **fields}


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    bench = Bench(tmp_path)
    yield bench
    bench.arms.close()


@pytest.fixture(scope="session")
def bodies() -> tuple[Callable[..., dict[str, Any]], Callable[..., dict[str, Any]]]:
    """``(push_body, withdraw_body)``."""
    return push_body, withdraw_body


@pytest.fixture(scope="session")
def adoption() -> Callable[..., dict[str, Any]]:
    """The body of an adoption, field by field."""
    return adopt_body


@pytest.fixture(scope="session")
def new_bench() -> type[Bench]:
    """For tests that run many modules in one test."""
    return Bench
