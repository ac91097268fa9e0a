"""A small production campaign against a production that fits in memory, driven turn by turn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blackopt.campaign import CampaignSpec, from_mapping
from blackopt.ledger import Ledger
from blackopt.runner.assembly import Parts, create_ledger, open_ledger
from blackopt.runner.judge import Judge
from blackopt.runner.loop import Runner
from blackopt.runner.notices import Notice
from blackopt.runner.production import ProductionLane
from blackopt.testing.clock import FakeClock
from blackopt.testing.production import FakeProduction

DOCUMENT: dict[str, Any] = {
    "version": 1,
    "name": "hill",
    "policy": {
        "use": "parameters",
        "space": {"x": {"float": [0, 1], "start": 0.2}, "y": {"float": [0, 1], "start": 0.2}},
    },
    "optimizer": {"use": "openai-es", "population": 4, "sigma": 0.1, "seed": 3},
    "push": {"use": "http", "url": "http://127.0.0.1:1/unused"},
    "measure": {
        "use": "sql",
        "url": "sqlite:///unused.db",
        "metrics": {"success": {"kind": "proportion", "query": "unused.sql", "window": "2d", "lag": "1h"}},
    },
    "objective": {"maximize": "success", "relative_to": "control"},
    "traffic": {"unit": "user", "share": "80%", "control": "20%", "arms": 4},
    "budget": {"trials": 12, "max_in_flight": 8, "confirm": 1},
    "schedule": {"window": "1d", "poll": "12h", "deadline": "10d", "lease": "2d"},
}


def hill(body: bytes) -> float:
    """True success rate: best at (0.7, 0.6)."""
    p = json.loads(body)
    return 0.3 - 0.3 * ((p["x"] - 0.7) ** 2 + (p["y"] - 0.6) ** 2)


class Died(BaseException):
    """The process is gone; nothing of it may catch this."""


@dataclass
class Fuse:
    """Dies at the n-th call of what it guards: before it takes effect, or right after."""

    at: int
    after: bool
    calls: int = 0

    def guard(self, part: Any, methods: set[str]) -> Any:
        fuse = self

        class Guarded:
            def __getattr__(self, name: str) -> Any:
                value = getattr(part, name)
                if name not in methods:
                    return value

                def call(*args: Any, **kwargs: Any) -> Any:
                    fuse.calls += 1
                    if fuse.calls == fuse.at and not fuse.after:
                        raise Died
                    result = value(*args, **kwargs)
                    if fuse.calls == fuse.at and fuse.after:
                        raise Died
                    return result

                return call

        return Guarded()


WRITES = {
    "ask",
    "intend",
    "live",
    "retry",
    "renewed",
    "close",
    "withdrawn",
    "ingest",
    "polled",
    "tell",
    "snapshot",
    "set_mode",
    "start_promotion",
    "move_promotion",
    "adopt",
    "retry_adopt",
    "adopted",
}
ORDERS = {"push", "withdraw", "adopt"}


@dataclass
class World:
    """One campaign folder, one production, one clock; processes come and go."""

    folder: Path
    changes: Mapping[str, Any] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    rate: Callable[[bytes], float] = hill

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.production = FakeProduction(self.clock, self.rate, control_rate=0.2)
        self.document = merge(DOCUMENT, self.changes)
        (self.folder / "unused.sql").write_text("SELECT 1 AS n, 1 AS sum")

    @property
    def spec(self) -> CampaignSpec:
        return from_mapping(self.document, base=self.folder)

    @contextmanager
    def process(self, fuse: Fuse | None = None, *, resume: bool = False) -> Iterator[Runner]:
        """A process that drives the campaign; leaving it in any way frees its lock, as the kernel would."""
        spec = self.spec
        with Parts(spec, clock=self.clock) as parts:
            exists = spec.ledger.exists()
            with (
                open_ledger(spec) if exists else create_ledger(spec, parts, self.clock.now_us()) as ledger,
                ledger.drive(at_us=self.clock.now_us()) as driver,
            ):
                learner = parts.learner()
                learner.restore(ledger)
                guarded = fuse.guard(driver, WRITES) if fuse else driver
                target = fuse.guard(self.production, ORDERS) if fuse else self.production
                judge = Judge(spec)
                lane = ProductionLane(
                    spec, guarded, learner, parts.policy, target, self.production, judge, self.notices.append
                )
                runner = Runner(spec, guarded, learner, lane, self.clock, self.notices.append)
                runner.start(resume=resume)
                yield runner

    def finish(self) -> None:
        """Drive to the end, in one process."""
        with self.process() as runner:
            runner.run()

    def ledger(self) -> Ledger:
        return Ledger.open(self.spec.ledger, read_only=True)

    def facts(self) -> dict[str, Any]:
        """What must not depend on how often the process died."""
        with self.ledger() as ledger, Parts(self.spec, clock=self.clock) as parts:
            ledger.verify()
            learner = parts.learner()
            learner.restore(ledger)
            return {
                "tells": [
                    (t.seq, t.trial, t.status, t.value, t.se, t.obs_sha, t.at_us) for t in ledger.tells()
                ],
                "trials": [(t.number, t.vector_sha, t.window, t.slice, t.cause) for t in ledger.trials()],
                "events": [(e.kind, json.dumps(e.data, sort_keys=True)) for e in ledger.events()],
                "recommendation": learner.recommend().tolist(),
                "promotions": [(p.state, p.cause, p.vector_sha) for p in ledger.promotions()],
                "incumbents": [
                    (i.number, i.state, i.vector_sha, i.artifact_sha) for i in ledger.incumbents()
                ],
            }

    def copied(self, folder: Path) -> World:
        """The same world in another folder, as it stands between two processes."""
        twin = deepcopy(self)
        twin.folder = folder
        shutil.copytree(self.folder, folder)
        return twin


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with nested changes."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else value
    return result


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    """Worlds with changes to the campaign, each in its own folder."""
    made: list[Path] = []

    def make(**changes: Any) -> World:
        folder = tmp_path / f"world{len(made)}"
        folder.mkdir()
        made.append(folder)
        return World(folder, changes)

    return make


@pytest.fixture
def fuse() -> type[Fuse]:
    return Fuse


@pytest.fixture
def died() -> type[Died]:
    return Died
