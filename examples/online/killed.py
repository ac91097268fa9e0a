"""Process 3 of 3 is `blackopt run --once`, from cron. This plays cron, and then kills both processes at will.

    python killed.py [--directory runs/online] [--hours 48] [--kills 24] [--quick]

Two shops with the same visitors: one is left alone; in the other, the shop and the update are ended with
`kill -9` at moments of chance, and started again. Both must have learnt the same, to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import yaml

from blackopt import Campaign, Ledger
from online_app import world
from online_app.shop import START_US
from online_app.world import HOUR_US

HERE = Path(__file__).resolve().parent
BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


class Size(NamedTuple):
    """Of a run: hours of virtual time, visitors an hour, directions a window, and until when sales count."""

    hours: int
    visitors: int = 1_800
    directions: int = 32
    within: str = "12h"


QUICK = Size(3, visitors=240, directions=4, within="1h")


class Chance:
    """Decides who is killed, and when. Without kills left, nobody is."""

    def __init__(self, kills: int, seed: int = 1) -> None:
        self._draw, self.left, self.done = random.Random(seed), kills, 0

    def wait(self, process: subprocess.Popen[Any], mean_s: float) -> bool:
        """Every other time, let a process live for a random time and kill it; whether it was."""
        if self.left == 0 or self._draw.random() < 0.5:
            return False
        try:
            process.wait(self._draw.expovariate(1 / mean_s))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.left, self.done = self.left - 1, self.done + 1
            return True
        return False  # it was faster


class Shop:
    """The process `sample.py`; started again whenever it is found dead."""

    def __init__(self, directory: Path, *, seed: int, visitors: int, chance: Chance) -> None:
        self._command = [sys.executable, str(HERE / "sample.py"), "--directory", str(directory)]
        self._command += ["--seed", str(seed), "--visitors", str(visitors)]
        self._chance = chance
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._gone(self._process)

    def live(self, until_us: int) -> None:
        """Virtual time passes, whoever is killed meanwhile."""
        while True:
            assert self._process is not None
            answers: list[int] = []
            asking = threading.Thread(target=self._ask, args=(until_us, answers))
            asking.start()
            killed = self._chance.wait(self._process, 0.1)
            asking.join()
            if answers:
                assert answers == [until_us]
                if not killed:
                    return
            self._gone(self._process)
            self._start()

    def _ask(self, until_us: int, answers: list[int]) -> None:
        body = json.dumps({"until_us": until_us}).encode()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/clock", body, timeout=60) as answer:
                answers.append(json.load(answer)["now_us"])
        except (OSError, HTTPException, ValueError):
            return  # it was killed before it could say, or in the middle of it

    def _start(self) -> None:
        command = [*self._command, "--port", str(self.port)]  # the campaign knows one address
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert self._process.stdout is not None
        if not (address := self._process.stdout.readline().strip()):
            raise SystemExit("the shop did not start; its message is above")
        self.port = int(address.rpartition(":")[2])

    def _gone(self, process: subprocess.Popen[str]) -> None:
        process.wait(timeout=60)
        assert process.stdout is not None
        process.stdout.close()


def update(directory: Path, port: int, chance: Chance) -> None:
    """What cron calls: reads the log, tells, moves the centre, opens a window. Again, if it was killed."""
    environment = {**ENVIRONMENT, "SHOP_PORT": str(port)}
    while True:
        process = subprocess.Popen([*BLACKOPT, "run", "--once", "--quiet"], env=environment, cwd=directory)
        if chance.wait(process, 1.5):
            continue
        if process.wait(timeout=300) != 0:
            raise SystemExit(f"blackopt run --once ended with {process.returncode}; its message is above")
        return


def settle(directory: Path, directions: int, within: str) -> None:
    """A campaign with so many directions an hour, and purchases that count for so long."""
    path = directory / "campaign.yaml"
    document = yaml.safe_load(path.read_text())
    document["explore"]["directions"] = directions
    document["budget"]["max_in_flight"] = 14 * 2 * directions
    document["measure"]["metrics"]["bought"]["window"] = within
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def learn(directory: Path, size: Size, *, seed: int, chance: Chance) -> Campaign:
    """A shop from its beginning."""
    command = [sys.executable, str(HERE / "initialize.py"), "--directory", str(directory)]
    subprocess.run(command, check=True)
    settle(directory, size.directions, size.within)
    with Shop(directory, seed=seed, visitors=size.visitors, chance=chance) as shop:
        for hour in range(1, size.hours + 1):
            update(directory, shop.port, chance)
            shop.live(START_US + hour * HOUR_US)
        update(directory, shop.port, chance)
        return Campaign.load(directory / "campaign.yaml", env={**os.environ, "SHOP_PORT": str(shop.port)})


def learnt(campaign: Campaign) -> dict[str, Any]:
    """Everything that two runs must have in common."""
    with Ledger.open(campaign.ledger, read_only=True) as ledger:
        return {
            "candidates": [(each.number, each.keyed, each.window, each.slice) for each in ledger.trials()],
            "centres": ledger.centres(),
            "results": [(tell.trial, tell.value, tell.se) for tell in ledger.tells()],
            "recommendation": campaign.results().recommendation.tobytes(),
        }


def worth(campaign: Campaign) -> float:
    """What only a simulation knows: the true share of buyers with what was learnt."""
    found: Mapping[str, Any] = campaign.results().parameters
    return world.value({name: np.reshape(found[name], shape) for name, shape in world.SHAPES.items()})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path("runs/online"), help="a new one")
    parser.add_argument("--hours", type=int, default=48, help="of virtual time")
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=7, help="of visitors and coins")
    parser.add_argument("--quick", action="store_true", help="three hours, few visitors, and two kills")
    arguments = parser.parse_args()
    if arguments.directory.exists():
        parser.error(f"{arguments.directory} is there already; name a new directory")
    size, kills = (QUICK, 2) if arguments.quick else (Size(arguments.hours), arguments.kills)
    print(
        f"before: {world.value(world.incumbent()):.2%} of all visitors buy; {world.best():.2%} could",
        flush=True,
    )
    runs = {}
    for name, chance in (("left alone", Chance(0)), ("killed", Chance(kills))):
        directory = arguments.directory / name.replace(" ", "-")
        campaign = learn(directory, size, seed=arguments.seed, chance=chance)
        runs[name] = learnt(campaign)
        told = len(runs[name]["results"])
        print(
            f"{name}: {chance.done} kills, {told} candidates told, {worth(campaign):.2%} would buy",
            flush=True,
        )
    different = [fact for fact, found in runs["killed"].items() if found != runs["left alone"][fact]]
    print(f"they differ in {', '.join(different)}" if different else "both have learnt the same, to the bit")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
