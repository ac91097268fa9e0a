"""The example examples/calls: its data, its reference values, its dialler, and one short campaign on it."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import sqlite3
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml

from blackopt.optimizers.openai_es import OpenAIESOptions
from blackopt.serving import Refused
from blackopt.types import CONTROL, Artifact, Outcome, Placement, Push, Query, Reading, Slice, Withdraw
from blackopt_connectors.http import HttpOptions, HttpTarget
from blackopt_connectors.http_clock import HttpClock, HttpClockOptions
from blackopt_connectors.sql import SqlMetricOptions, SqlOptions, SqlSource

EXAMPLE = Path(__file__).parents[2] / "examples" / "calls"
DATA = Path(os.environ.get("BLACKOPT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "bank_marketing"

sys.path.insert(0, str(EXAMPLE))
from calls_app import baselines, data, dialler, offline, rehearsal  # noqa: E402
from calls_app.log import EventLog  # noqa: E402

sys.path.remove(str(EXAMPLE))

needs_data = pytest.mark.skipif(
    not DATA.exists(),
    reason=f"the UCI bank marketing data are not in {DATA}; BLACKOPT_DATA names another place",
)


@pytest.fixture(scope="module")
def calls() -> data.Calls:
    return data.load(DATA)


# -- data ------------------------------------------------------------------------------------------


HEADER = [*data.CATEGORIES, *data.NUMBERS, *data.DROPPED, "y"]


def small_csv(rows: int = 80, duration: int = 100) -> bytes:
    """A csv of the real one's columns, one row a line, with a `duration` that says nothing or everything."""
    rng = np.random.default_rng(5)
    lines = [";".join(f'"{name}"' for name in HEADER)]
    for _ in range(rows):
        values = [f'"{levels[rng.integers(len(levels))]}"' for levels in data.CATEGORIES.values()]
        values += [str(rng.integers(1, 100)) for _ in data.NUMBERS]
        lines.append(";".join([*values, str(duration), '"may"', '"yes"' if rng.random() < 0.3 else '"no"']))
    return ("\n".join(lines) + "\n").encode()


