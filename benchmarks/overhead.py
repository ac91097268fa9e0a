"""What remembering costs: durable trials, batches and resuming, beside raw sqlite3 and Optuna.

    python benchmarks/overhead.py [--quick] [--seeds N] [--json FILE] [--dir FOLDER]

Every contender asks a random sampler for ten numbers and tells one value, one trial after the other, and each
ask and each tell is on the disk before the next. Contenders take turns within a seed, so that ratios compare
the same minutes of the same disk; the medians over the seeds are printed. ``raw sqlite3`` commits the same
rows into the same tables with the same journal mode and synchronous level, without triggers, hashes, locks or
checks.

On a real disk nearly all the time is fsync; ``--dir /dev/shm`` shows what the code itself costs.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from blackopt.ledger import Ledger, dump_state
from blackopt.ledger.connection import journal_mode
from blackopt.ledger.migrations import statements
from blackopt.ledger.rows import NewCampaign, NewTell, NewTrial
from blackopt.ledger.sqlite import sqlite3
from blackopt.optimizers.random import Random, RandomOptions
from blackopt.runner.learner import Learner, optimizer_maker
from blackopt.space import Space
from blackopt.types import Evaluation, Reading, Role, Status

SIZE = 10
GENERATION = 10_000
RESUMED = 100_000
TAIL = 1_000
SPACE = Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(SIZE)})
CAMPAIGN = NewCampaign("overhead", "{}", "0" * 64, "random", Random.version)
TRIGGER = "CREATE TRIGGER"


def sampler(seed: int) -> Random:
    return Random(SPACE, SPACE.start(), RandomOptions(seed=seed))


def value_of(number: int, value: float) -> Reading:
    return Reading("value", 0, f"t{number}", "", number, {"value": value})


def blackopt_trials(folder: Path, seed: int, trials: int) -> float:
    """Seconds for durable ask and tell, each its own transaction."""
    optimizer = sampler(seed)
    with (
        Ledger.create(folder / "blackopt.ledger", CAMPAIGN, at_us=1) as ledger,
        ledger.drive(at_us=1) as driver,
    ):
        start = time.perf_counter()
        for number in range(trials):
            (drawn,) = optimizer.ask(1)
            driver.ask([NewTrial(number, drawn.number, Role.SEARCH, 0, number, drawn.vector)], at_us=number)
            value = float(drawn.vector.sum())
            tell = NewTell(number, Status.OK, value, readings=(value_of(number, value),))
            driver.tell([tell], at_us=number)
            optimizer.tell([Evaluation(drawn.number, value)])
        return time.perf_counter() - start


def raw_trials(folder: Path, seed: int, trials: int) -> float:
    """Seconds for the same rows in the same two transactions, written by hand."""
    optimizer = sampler(seed)
    conn = sqlite3.connect(folder / "raw.db", isolation_level=None)
    conn.execute(f"PRAGMA journal_mode={journal_mode()}")
    conn.execute("PRAGMA synchronous=FULL")
    script = (
        resources.files("blackopt.ledger").joinpath("schema", "0001_tables.sql").read_text(encoding="utf-8")
    )
    for statement in statements(script):
        if TRIGGER not in statement:
            conn.execute(statement)
    event = "INSERT INTO event(seq, at_us, epoch, kind, data, prev, hash) VALUES(?, ?, 1, ?, ?, ?, ?)"
    data = json.dumps({"count": 1, "first": 1, "sha": "0" * 64})
    start = time.perf_counter()
    for number in range(trials):
        (drawn,) = optimizer.ask(1)
        value = float(drawn.vector.sum())
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(
            "INSERT INTO trial(number, candidate, role, version, told_before, vector_sha, asked_us)"
            " VALUES(?, ?, 'search', 0, ?, ?, ?)",
            (number, drawn.number, number, "0" * 64, number),
        )
        conn.execute("INSERT INTO vector(trial, body) VALUES(?, ?)", (number, drawn.vector.tobytes()))
        conn.execute(event, (2 * number + 1, number, "ask", data, "0" * 64, "0" * 64))
        conn.execute("COMMIT")
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(
            'INSERT INTO reading(id, source, metric, "window", arm, cohort, as_of_us, stats, trial, '
            " received_us, disposition) VALUES(?, 'tell', 'value', 0, ?, '', ?, ?, ?, ?, 'accepted')",
            (number + 1, f"t{number}", number, json.dumps({"value": value}), number, number),
        )
        conn.execute(
            "INSERT INTO tell(seq, trial, status, value, cause, used, obs_sha, at_us)"
            " VALUES(?, ?, 'ok', ?, '', ?, ?, ?)",
            (number + 1, number, value, f"[{number + 1}]", "0" * 64, number),
        )
        conn.execute("UPDATE trial SET state = 'TOLD' WHERE number = ?", (number,))
        conn.execute(event, (2 * number + 2, number, "tell", data, "0" * 64, "0" * 64))
        conn.execute("COMMIT")
        optimizer.tell([Evaluation(drawn.number, value)])
    elapsed = time.perf_counter() - start
    conn.close()
    return elapsed


def optuna_trials(storage: optuna.storages.BaseStorage, seed: int, trials: int) -> float:
    """Seconds for ask and tell of a study."""
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=seed))
    start = time.perf_counter()
    for _ in range(trials):
        trial = study.ask()
        value = sum(trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(SIZE))
        study.tell(trial, value)
    return time.perf_counter() - start


def rdb_trials(folder: Path, seed: int, trials: int) -> float:
    return optuna_trials(RDBStorage(f"sqlite:///{folder / 'optuna.db'}"), seed, trials)


def journal_trials(folder: Path, seed: int, trials: int) -> float:
    return optuna_trials(JournalStorage(JournalFileBackend(str(folder / "optuna.log"))), seed, trials)


def batch(folder: Path, generations: int) -> tuple[float, Path]:
    """Trials per second of whole generations, one ask and one tell each; and the ledger, for resuming."""
    path = folder / "batch.ledger"
    optimizer = sampler(0)
    seconds: list[float] = []
    with Ledger.create(path, CAMPAIGN, at_us=1) as ledger, ledger.drive(at_us=1) as driver:
        for generation in range(generations):
            first = generation * GENERATION
            asked = optimizer.ask(GENERATION)
            new = [NewTrial(c.number, c.number, Role.SEARCH, 0, first, c.vector) for c in asked]
            values = [float(candidate.vector.sum()) for candidate in asked]
            tells = [NewTell(first + i, Status.OK, value) for i, value in enumerate(values)]
            start = time.perf_counter()
            driver.ask(new, at_us=generation)
            driver.tell(tells, at_us=generation)
            seconds.append(time.perf_counter() - start)
            told = GENERATION if generation < generations - 1 else GENERATION - TAIL
            optimizer.tell([Evaluation(first + i, values[i]) for i in range(told)])
        driver.snapshot(
            tell_seq=generations * GENERATION - TAIL,
            asked=generations * GENERATION,
            optimizer_version=Random.version,
            state=dump_state(optimizer.dump()),
        )
    return GENERATION / statistics.median(seconds), path


def resume(path: Path, *, verify: bool) -> float:
    """Seconds from a closed ledger to an optimizer that can ask: open, check, snapshot, tells after it."""
    make = optimizer_maker(Random, SPACE, SPACE.start(), RandomOptions(seed=0))
    start = time.perf_counter()
    with Ledger.open(path) as ledger, ledger.drive(at_us=2):
        if verify:
            ledger.verify()
        learner = Learner(make, maximize=False)
        learner.restore(ledger)
        elapsed = time.perf_counter() - start
        assert learner.applied == ledger.counts()["TOLD"]
        assert not learner.diverged
    return elapsed


CONTENDERS: dict[str, Callable[[Path, int, int], float]] = {
    "blackopt": blackopt_trials,
    "raw sqlite3": raw_trials,
    "optuna rdb (sqlite)": rdb_trials,
    "optuna journal": journal_trials,
}


def measure(seeds: int, trials: int, generations: int, folder: Path) -> dict[str, object]:
    microseconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for seed in range(seeds):
        for name, contender in CONTENDERS.items():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                microseconds[name].append(contender(Path(place), seed, trials) / trials * 1e6)
    ours = microseconds["blackopt"]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        rate, path = batch(Path(place), generations)
        resumed = statistics.median(resume(path, verify=False) for _ in range(3))
        verified = resume(path, verify=True)
    return {
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "sqlite": f"{sqlite3.sqlite_version}, {journal_mode()}, synchronous=FULL",
        "seeds": seeds,
        "trials": trials,
        "us_per_trial": {name: statistics.median(found) for name, found in microseconds.items()},
        "ratio_to_blackopt": {
            name: statistics.median(theirs / mine for theirs, mine in zip(found, ours, strict=True))
            for name, found in microseconds.items()
        },
        "batch": {"size": GENERATION, "trials_per_s": rate},
        "resume": {"told": generations * GENERATION, "seconds": resumed, "seconds_with_verify": verified},
    }


def show(found: dict[str, object]) -> str:
    us, ratios = found["us_per_trial"], found["ratio_to_blackopt"]
    again, generation = found["resume"], found["batch"]
    assert isinstance(us, dict)
    assert isinstance(ratios, dict)
    assert isinstance(again, dict)
    assert isinstance(generation, dict)
    lines = [
        f"{found['platform']}; SQLite {found['sqlite']}",
        f"durable ask + tell, {SIZE} numbers, medians of {found['seeds']} seeds of {found['trials']} trials",
        "",
        f"{'':<22}{'us a trial':>12}{'trials/s':>12}{'speed of blackopt':>20}",
    ]
    lines += [f"{name:<22}{t:>12.0f}{1e6 / t:>12.0f}{ratios[name]:>19.2f}x" for name, t in us.items()]
    lines.append("")
    lines.append(
        f"a generation of {generation['size']} evaluations, one ask and one tell: "
        f"{generation['trials_per_s']:,.0f} trials/s"
    )
    lines.append(
        f"resuming {again['told']:,} told trials: {again['seconds']:.2f} s "
        f"({again['seconds_with_verify']:.2f} s when every fact is verified)"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What remembering costs, beside raw sqlite3 and Optuna.")
    parser.add_argument("--quick", action="store_true", help="fewer trials and seeds")
    parser.add_argument("--seeds", type=int, default=None, help="how often each is measured (5; quick: 3)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here, too")
    parser.add_argument("--dir", type=Path, default=None, help="measure on this folder's disk")
    options = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(logging.ERROR)
    seeds = options.seeds or (3 if options.quick else 5)
    generations = 2 if options.quick else RESUMED // GENERATION
    folder = options.dir or Path(tempfile.gettempdir())
    found = measure(seeds, 50 if options.quick else 300, generations, folder)
    sys.stdout.write(show(found) + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
