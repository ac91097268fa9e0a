"""The app of examples/retention: determinism, honest SQL, a truth that its users obey, and its landscape."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blackopt.serving import sign
from blackopt.traffic import allocate

EXAMPLE = Path(__file__).parents[2] / "examples" / "retention"
DAY = 86_400_000_000
HOUR = DAY // 24
MONDAY = 19_723 * DAY
CAMPAIGN = "retention-demo"
SECRET = "whsec_" + base64.b64encode(b"a secret of this test").decode()
METRICS = ("finished_d1", "retention_d7", "mute_3h", "unsubscribe_7d")
KINDS = ("browse", "finish", "mute", "unsubscribe", "visit")


@pytest.fixture(scope="module")
def app() -> Iterator[SimpleNamespace]:
    """The example's modules, which are importable from its own directory only."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        from retention_app import behaviour, cohort, earlier, log, pipeline, truth, world

        yield SimpleNamespace(
            behaviour=behaviour,
            cohort=cohort,
            earlier=earlier,
            log=log,
            pipeline=pipeline,
            truth=truth,
            world=world,
        )
    finally:
        sys.path.remove(str(EXAMPLE))


def order(
    trial: int, window: int, body: bytes, *, arms: int = 3, epoch: int = 1, ttl_s: float = 86_400.0
) -> bytes:
    """A push of protocol 1 for arm ``trial % arms`` of a window."""
    control, slices = allocate(900_000, 250_000, arms)
    part = slices[trial % arms]
    artifact = {
        "media_type": "application/json",
        "sha256": hashlib.sha256(body).hexdigest(),
        "body": base64.b64encode(body).decode(),
    }
    placement = {
        "window": window,
        "salt": f"7.{window}",
        "slice": [part.lower, part.upper],
        "control": [control.lower, control.upper],
    }
    document = {"protocol": 1, "kind": "push", "campaign": CAMPAIGN, "trial": trial, "arm": f"t{trial}"}
    document |= {"epoch": epoch, "ttl_s": ttl_s, "artifact": artifact, "placement": placement}
    return json.dumps(document).encode()


def headers(key: str, raw: bytes, secret: str = SECRET) -> dict[str, str]:
    now = int(time.time())
    return {
        "Content-Type": "application/json",
        "Idempotency-Key": key,
        "webhook-id": key,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secret, key, now, raw),
    }


def candidates(app: SimpleNamespace, n: int) -> list[bytes]:
    draw = np.random.default_rng(11)
    return [
        app.pipeline.Configuration(
            tuple(draw.normal(0.5, 0.5, 5).tolist()), float(draw.uniform()), float(draw.uniform(0.2, 0.8))
        ).body()
        for _ in range(n)
    ]


def push(world: Any, trial: int, window: int, body: bytes, **rest: Any) -> tuple[int, str]:
    raw = order(trial, window, body, **rest)
    status, answer = world.handle("POST", "/blackopt/push", headers(f"key-{trial}", raw), raw)
    return status, json.loads(answer)["outcome"]


def adopt(world: Any, number: int, body: bytes) -> tuple[int, str]:
    artifact = json.loads(order(0, 1, body))["artifact"]
    document = {"protocol": 1, "kind": "adopt", "campaign": CAMPAIGN, "number": number, "epoch": 1}
    raw = json.dumps({**document, "artifact": artifact}).encode()
    status, answer = world.handle("POST", "/blackopt/adopt", headers(f"adopt-{number}", raw), raw)
    return status, json.loads(answer)["outcome"]