def nested_zip(body: bytes) -> bytes:
    """As UCI serves it: a zip with two zips, one of which holds the file in a folder."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bank-additional/bank-additional.csv", b"a tenth of it")
        archive.writestr("bank-additional/bank-additional-full.csv", body)
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("bank.zip", b"another data set")
        archive.writestr("bank-additional.zip", inner.getvalue())
    return outer.getvalue()


def test_the_download_unpacks_checks_and_keeps_the_csv(
    home: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    url, served = home
    body = small_csv()
    served["/bank+marketing.zip"] = nested_zip(body)
    path = data.download(
        tmp_path / "new", url=f"{url}/bank+marketing.zip", sha256=hashlib.sha256(body).hexdigest()
    )
    assert path.read_bytes() == body
    assert [file.name for file in path.parent.iterdir()] == ["bank-additional-full.csv"]


@needs_data
def test_the_download_is_the_data_set_of_this_example(
    home: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    url, served = home
    served["/it"] = nested_zip(lzma.decompress((DATA / f"{data.FILE}.xz").read_bytes()))
    data.download(tmp_path, url=f"{url}/it")
    assert data.load(tmp_path).raw.shape == (41188, 43)


def test_a_download_with_another_checksum_keeps_nothing(
    home: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    url, served = home
    served["/it"] = nested_zip(small_csv())
    with pytest.raises(data.DataError, match=f"expected {data.SHA256}; nothing was kept"):
        data.download(tmp_path / "new", url=f"{url}/it")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [(None, "404"), (nested_zip(b"x")[:300], "damaged"), (b"<html>sorry</html>", "sha256")],
    ids=["missing", "cut short", "a page"],
)
def test_a_download_that_is_not_the_zip_is_an_error(
    home: tuple[str, dict[str, bytes]], tmp_path: Path, body: bytes | None, message: str
) -> None:
    url, served = home
    if body is not None:
        served["/it"] = body
    with pytest.raises(data.DataError, match=message):
        data.download(tmp_path / "new", url=f"{url}/it")
    assert not (tmp_path / "new").exists()


def test_a_zip_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LARGEST_BYTES", 10_000)
    with pytest.raises(data.DataError, match="more than 10000 bytes"):
        data.unpack(nested_zip(b"0" * 1_000_000))


@pytest.mark.parametrize("holder", ["csv", "xz", "zip", "folder"])
def test_the_same_calls_come_out_of_every_holder(holder: str, tmp_path: Path) -> None:
    body = small_csv()
    path = tmp_path / "it"
    if holder == "folder":
        path.mkdir()
        (path / f"{data.FILE}.xz").write_bytes(lzma.compress(body))
    else:
        path.write_bytes({"csv": body, "xz": lzma.compress(body), "zip": nested_zip(body)}[holder])
    calls = data.load(path, sha256=None)
    assert calls.raw.shape == (80, 43)
    assert len(calls.blocks) == 40


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / data.FILE).write_bytes(small_csv())
    with pytest.raises(data.DataError, match="sha256"):
        data.load(tmp_path)
    with pytest.raises(data.DataError, match=r"calls_app\.data --download"):
        data.load(tmp_path / "nowhere")


def test_a_level_outside_the_data_dictionary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it.csv"
    path.write_bytes(small_csv().replace(b'"married"', b'"betrothed"'))
    with pytest.raises(data.DataError, match=r"column marital.*betrothed"):
        data.load(path, sha256=None)


def test_the_leak_is_not_an_input(tmp_path: Path) -> None:
    inputs = []
    for seconds in (0, 9999):
        path = tmp_path / f"{seconds}.csv"
        path.write_bytes(small_csv(duration=seconds))
        inputs.append(data.load(path, sha256=None).inputs)
    np.testing.assert_array_equal(inputs[0], inputs[1])
    assert "duration" in data.DROPPED
    assert not any(name.startswith(tuple(data.DROPPED)) for name in data.FEATURES)


@needs_data
def test_the_encoding_knows_only_the_warm_up(calls: data.Calls) -> None:
    assert len(data.FEATURES) == calls.inputs.shape[1] == 43
    assert calls.subscribed.sum() == 4640
    assert (len(calls.warm_up), calls.warm_up[-1]) == (8240, 8239)
    changed = calls.raw.copy()
    changed[8240:] += 1.0
    np.testing.assert_array_equal(data.standardised(changed, calls.warm_up)[:8240], calls.inputs[:8240])
    inside = np.abs(calls.inputs[calls.warm_up]) < data.CLIP
    unclipped = inside.all(axis=0) & (calls.raw[calls.warm_up].std(axis=0) > 0)
    assert unclipped.sum() > 10
    warm = calls.inputs[calls.warm_up][:, unclipped]
    np.testing.assert_allclose(warm.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(warm.std(axis=0), 1.0, atol=1e-9)
    assert np.abs(calls.inputs).max() == data.CLIP


# -- baselines -------------------------------------------------------------------------------------


@needs_data
def test_the_reference_values_come_out(calls: data.Calls) -> None:
    assert sum(round(len(block) * data.CALL_SHARE) for block in calls.blocks[data.WARM_UP :]) == 6592
    found = {
        "random": baselines.random(calls).sum(),
        "frozen": baselines.frozen(calls).sum(),
        "refit, past": baselines.refit(calls).sum(),
        "refit, last 4": baselines.refit(calls, last=4).sum(),
        "oracle": baselines.oracle(calls).sum(),
    }
    assert found == pytest.approx(baselines.REFERENCE, abs=2)


def test_the_logistic_regression_is_at_its_optimum() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 4))
    y = rng.random(500) < 1 / (1 + np.exp(-(x @ [1.0, -2.0, 0.0, 0.5] - 1.0)))
    weights, bias = baselines.logistic(x, y, l2=3.0)
    p = 1 / (1 + np.exp(-(x @ weights + bias)))
    np.testing.assert_allclose(x.T @ (p - y) + 3.0 * weights, 0.0, atol=1e-4)
    assert (p - y).sum() == pytest.approx(0.0, abs=1e-4)


def test_the_logistic_regression_agrees_with_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 5))
    y = rng.random(400) < 1 / (1 + np.exp(-x[:, 0]))
    weights, bias = baselines.logistic(x, y, l2=10.0)
    other = linear_model.LogisticRegression(C=0.1, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(weights, other.coef_[0], atol=1e-4)
    assert bias == pytest.approx(other.intercept_[0], abs=1e-4)


def test_outcomes_that_all_agree_still_give_a_model() -> None:
    weights, bias = baselines.logistic(np.eye(3), np.zeros(3, dtype=np.bool_))
    assert np.isfinite(weights).all()
    assert np.isfinite(bias)


def test_parts_of_a_list_call_as_many_as_the_whole() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        sizes = rng.integers(0, 80, size=rng.integers(1, 20)).tolist()
        counts = baselines.quotas(sizes)
        assert sum(counts) == round(sum(sizes) * data.CALL_SHARE)
        assert all(
            abs(count - size * data.CALL_SHARE) <= 1 for count, size in zip(counts, sizes, strict=True)
        )


def test_a_delay_never_takes_the_warm_up_away() -> None:
    assert [baselines.known(block, delay=2) for block in (8, 10, 11)] == [8, 8, 9]


# -- the dialler -----------------------------------------------------------------------------------


SECRET = "a secret of this test"
DAY = dialler.DAY_US


def policy(weights: Any) -> Artifact:
    return Artifact(json.dumps({"weights": [list(weights)], "bias": [0.0], "parameters": {}}).encode())


def order(trial: int, artifact: Artifact, *, window: int = 1, arms: int = 3) -> Push:
    """An arm of a window with a control of 10 % and equal arms."""
    width = 900_000 // arms
    lower = 100_000 + trial % arms * width
    placement = Placement(window, f"1.{window}", Slice(lower, lower + width), Slice(0, 100_000))
    return Push(f"{trial:064x}", dialler.CAMPAIGN, trial, f"t{trial}", 1, 86_400.0, artifact, placement)


@contextmanager
def serving(calls: data.Calls, folder: Path) -> Iterator[str]:
    """A dialler behind HTTP, in a thread; gives its address."""
    log = EventLog(folder / "events.db", dialler.START_US)
    module = dialler.Dialler(
        calls, dialler.warm_up_policy(calls), log, secrets=[SECRET], state=folder / "arms.json"
    )
    with closing(log), closing(module.arms), dialler.make_server(module) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def target(url: str) -> HttpTarget:
    return HttpTarget(HttpOptions(url=f"{url}/blackopt", secret=SECRET), base=Path())


def rows(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "events.db")) as log:
        return log.execute(query).fetchall()


def drive(calls: data.Calls, folder: Path, artifacts: list[Artifact], days: int = 4) -> None:
    """A window a day for some days, by the connectors that a campaign uses."""
    folder.mkdir(parents=True, exist_ok=True)
    with serving(calls, folder) as url:
        clock, production = HttpClock(HttpClockOptions(url=f"{url}/clock")), target(url)
        for day in range(days):
            for arm, artifact in enumerate(artifacts):
                trial = day * len(artifacts) + arm
                receipt = production.push(order(trial, artifact, window=day + 1, arms=len(artifacts)))
                assert receipt.outcome is Outcome.APPLIED
            clock.wait_until(dialler.START_US + (day + 1) * DAY)


@needs_data
def test_the_dialler_does_the_same_twice(calls: data.Calls, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    artifacts = [policy(rng.normal(size=43)) for _ in range(3)]
    logs = []
    for name in ("one", "two"):
        drive(calls, tmp_path / name, artifacts)
        tables = ("exposures", "calls", "outcomes", "watermark")
        logs.append([rows(tmp_path / name, f"SELECT * FROM {table} ORDER BY 1") for table in tables])
    assert logs[0] == logs[1]
    exposures, made, outcomes, _ = logs[0]
    assert len(exposures) == 4 * 1030
    assert len(made) == 4 * 206
    assert len(outcomes) == 2 * 206  # of the first two days


@needs_data
def test_each_arm_calls_the_best_of_its_own_slice_and_history_answers(
    calls: data.Calls, tmp_path: Path
) -> None:
    by_age = np.zeros(43)
    by_age[data.FEATURES.index("age")] = 1.0
    drive(calls, tmp_path, [policy(by_age), policy(-by_age), policy(by_age)], days=3)
    with_arm = "SELECT unit, arm FROM {} WHERE window = 1 AND arm = 't{}' ORDER BY unit"
    ages = calls.inputs[:, data.FEATURES.index("age")]
    for arm, best in ((0, 1.0), (1, -1.0)):
        offered = [int(unit[1:]) for unit, _ in rows(tmp_path, with_arm.format("exposures", arm))]
        called = [int(unit[1:]) for unit, _ in rows(tmp_path, with_arm.format("calls", arm))]
        assert abs(len(called) - data.CALL_SHARE * len(offered)) <= 1
        left = sorted(set(offered) - set(called))
        assert min(best * ages[called]) >= max(best * ages[left])
    outcomes = rows(
        tmp_path, "SELECT unit, subscribed, known_us - called_us FROM outcomes JOIN calls USING (unit)"
    )
    assert len(outcomes) == 206
    assert all(yes == calls.subscribed[int(unit[1:])] and waited == 2 * DAY for unit, yes, waited in outcomes)


@needs_data
def test_without_arms_the_incumbent_calls_whom_the_frozen_policy_would(
    calls: data.Calls, tmp_path: Path
) -> None:
    with serving(calls, tmp_path) as url:
        end_us = dialler.START_US + (dialler.DAYS + 3) * DAY
        assert requests.post(f"{url}/clock", json={"until_us": end_us}, timeout=60).json() == {
            "now_us": end_us
        }
    assert rows(tmp_path, "SELECT count(*) FROM exposures") == [(0,)]
    total = int(baselines.frozen_policy(calls).sum())
    assert rows(tmp_path, "SELECT count(*), sum(subscribed) FROM outcomes") == [(6592, total)]


@needs_data
def test_a_lease_ends_in_virtual_time_and_the_incumbent_calls(calls: data.Calls, tmp_path: Path) -> None:
    with serving(calls, tmp_path) as url:
        target(url).push(order(0, policy(np.ones(43)), arms=1))
        HttpClock(HttpClockOptions(url=f"{url}/clock")).wait_until(dialler.START_US + 2 * DAY)
    by_day = (
        "SELECT called_us / 86400000000 AS day, count(arm), count(*) FROM calls GROUP BY day ORDER BY day"
    )
    (_, first, _), (_, second, everybody) = rows(tmp_path, by_day)
    assert (first, second, everybody) == (206, 0, 206)


@needs_data
def test_a_dialler_that_is_started_again_goes_on_where_its_log_ends(
    calls: data.Calls, tmp_path: Path
) -> None:
    for until_us in (dialler.START_US + DAY, dialler.START_US + 3 * DAY):
        with serving(calls, tmp_path) as url:
            clock = HttpClock(HttpClockOptions(url=f"{url}/clock"))
            assert clock.now_us() == max(
                dialler.START_US, until_us - 2 * DAY if until_us > dialler.START_US + DAY else 0
            )
            clock.wait_until(until_us)
    assert rows(tmp_path, "SELECT count(*) FROM calls") == [(3 * 206,)]
    assert rows(tmp_path, "SELECT count(*) FROM outcomes") == [(206,)]


@needs_data
def test_the_clock_moves_only_when_told_and_never_back(calls: data.Calls, tmp_path: Path) -> None:
    with serving(calls, tmp_path) as url:
        clock = HttpClock(HttpClockOptions(url=f"{url}/clock"))
        assert clock.now_us() == clock.now_us() == dialler.START_US
        clock.wait_until(dialler.START_US + 1)
        clock.wait_until(dialler.START_US)
        assert clock.now_us() == dialler.START_US + 1
        for nonsense in (b"", b"[]", b'{"until_us": 1.5}', b'{"until_us": true}'):
            assert requests.post(f"{url}/clock", data=nonsense, timeout=10).status_code == 400
        assert requests.get(f"{url}/elsewhere", timeout=10).status_code == 404
        assert clock.now_us() == dialler.START_US + 1


@needs_data
def test_unsigned_orders_and_withdrawn_arms_change_nothing(calls: data.Calls, tmp_path: Path) -> None:
    with serving(calls, tmp_path) as url:
        assert requests.post(f"{url}/blackopt/push", json={}, timeout=10).status_code == 401
        target(url).push(order(0, policy(np.ones(43)), arms=1))
        target(url).withdraw(Withdraw("0" * 64, dialler.CAMPAIGN, 0, "t0", 1))
        HttpClock(HttpClockOptions(url=f"{url}/clock")).wait_until(dialler.START_US + DAY)
    assert rows(tmp_path, "SELECT count(*), count(arm) FROM calls") == [(206, 0)]


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        json.dumps({"weights": [[0.0] * 42], "bias": [0.0]}).encode(),
        json.dumps({"weights": [[0.0] * 43], "bias": []}).encode(),
        json.dumps({"weights": [[0.0] * 42 + [10.1]], "bias": [0.0]}).encode(),
        json.dumps({"weights": [[0.0] * 42 + [float("nan")]], "bias": [0.0]}).encode(),
        json.dumps({"weights": [[0.0] * 42 + ["1e999"]], "bias": [0.0]}).encode(),
    ],
    ids=["text", "list", "short", "no bias", "too far", "nan", "infinite"],
)
def test_the_dialler_serves_no_policy_that_it_cannot_vouch_for(body: bytes) -> None:
    with pytest.raises(Refused):
        dialler.weights_of(Artifact(body))


@needs_data
def test_the_query_counts_only_what_is_known(calls: data.Calls, tmp_path: Path) -> None:
    drive(calls, tmp_path, [policy(np.ones(43))] * 3, days=4)
    start_us = dialler.START_US
    metrics = {"subscribed": SqlMetricOptions(query=Path("queries/subscribed.sql"))}
    (tmp_path / "queries").symlink_to(EXAMPLE / "queries")
    with closing(SqlSource(SqlOptions(url="sqlite:///events.db"), metrics, base=tmp_path)) as source:

        def read(window: int, arm: str, as_of_us: int) -> Reading:
            end_us = start_us + window * DAY
            query = Query(
                dialler.CAMPAIGN, window, (CONTROL, arm), end_us - DAY, end_us, as_of_us, ("subscribed",)
            )
            found = {r.arm: r for r in source.read(query) if isinstance(r, Reading)}
            assert set(found) == {CONTROL, arm}
            return found[arm]

        known = "SELECT count(*), sum(subscribed) FROM calls JOIN outcomes USING (unit) WHERE arm = 't0'"
        [(n, total)] = rows(tmp_path, known)
        assert n > 50
        assert dict(read(1, "t0", start_us + 4 * DAY).stats) == {"n": n, "sum": total, "sum_sq": total}
        assert read(1, "t0", start_us + 2 * DAY).stats["n"] == 0  # half a day too early for every outcome
        assert read(3, "t6", start_us + 4 * DAY).stats["n"] == 0  # called, not yet known
        # The source knows no more than its log, whatever it is asked for.
        assert read(1, "t0", start_us + 9 * DAY).as_of_us == start_us + 4 * DAY


# -- the campaign ----------------------------------------------------------------------------------


@needs_data
def test_the_rehearsal_is_reproducible_and_makes_every_call(calls: data.Calls) -> None:
    options = OpenAIESOptions(population=4, sigma=0.1, seed=3)
    world = rehearsal.made_up(calls, 1)
    np.testing.assert_array_equal(world.subscribed[:8240], calls.subscribed[:8240])
    assert (world.subscribed[8240:] != calls.subscribed[8240:]).any()
    first = rehearsal.rehearse(world, options, arms=4, control=0.1)
    np.testing.assert_array_equal(first, rehearsal.rehearse(world, options, arms=4, control=0.1))
    everybody = data.Calls(calls.raw, calls.inputs, np.ones_like(calls.subscribed), calls.blocks)
    assert rehearsal.rehearse(everybody, options, arms=4, control=0.1).sum() == 6592


@needs_data
def test_tuning_on_the_log_finds_more_subscriptions_than_it_started_with(calls: data.Calls) -> None:
    start = np.append(*baselines.logistic(calls.inputs[calls.warm_up], calls.subscribed[calls.warm_up]))
    blocks = range(24, 32)
    tuned = offline.tune(calls, start, blocks, seed=1)
    before, after = offline.subscriptions(calls, np.stack([start, tuned], axis=1)[:-1], blocks)
    assert before == sum(
        calls.subscribed[rows[baselines.best(calls.inputs[rows] @ start[:-1])]].sum()
        for rows in calls.blocks[24:32]
    )
    assert after > 1.2 * before


def test_the_campaign_file_and_the_dialler_agree() -> None:
    campaign = yaml.safe_load((EXAMPLE / "campaign.yaml").read_text())
    assert campaign["name"] == dialler.CAMPAIGN
    assert campaign["policy"]["inputs"] == len(data.FEATURES)
    assert campaign["budget"]["trials"] == campaign["traffic"]["arms"] * dialler.DAYS
    # An arm of day d is told at the start of day d + 3: three windows mature while the fourth is served.
    assert campaign["budget"]["max_in_flight"] >= 4 * campaign["traffic"]["arms"]


@needs_data
def test_a_quick_run_prints_the_table_with_the_campaign_in_it(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    command = [sys.executable, "run.py", "--data", str(DATA), "--quick", "--json", str(table)]
    ran = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    found = {(row["name"], row["knows"]): row for row in json.loads(table.read_text())}
    assert len(found) == 10
    [live] = [row for row in found.values() if row["name"] == "blackopt, live"]
    [total] = live["totals"]
    assert 700 < total < 1300
    assert "blackopt, live" in ran.stdout
    assert "909" in ran.stdout
