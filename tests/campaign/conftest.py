"""Throw-away plug-ins: a distribution written to disk and put on the path, found as any third party's is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MODULE = """
from __future__ import annotations
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from blackopt.protocols import OptimizerOptions, PluginOptions


class Nothing(PluginOptions):
    pass


class Linear(PluginOptions):
    inputs: int = Field(gt=0)
    outputs: int = Field(gt=0)
    bias: bool = True


class Policy:
    Options = Linear
    def __init__(self, options: Any, *, base: Path) -> None: ...
    def start(self) -> Any: ...
    def render(self, vector: Any) -> Any: ...
    def parse(self, artifact: Any) -> Any: ...


class ES(OptimizerOptions):
    population: int | None = None
    sigma: float = Field(default=0.1, gt=0)
    step: Literal["sgd", "adam"] = "sgd"


class Optimizer:
    Options = ES
    version = "1"
    def __init__(self, space: Any, start: Any, options: Any) -> None: ...
    @classmethod
    def load(cls, space: Any, options: Any, state: Any) -> Any: ...
    def ask(self, n: int) -> Any: ...
    def tell(self, evaluations: Any) -> None: ...
    def recommend(self) -> Any: ...
    def dump(self) -> Any: ...


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Retry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    times: int = 3
    token: SecretStr | None = None


class Web(PluginOptions):
    url: str
    secret: SecretStr | None = None
    headers: dict[str, SecretStr] = {}
    retry: Retry = Retry()
    colour: Colour = Colour.RED
    folder: Path = Path(".")
    sizes: tuple[int, ...] = ()
    mode: Literal["fast", "safe"] = "safe"

    @field_validator("url")
    @classmethod
    def _web(cls, url: str) -> str:
        if url == "explode":
            raise RuntimeError(f"cannot handle {url}")
        if not url.startswith("http"):
            raise ValueError(f"{url!r} is no address; its host would be {url[6:20].upper()}")
        return url

    @model_validator(mode="after")
    def _both(self) -> Web:
        if self.mode == "fast" and self.secret is not None:
            raise ValueError(f"fast takes no secret, got {self.secret.get_secret_value()}")
        return self


class Target:
    Options = Web
    def __init__(self, options: Any, *, base: Path) -> None: ...
    def check(self) -> str: ...
    def push(self, order: Any) -> Any: ...
    def withdraw(self, order: Any) -> Any: ...
    def adopt(self, order: Any) -> Any: ...
    def observe(self) -> Any: ...
    def incumbent(self, campaign: str) -> Any: ...
    def close(self) -> None: ...


class Db(PluginOptions):
    url: str = "db"


class Column(PluginOptions):
    query: Path


class Source:
    Options = Db
    MetricOptions = Column
    def __init__(self, options: Any, metrics: Mapping[str, Any], *, base: Path) -> None: ...
    def check(self) -> str: ...
    def read(self, query: Any) -> Any: ...
    def close(self) -> None: ...


class Call(PluginOptions):
    call: str
    workers: int = 1


class Evaluator:
    Options = Call
    slots = 1
    def __init__(self, options: Any, *, base: Path) -> None: ...
    def check(self) -> str: ...
    def push(self, order: Any) -> Any: ...
    def read(self, query: Any) -> Any: ...
    def close(self) -> None: ...


class Halfway:
    Options = Nothing
    def check(self) -> str: ...
    def read(self, query: Any) -> Any: ...


class Clock:
    Options = Nothing
    def __init__(self, options: Any) -> None: ...
    def now_us(self) -> int: ...
    def wait_until(self, until_us: int) -> None: ...


def function() -> None: ...
"""

ENTRY_POINTS = """
[blackopt.policies]
t-linear = throwaway_plugins:Policy
[blackopt.optimizers]
t-es = throwaway_plugins:Optimizer
[blackopt.connectors]
t-web = throwaway_plugins:Target
t-db = throwaway_plugins:Source
t-call = throwaway_plugins:Evaluator
t-halfway = throwaway_plugins:Halfway
t-function = throwaway_plugins:function
t-nothing = throwaway_plugins:Nothing2
t-gone = throwaway_gone:Anything
t-heavy = throwaway_heavy:Heavy
t-heavier = throwaway_heavier:Heavy
t-bomb = throwaway_bomb:Bomb
[blackopt.clocks]
t-clock = throwaway_plugins:Clock
"""

METADATA = """Metadata-Version: 2.1
Name: throwaway
Version: 1.2.3
Provides-Extra: deep
Requires-Dist: deep_absent>=2; extra == "deep"
"""

InstallDistribution = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstallDistribution:
    """Writes a distribution of a name, with entry points and modules, and puts it on the path."""

    def write(name: str, metadata: str, entry_points: str, modules: dict[str, str]) -> None:
        root = tmp_path / f"site-{name}"
        info = root / f"{name}-1.2.3.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(entry_points)
        for module, source in modules.items():
            (root / f"{module}.py").write_text(source)
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(root)

    return write


@pytest.fixture
def throwaway(install: InstallDistribution) -> None:
    """The plug-ins of this file, installed."""
    modules = {
        "throwaway_plugins": MODULE,
        "throwaway_heavy": "import deep_absent",
        "throwaway_heavier": "import unknown_absent.part",
        "throwaway_bomb": "raise RuntimeError('out of order')",
    }
    install("throwaway", METADATA, ENTRY_POINTS, modules)


@pytest.fixture
def campaign() -> str:
    """A complete campaign of the throw-away plug-ins; tests edit it line by line."""
    return """\
version: 1
name: email-offer
policy: {use: t-linear, inputs: 18, outputs: 3}
optimizer: {use: t-es, population: 16, sigma: 0.3, seed: 7}
push: {use: t-web, url: "http://127.0.0.1:8801/blackopt"}
measure:
  use: t-db
  metrics:
    visit_14d: {kind: proportion, query: queries/visits.sql, window: 14d, lag: 1h, min_units: 100}
    unsubscribe_14d: {kind: proportion, query: q.sql, window: 14d, lag: 1h}
objective: {maximize: visit_14d, relative_to: control}
guardrails: [{metric: unsubscribe_14d, at_most: "1.05 * control", min_units: 200}]
traffic: {unit: customer, share: 60%, control: 20%}
budget: {trials: 320, max_in_flight: 16}
schedule: {window: 1d, poll: 15m, deadline: 30d}
"""
