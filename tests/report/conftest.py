"""Campaigns whose report is worth a look, and a browser to look with."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from blackopt import Campaign
from blackopt.campaign import CampaignSpec, from_mapping
from blackopt.ledger.rows import NewTell
from blackopt.report.page import render
from blackopt.runner import manual
from blackopt.runner.assembly import Parts, create_ledger, drive, open_ledger
from blackopt.runner.notices import silent
from blackopt.testing.clock import FakeClock
from blackopt.testing.production import FakeProduction
from blackopt.types import Status

PRODUCTION: dict[str, Any] = {
    "version": 1,
    "name": "hill",
    "policy": {
        "use": "parameters",
        "space": {"x": {"float": [0, 1], "start": 0.2}, "y": {"float": [0, 1], "start": 0.2}},
    },
    "optimizer": {"use": "openai-es", "population": 8, "sigma": 0.15, "seed": 3},
    "push": {"use": "http", "url": "http://127.0.0.1:1/unused"},
    "measure": {
        "use": "sql",
        "url": "sqlite:///unused.db",
        "metrics": {
            "returned": {"kind": "proportion", "query": "unused.sql", "window": "7d"},
            "refund": {"kind": "proportion", "query": "unused.sql", "window": "7d", "min_units": 50},
        },
    },
    "objective": {"maximize": "returned", "relative_to": "control"},
    "guardrails": [{"metric": "refund", "at_most": "1.5 * control"}],
    "traffic": {"unit": "user", "share": "80%", "control": "20%", "arms": 8},
    "budget": {"trials": 48, "max_in_flight": 16, "confirm": 2, "breaches": 40},
    "schedule": {"window": "1d", "poll": "12h", "deadline": "30d", "lease": "2d"},
}

MANUAL: dict[str, Any] = {
    "version": 1,
    "name": "tasting",
    "policy": {
        "use": "parameters",
        "space": {"sugar": {"float": [0, 10]}, "salt": {"choice": ["<b>none</b>", "some"]}},
    },
    "optimizer": {"use": "random", "seed": 3},
    "objective": {"maximize": "score"},
    "budget": {"trials": 5000, "max_in_flight": 5000},
}


class InMemory(Parts):
    """A campaign's parts, with a production that fits in memory."""

    def __init__(self, spec: CampaignSpec, production: FakeProduction) -> None:
        super().__init__(spec, clock=production.clock)
        self.production = production

    def target(self) -> FakeProduction:
        return self.production

    def source(self) -> FakeProduction:
        return self.production


def hill(body: bytes) -> float:
    """True rate: best at (0.7, 0.6)."""
    p = json.loads(body)
    return 0.3 - 0.3 * ((p["x"] - 0.7) ** 2 + (p["y"] - 0.6) ** 2)


def rendered(spec: CampaignSpec) -> str:
    with Parts(spec) as parts, open_ledger(spec, read_only=True) as ledger:
        return render(parts, ledger)


@pytest.fixture(scope="session")
def production_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a campaign in production, finished, with a candidate that a guardrail stopped."""
    folder = tmp_path_factory.mktemp("production")
    (folder / "unused.sql").write_text("SELECT 1 AS n, 1 AS sum")
    spec, clock = from_mapping(PRODUCTION, base=folder), FakeClock()
    rates = {"returned": lambda rate: rate, "refund": lambda rate: 0.02 + 2 * max(0.0, 0.15 - rate)}
    production = FakeProduction(clock, hill, control_rate=0.2, metrics=rates)
    with InMemory(spec, production) as parts, drive(parts, silent) as runner:
        runner.start()
        runner.run()
    return rendered(spec)


@pytest.fixture(scope="session")
def evaluation_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a campaign with an evaluator."""
    ledger = tmp_path_factory.mktemp("evaluation") / "pricing.db"
    campaign = Campaign(
        name="pricing",
        maximize="profit",
        evaluate=lambda params: 100 - 400 * (params["discount"] - 0.18) ** 2,
        trials=30,
        confirm=2,
        optimizer={"use": "cma-es", "seed": 1},
        space={"discount": {"float": [0, 0.4]}, "reminders": {"int": [0, 8]}},
        ledger=ledger,
    )
    campaign.run()
    return rendered(campaign.spec)


@pytest.fixture(scope="session")
def told_by_hand(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The report of n trials that were told by hand, some of them with a cause."""

    def page(n: int, causes: dict[int, str] | None = None) -> str:
        causes = causes or {}
        spec = from_mapping(MANUAL, base=tmp_path_factory.mktemp("manual"))
        with Parts(spec, clock=FakeClock()) as parts:
            at_us = parts.clock.now_us()
            with create_ledger(spec, parts, at_us) as ledger:
                if n:
                    manual.ask(parts, ledger, n)
                tells = [
                    NewTell(i, Status.FAILED, cause=causes[i])
                    if i in causes
                    else NewTell(i, Status.OK, value=5 + (i * 37 % 101) / 50, se=0.2)
                    for i in range(n)
                ]
                with ledger.drive(at_us=at_us) as driver:
                    if tells:
                        driver.tell(tells, at_us=at_us)
        return rendered(spec)

    return page


@pytest.fixture(scope="session")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The page's document after a real browser has loaded it."""
    found = [
        path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))
    ]
    if not found:
        pytest.skip("there is no Chromium on this machine: `apt-get install chromium` brings one")

    def dom(page: str, *, width: int = 1200) -> str:
        folder = tmp_path_factory.mktemp("browser")
        (folder / "page.html").write_text(page, encoding="utf-8")
        command = [
            found[0], "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--dump-dom",
            (folder / "page.html").as_uri(),
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return dom