def rows(database: Path) -> list[tuple[Any, ...]]:
    """What the log says, without the module's journal: repeated orders are in it, and change nothing else."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        found: list[tuple[Any, ...]] = []
        for table in ("exposures", "events", "watermark"):
            found += sorted(db.execute(f"SELECT '{table}', * FROM {table}"))
        return found


def play(
    app: SimpleNamespace,
    directory: Path,
    *,
    steps: Sequence[int],
    days: int = 9,
    reverse: bool = False,
    restart: bool = False,
    adopts: bool = False,
) -> list[tuple[Any, ...]]:
    """Two windows of three arms, then waiting; time moves in the given steps, cut at each midnight."""
    directory.mkdir()
    bodies = candidates(app, 6)

    def start() -> Any:
        return app.world.World(directory, seed=3, users=400, secrets=(SECRET,))

    world = start()
    for day in range(days):
        trials = range(3 * day, 3 * day + 3) if day < 2 else []
        for trial in reversed(trials) if reverse else trials:
            assert push(world, trial, day + 1, bodies[trial])[0] == 200
        if adopts and day in (0, 1):
            assert adopt(world, day + 1, bodies[5 * day]) == (200, "applied")
        midnight = world.now_us // DAY * DAY + DAY
        step = 0
        while world.now_us < midnight:
            world.advance(min(world.now_us + steps[step % len(steps)], midnight))
            step += 1
            if restart:
                world.close()
                world = start()
    world.close()
    return rows(directory / "app.db")


def test_the_log_is_the_same_for_one_big_step_and_many_odd_ones(app: SimpleNamespace, tmp_path: Path) -> None:
    big = play(app, tmp_path / "big", steps=[DAY])
    small = play(app, tmp_path / "small", steps=[HOUR + 17, 5 * HOUR + 1, 13])
    assert {row[0] for row in big} == {"exposures", "events", "watermark"}
    assert big == small


def test_the_log_does_not_depend_on_the_order_of_pushes_of_one_moment(
    app: SimpleNamespace, tmp_path: Path
) -> None:
    assert play(app, tmp_path / "a", steps=[DAY]) == play(app, tmp_path / "b", steps=[DAY], reverse=True)


def test_a_new_process_goes_on_with_the_same_log(app: SimpleNamespace, tmp_path: Path) -> None:
    whole = play(app, tmp_path / "whole", steps=[DAY])
    assert whole == play(app, tmp_path / "pieces", steps=[7 * HOUR], restart=True)


def test_an_adopted_incumbent_is_what_the_control_gets_and_the_journal_brings_it_back(
    app: SimpleNamespace, tmp_path: Path
) -> None:
    without = play(app, tmp_path / "without", steps=[DAY])
    whole = play(app, tmp_path / "whole", steps=[DAY], adopts=True)
    assert whole == play(app, tmp_path / "pieces", steps=[7 * HOUR], restart=True, adopts=True)
    # Who is exposed to what is the same; what the control does afterwards is not, and nobody else changes.
    exposures = [row for row in whole if row[0] == "exposures"]
    assert exposures == [row for row in without if row[0] == "exposures"]
    control = {row[3] for row in exposures if row[4] == "control"}
    changed = {row[1] for row in set(whole) ^ set(without)}
    assert changed
    assert changed <= control


def test_another_seed_or_incumbent_is_refused_on_the_same_directory(
    app: SimpleNamespace, tmp_path: Path
) -> None:
    first = app.world.World(tmp_path, seed=3, users=400)
    first.close()
    with pytest.raises(app.log.OtherRunError, match="another directory"):
        app.world.World(tmp_path, seed=4, users=400)
    with pytest.raises(app.log.OtherRunError, match="another directory"):
        app.world.World(tmp_path, seed=3, users=400, incumbent=app.truth.optimum())
    units = [app.cohort.Cohort(seed, 19_723, 50).arrivals.tolist() for seed in (3, 4)]
    assert units[0] != units[1]


def test_time_never_goes_back_and_a_repeated_request_changes_nothing(
    app: SimpleNamespace, tmp_path: Path
) -> None:
    world = app.world.World(tmp_path, seed=3, users=400, secrets=(SECRET,))
    push(world, 0, 1, candidates(app, 1)[0])
    assert world.advance(MONDAY + 5 * HOUR) == MONDAY + 5 * HOUR
    before = rows(tmp_path / "app.db")
    assert world.advance(MONDAY + 5 * HOUR) == MONDAY + 5 * HOUR
    assert world.advance(MONDAY) == MONDAY + 5 * HOUR
    assert rows(tmp_path / "app.db") == before
    # A request moves time by a day at most; the caller repeats it.
    assert world.advance(MONDAY + 30 * DAY) == MONDAY + DAY + 5 * HOUR
    world.close()


def test_an_arm_ends_with_its_lease_at_the_exact_moment(app: SimpleNamespace, tmp_path: Path) -> None:
    world = app.world.World(tmp_path, seed=3, users=3_000, secrets=(SECRET,))
    push(world, 0, 1, candidates(app, 1)[0], ttl_s=10 * 3600.0 + 0.5)
    world.advance(MONDAY + DAY)
    world.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as db:
        last, first = db.execute("SELECT max(t_us), min(t_us) FROM exposures").fetchone()
    cohort = app.cohort.Cohort(3, 19_723, round(3_000 * 0.94))
    later = cohort.arrivals[cohort.arrivals >= MONDAY + 10 * HOUR + 500_000]
    assert MONDAY <= first <= last < MONDAY + 10 * HOUR + 500_000
    assert len(later) > 1_000


# -- orders ------------------------------------------------------------------------------------------------


def test_orders_are_counted_and_what_is_refused_is_not_served(app: SimpleNamespace, tmp_path: Path) -> None:
    world = app.world.World(tmp_path, seed=3, users=400, secrets=(SECRET,))
    body = candidates(app, 1)[0]
    assert push(world, 0, 1, body) == (200, "applied")
    assert push(world, 0, 1, body) == (200, "repeated")
    assert push(world, 0, 1, body, epoch=2) == (200, "repeated")
    assert push(world, 1, 1, body, epoch=1)[0] == 409  # a newer driver has spoken
    too_far = dataclasses.replace(app.pipeline.INCUMBENT, weights=(7.0, 0.0, 0.0, 0.0, 0.0))
    assert push(world, 2, 1, too_far.body(), epoch=2)[0] == 422
    raw = order(1, 1, body, epoch=2)
    assert world.handle("POST", "/blackopt/push", headers("k", raw, "whsec_" + "AAAA" * 8), raw)[0] == 401
    world.advance(MONDAY + DAY)
    assert world.health()["refused"] == 3
    world.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as db:
        applied = db.execute(
            "SELECT trial, epoch, kind, times, repeats FROM applied ORDER BY epoch"
        ).fetchall()
        assert applied == [(0, 1, "push", 1, 1), (0, 2, "push", 0, 1)]
        arms = {arm for (arm,) in db.execute("SELECT DISTINCT arm FROM exposures")}
        assert arms == {"control", "t0"}


@pytest.mark.parametrize(
    "damage",
    [
        {"weights": [[1.0, 2.0]]},
        {"weights": [[math.nan, 0.0, 0.0, 0.0, 0.0]]},
        {"weights": [[0.0, 0.0, 0.0, 0.0, -6.1]]},
        {"parameters": {"diversity": 0.5, "throttle": 1.01}},
        {"parameters": {"diversity": 0.5}},
        {"bias": [0.1]},
        {"inputs": ["quality", "affinity", "freshness", "popularity", "sensation"]},
    ],
)
def test_the_module_refuses_what_it_must_not_serve(app: SimpleNamespace, damage: dict[str, Any]) -> None:
    document = json.loads(app.pipeline.INCUMBENT.body())
    assert app.pipeline.parse(json.dumps(document).encode()) == app.pipeline.INCUMBENT
    with pytest.raises(app.pipeline.BadConfigurationError):
        app.pipeline.parse(json.dumps(document | damage).encode())


def test_the_policy_of_the_campaign_starts_at_the_incumbent_to_the_byte(app: SimpleNamespace) -> None:
    import yaml

    from blackopt_policies.linear import Linear, LinearOptions

    document = yaml.safe_load((EXAMPLE / "campaign.yaml").read_text())["policy"]
    options = LinearOptions.model_validate({key: value for key, value in document.items() if key != "use"})
    policy = Linear(options, base=EXAMPLE)
    assert policy.render(policy.start()).body == app.pipeline.INCUMBENT.body()


# -- the process -------------------------------------------------------------------------------------------


class Process:
    """The app as a process of its own, and a client of it."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, str(EXAMPLE / "app.py"), "--directory", str(directory), "--seed", "3"]
        self.popen = subprocess.Popen(
            [*command, "--users", "4000"], env={**os.environ, "APP_SECRET": SECRET}, stdout=subprocess.PIPE
        )
        assert self.popen.stdout is not None
        self.address = json.loads(self.popen.stdout.readline())["address"]

    def request(self, path: str, raw: bytes | None = None, key: str = "") -> tuple[int, Any]:
        sent = headers(key, raw) if raw is not None else headers("probe", b"")
        request = urllib.request.Request(self.address + path, data=raw, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def advance(self, until_us: int) -> int:
        status, answer = self.request("/clock", json.dumps({"until_us": until_us}).encode(), "clock")
        assert status == 200
        return int(answer["now_us"])

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        return self.popen.wait(timeout=30)


@contextlib.contextmanager
def process(directory: Path) -> Iterator[Process]:
    running = Process(directory)
    try:
        yield running
    finally:
        running.stop(signal.SIGKILL)


def test_f39_f76_killed_in_the_middle_of_a_request_the_app_goes_on_to_the_same_log(
    app: SimpleNamespace, tmp_path: Path
) -> None:
    bodies = candidates(app, 3)
    (tmp_path / "quiet").mkdir()
    world = app.world.World(tmp_path / "quiet", seed=3, users=4000, secrets=(SECRET,))
    for trial in range(3):
        push(world, trial, 1, bodies[trial])
    while world.now_us < MONDAY + 9 * DAY:
        world.advance(MONDAY + 9 * DAY)
    world.close()

    with process(tmp_path / "killed") as first:
        for trial in range(3):
            status, answer = first.request("/blackopt/push", order(trial, 1, bodies[trial]), f"key-{trial}")
            assert (status, answer["outcome"]) == (200, "applied")
        body = json.dumps({"until_us": MONDAY + DAY}).encode()
        request = urllib.request.Request(first.address + "/clock", data=body)
        helper = subprocess.Popen(  # sends the request, so that this process can kill the app meanwhile
            [sys.executable, "-c", _SENDER, request.full_url, body.decode()], stderr=subprocess.DEVNULL
        )
        database = sqlite3.connect(tmp_path / "killed" / "app.db", timeout=30.0)
        give_up = time.monotonic() + 30.0
        while time.monotonic() < give_up:  # until the first transaction of the day is there
            if database.execute("SELECT at_us FROM watermark").fetchone()[0] > MONDAY:
                break
        database.close()
        first.stop(signal.SIGKILL)
        helper.wait(timeout=30)
    with process(tmp_path / "killed") as second:
        now_us = second.request("/health")[1]["now_us"]
        assert now_us > MONDAY
        rest = order(1, 1, bodies[1], ttl_s=(MONDAY + DAY - now_us) / 1e6)
        status, answer = second.request("/blackopt/push", rest, "key-1")
        assert status == 200
        assert answer["outcome"] == "repeated"
        assert second.request("/nothing")[0] == 404
        while second.advance(MONDAY + 9 * DAY) < MONDAY + 9 * DAY:
            pass
        assert second.request("/clock")[1] == {"now_us": MONDAY + 9 * DAY}
        assert second.stop() == 0
    assert rows(tmp_path / "killed" / "app.db") == rows(tmp_path / "quiet" / "app.db")


_SENDER = (
    "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], data=sys.argv[2].encode(), timeout=30)"
)


# -- the queries -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(app: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Arms t0, t1, t2 in window 1 and t3, t4, t5 in window 2; the log goes on until noon of day 11."""
    directory = tmp_path_factory.mktemp("simulated")
    world = app.world.World(directory, seed=5, users=12_000, secrets=(SECRET,))
    configurations = [
        app.pipeline.INCUMBENT,
        dataclasses.replace(app.pipeline.INCUMBENT, throttle=0.0),
        app.truth.optimum(),
    ]
    for day in range(2):
        for trial in range(3 * day, 3 * day + 3):
            assert push(world, trial, day + 1, configurations[trial % 3].body())[0] == 200
        world.advance(MONDAY + (day + 1) * DAY)
    while world.now_us < MONDAY + 10 * DAY + DAY // 2:
        world.advance(MONDAY + 10 * DAY + DAY // 2)
    world.close()
    return SimpleNamespace(database=directory / "app.db", configurations=configurations)


Row = tuple[int, ...]
"""n, sum, and of the objective what its covariate adds; and what time the log knows."""

COLUMNS = ("arm", "n", "sum", "as_of")
ADJUSTED = ("arm", "n", "sum", "sum_sq", "cov_sum", "cov_sum_sq", "num_cov", "as_of")


def ask(database: Path, metric: str, window: int, as_of: int, span: tuple[int, int]) -> dict[str, Row]:
    query = (EXAMPLE / "queries" / f"{metric}.sql").read_text()
    bound = {"campaign": CAMPAIGN, "window": window, "as_of": as_of}
    bound |= {"window_start": span[0], "window_end": span[1]}
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        cursor = db.execute(query, bound)
        columns = tuple(column[0] for column in cursor.description)
        assert columns == (ADJUSTED if metric == "retention_d7" else COLUMNS)
        return {arm: tuple(rest) for arm, *rest in cursor}


@functools.cache
def raw(database: Path) -> tuple[int, list[tuple[Any, ...]], dict[tuple[int, str], list[int]]]:
    """The log in memory: its watermark, its exposures, and the times of each unit's events by kind."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        events: dict[tuple[int, str], list[int]] = {}
        for unit, kind, t_us in db.execute("SELECT unit, kind, t_us FROM events"):
            events.setdefault((unit, kind), []).append(t_us)
        exposures = db.execute("SELECT campaign, window, arm, unit, t_us FROM exposures").fetchall()
        return db.execute("SELECT at_us FROM watermark").fetchone()[0], exposures, events


def by_hand(database: Path, metric: str, window: int, as_of: int, span: tuple[int, int]) -> dict[str, Row]:
    """The same from the raw rows, unit by unit, with dates instead of arithmetic on microseconds."""
    watermark, everything, events = raw(database)
    as_of = min(as_of, watermark)
    found: dict[str, list[int]] = {}
    for campaign, number, arm, unit, t_us in everything:
        if campaign != CAMPAIGN or number != window or not span[0] <= t_us < span[1]:
            continue
        complete, hit = _outcome(metric, unit, t_us, as_of, events)
        if not complete:
            continue
        values = [1, hit]
        if metric == "retention_d7":
            before = sum(t_us - 7 * DAY <= at < t_us for at in events.get((unit, "browse"), []))
            values += [hit, before, before**2, hit * before]
        found[arm] = [a + b for a, b in zip(found.get(arm, [0] * len(values)), values, strict=True)]
    return {arm: (*values, as_of) for arm, values in found.items()}


def _outcome(
    metric: str, unit: int, t_us: int, as_of: int, events: dict[tuple[int, str], list[int]]
) -> tuple[bool, bool]:
    """Whether all is known of a unit, and whether it did what the metric is about."""
    for name, kind, span in (("unsubscribe_7d", "unsubscribe", 7 * DAY), ("mute_3h", "mute", 3 * HOUR)):
        if metric == name:
            return t_us + span <= as_of, any(t_us <= at < t_us + span for at in events.get((unit, kind), []))
    day = np.datetime64(t_us, "us").astype("datetime64[D]") + int(metric.rpartition("d")[2])
    complete = (day + 1).astype("datetime64[us]").astype(np.int64) <= as_of
    dates = [
        np.datetime64(at, "us").astype("datetime64[D]")
        for at in events.get((unit, "finish" if metric == "finished_d1" else "visit"), [])
    ]
    if metric == "finished_d1":
        return bool(complete), any(date <= day for date in dates)
    return bool(complete), day in dates


WINDOWS = {1: (MONDAY, MONDAY + DAY), 2: (MONDAY + DAY, MONDAY + 2 * DAY)}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("after", [12 * HOUR, 2 * DAY, 7 * DAY + 14 * HOUR, 8 * DAY - 1, 8 * DAY, 30 * DAY])
def test_queries_agree_with_a_count_by_hand(simulated: SimpleNamespace, metric: str, after: int) -> None:
    for window, span in WINDOWS.items():
        got = ask(simulated.database, metric, window, MONDAY + after, span)
        assert got == by_hand(simulated.database, metric, window, MONDAY + after, span)


def test_incomplete_units_are_not_counted_as_lost(simulated: SimpleNamespace) -> None:
    span = WINDOWS[1]
    exposed = counted(ask(simulated.database, "finished_d1", 1, MONDAY + 9 * DAY, span))
    assert ask(simulated.database, "retention_d7", 1, MONDAY + 8 * DAY - 1, span) == {}
    assert counted(ask(simulated.database, "retention_d7", 1, MONDAY + 8 * DAY, span)) == exposed
    for metric, after in (("unsubscribe_7d", 7 * DAY), ("mute_3h", 0)):
        some = ask(simulated.database, metric, 1, MONDAY + after + 14 * HOUR, span)
        assert 0 < counted(some) < exposed
    # The log never claims to know more than it does.
    noon = MONDAY + 10 * DAY + DAY // 2
    late = ask(simulated.database, "retention_d7", 1, MONDAY + 30 * DAY, span)
    assert {row[-1] for row in late.values()} == {noon}


def counted(found: dict[str, Row]) -> int:
    return sum(row[0] for row in found.values())


def test_queries_look_at_their_own_days_only(app: SimpleNamespace, tmp_path: Path) -> None:
    """Events just outside each bound, written by hand."""
    late, early = MONDAY + 22 * HOUR, MONDAY + HOUR
    log = app.log.EventLog(tmp_path / "app.db", {}, MONDAY)
    exposures = [(CAMPAIGN, 1, unit, "t0", early if unit < 5 else late) for unit in range(10)]
    exposures.append(("another", 1, 0, "t0", early))
    events = [
        (0, "visit", MONDAY + 7 * DAY - 1),  # day 6, six days and 23 hours after the first open
        (1, "visit", MONDAY + 7 * DAY),
        (2, "visit", MONDAY + 8 * DAY - 1),  # more than 7 times 24 hours later, and day 7
        (2, "visit", MONDAY + 8 * DAY - 2),  # twice on the day is once
        (3, "visit", MONDAY + 8 * DAY),
        (4, "unsubscribe", early + 7 * DAY),
        (5, "unsubscribe", late + 7 * DAY - 1),
        (6, "unsubscribe", MONDAY + 7 * DAY),  # not a visit
        (0, "browse", early - 7 * DAY - 1),
        (1, "browse", early - 7 * DAY),
        (1, "browse", early - 1),
        (2, "browse", early),  # not before the exposure
        (5, "browse", late - 1),
        (6, "finish", MONDAY + DAY + 23 * HOUR),
        (7, "finish", MONDAY + 2 * DAY - 1),
        (8, "finish", MONDAY + 2 * DAY),
        (0, "mute", early + 3 * HOUR - 1),
        (1, "mute", early + 3 * HOUR),
        (9, "mute", late + 3 * HOUR - 1),
    ]
    log.advance(MONDAY + 12 * DAY, exposures, events)
    log.close()
    database, as_of, span = tmp_path / "app.db", MONDAY + 12 * DAY, WINDOWS[1]
    # Units 1 and 2 were there; 1 had browsed twice in time and 5 once.
    assert ask(database, "retention_d7", 1, as_of, span) == {"t0": (10, 2, 2, 3, 5, 2, as_of)}
    assert ask(database, "finished_d1", 1, as_of, span) == {"t0": (10, 2, as_of)}
    assert ask(database, "mute_3h", 1, as_of, span) == {"t0": (10, 2, as_of)}
    assert ask(database, "unsubscribe_7d", 1, as_of, span) == {"t0": (10, 2, as_of)}


# -- truth and landscape -----------------------------------------------------------------------------------


def test_users_behave_as_the_truth_says(app: SimpleNamespace, simulated: SimpleNamespace) -> None:
    for window, span in WINDOWS.items():
        first_day = span[0] // DAY
        for number, configuration in enumerate(simulated.configurations):
            true = app.truth.expected(configuration, first_days=[first_day])
            for metric in METRICS:
                arm = f"t{3 * (window - 1) + number}"
                n, total, *_ = ask(simulated.database, metric, window, MONDAY + 11 * DAY, span)[arm]
                share = getattr(true, metric)
                # The truth is itself a mean over a sample of users, of which the users' spread is a part.
                se = math.sqrt(share * (1 - share) * (1 / n + 1 / app.truth.SAMPLE))
                assert abs(total / n - share) < 4 * se, (metric, arm)


def test_there_is_something_to_gain_and_something_to_lose(app: SimpleNamespace) -> None:
    incumbent = app.truth.expected(app.pipeline.INCUMBENT)
    best = app.truth.expected(app.truth.optimum())
    assert 0.195 < incumbent.retention_d7 < 0.205
    assert 0.225 < best.retention_d7 < 0.235
    assert best.unsubscribe_7d < incumbent.unsubscribe_7d
    # More notifications bring more users back tomorrow and fewer next week, and breach both guardrails.
    noisy = app.truth.expected(dataclasses.replace(app.pipeline.INCUMBENT, throttle=0.1))
    assert noisy.retention_d1 > incumbent.retention_d1
    assert noisy.retention_d7 < incumbent.retention_d7 - 0.02
    assert noisy.mute_3h > 2.0 * incumbent.mute_3h
    assert noisy.unsubscribe_7d > 1.25 * incumbent.unsubscribe_7d
    # A visit on day 1 is a bad proxy: what is best on day 7 is worse on day 1 than production today.
    assert best.retention_d1 < incumbent.retention_d1
    # A finished slate is a good one.
    assert best.finished_d1 > incumbent.finished_d1 > noisy.finished_d1


def test_weekends_are_better_than_tuesdays_and_everything_drifts(app: SimpleNamespace) -> None:
    tuesday, saturday = 19_724, 19_728
    assert app.behaviour.season(saturday) > app.behaviour.season(tuesday) + 0.1
    assert abs(app.behaviour.season(tuesday + 28) - app.behaviour.season(tuesday)) > 0.02
    arm = 0.9 * 0.8 / 16 * 20_000
    share = app.truth.expected(app.pipeline.INCUMBENT, sample=6_000).retention_d7
    assert round(arm, -2) == 900
    assert round(100 * math.sqrt(share * (1 - share) / arm), 1) == 1.3


def test_the_declared_surrogate_is_what_the_earlier_tests_show(app: SimpleNamespace) -> None:
    import yaml

    declared = yaml.safe_load((EXAMPLE / "campaign.yaml").read_text())["objective"]["surrogate"]
    found = app.earlier.calibrate()
    assert declared["metric"] == "finished_d1"
    assert declared["slope"] == round(found.slope, 2)
    assert declared["error"] == f"{100 * found.error:.1f}%"
    assert found.se < 0.1 * found.slope


def test_a_finished_slate_foretells_day_7_not_perfectly_and_a_visit_on_day_1_does_not(
    app: SimpleNamespace,
) -> None:
    draw, incumbent = np.random.default_rng(4), app.pipeline.INCUMBENT
    found = []
    for _ in range(30):
        weights = tuple((np.array(incumbent.weights) + 0.5 * draw.normal(size=5)).tolist())
        thresholds = (np.array([0.15, 0.36]) + 0.15 * draw.normal(size=2)).clip(0, 1).tolist()
        true = app.truth.expected(app.pipeline.Configuration(weights, *thresholds), sample=6_000)
        found.append((true.finished_d1, true.retention_d1, true.retention_d7))
    finished, day1, day7 = np.array(found).T
    assert 0.8 < np.corrcoef(finished, day7)[0, 1] < 0.99
    assert np.corrcoef(day1, day7)[0, 1] < 0.5


def test_what_was_browsed_before_explains_a_realistic_part_of_day_7(simulated: SimpleNamespace) -> None:
    from blackopt.metrics.kinds import kind

    names = ADJUSTED[1:-1]
    remains = []
    for window, span in WINDOWS.items():
        rows = ask(simulated.database, "retention_d7", window, MONDAY + 11 * DAY, span)
        arms = {arm: dict(zip(names, map(float, row), strict=False)) for arm, row in rows.items()}
        for arm, stats in arms.items():
            if arm != "control":
                adjusted, plain = (
                    kind("mean", cuped=cuped).effect(stats, arms["control"], relative=True).se
                    for cuped in (True, False)
                )
                assert adjusted is not None
                assert plain is not None
                remains.append((adjusted / plain) ** 2)
    assert 0.10 < 1 - float(np.mean(remains)) < 0.30


def test_what_was_done_before_lies_strictly_before_the_exposure(simulated: SimpleNamespace) -> None:
    _, exposures, events = raw(simulated.database)
    first = {unit: t_us for _, _, _, unit, t_us in exposures}
    browsed = [(unit, at) for (unit, kind), times in events.items() if kind == "browse" for at in times]
    assert len(browsed) > len(first) / 2
    assert all(first[unit] - 7 * DAY <= at < first[unit] for unit, at in browsed)
    assert {kind for _, kind in events} == set(KINDS)


def test_the_written_optimum_cannot_be_improved_from_the_incumbent_or_nearby(app: SimpleNamespace) -> None:
    """The file would be out of date if the model had been changed without searching again."""
    best = app.truth.optimum()
    start = np.array([*best.weights, best.diversity, best.throttle])
    height = app.truth.expected(best).retention_d7
    draw = np.random.default_rng(5)
    for _ in range(20):
        x = start + draw.normal(size=7) * np.array([0.4] * 5 + [0.1, 0.1])
        x[5:] = x[5:].clip(0.0, 1.0)
        other = app.pipeline.Configuration(tuple(x[:5].tolist()), float(x[5]), float(x[6]))
        assert app.truth.expected(other).retention_d7 < height + 2e-4
    assert app.truth.expected(app.pipeline.INCUMBENT).retention_d7 < height


def test_the_pattern_search_finds_the_top_of_a_tilted_bowl_within_bounds(app: SimpleNamespace) -> None:
    def value(x: np.ndarray) -> float:
        return float(-((x[0] - 1.5) ** 2) - 3.0 * (x[1] - 0.5 * x[0]) ** 2 - (x[2] - 9.0) ** 2)

    lower, upper = np.array([-4.0, -4.0, 0.0]), np.array([4.0, 4.0, 1.0])
    found = app.truth.pattern_search(value, np.zeros(3), lower, upper, step=0.25, smallest=1e-4)
    assert found == pytest.approx([1.5, 0.75, 1.0], abs=0.01)


def test_a_users_row_does_not_depend_on_the_rows_beside_it(app: SimpleNamespace) -> None:
    users = app.pipeline.draw_users(np.random.default_rng(2), 300)
    few = app.pipeline.Users(*(getattr(users, field.name)[120:130] for field in dataclasses.fields(users)))
    whole = app.behaviour.react(users, *app.behaviour.spread(app.pipeline.INCUMBENT, 300))
    part = app.behaviour.react(few, *app.behaviour.spread(app.pipeline.INCUMBENT, 10))
    np.testing.assert_array_equal(whole.visit[120:130], part.visit)
    for name in ("finish", "mute", "unsubscribe"):
        np.testing.assert_array_equal(getattr(whole, name)[120:130], getattr(part, name))
    np.testing.assert_array_equal(users[np.arange(120, 130)].taste, few.taste)


def test_the_diversity_filter_makes_slates_less_alike(app: SimpleNamespace) -> None:
    users = app.pipeline.draw_users(np.random.default_rng(2), 2_000)
    alike = []
    for diversity in (0.0, 0.4, 0.8):
        configuration = dataclasses.replace(app.pipeline.INCUMBENT, diversity=diversity)
        slate = app.pipeline.run(users, *app.behaviour.spread(configuration, 2_000)).slate
        assert all(len(set(row)) == app.pipeline.SLATE for row in slate.tolist())
        pairs = [
            app.pipeline.CATALOGUE.similarity[slate[:, i], slate[:, j]] for i in range(4) for j in range(i)
        ]
        alike.append(float(np.mean(pairs)))
    assert alike[0] > alike[1] + 0.02 > alike[2] + 0.04
