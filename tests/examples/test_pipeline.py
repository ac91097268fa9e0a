"""The example examples/pipeline: its ten modules, its model, its production, and all of it, shortened."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import requests
from onnx import numpy_helper

from blackopt.serving import Refused
from blackopt.types import Artifact, Outcome, Placement, Push, Slice
from blackopt_connectors.http import HttpOptions, HttpTarget
from blackopt_connectors.http_clock import HttpClock, HttpClockOptions
from blackopt_policies.onnx import Onnx, OnnxOptions

EXAMPLE = Path(__file__).parents[2] / "examples" / "pipeline"

sys.path.insert(0, str(EXAMPLE))
import production as process  # noqa: E402
import train  # noqa: E402
from feed_app import (  # noqa: E402
    line,
    m01_candidates,
    m02_eligibility,
    m03_repeats,
    m05_calibration,
    m06_diversity,
    m07_rules,
    m08_length,
    m09_layout,
    m10_reminder,
    reactions,
    truth,
)
from feed_app.feed import Feed  # noqa: E402
from feed_app.m04_scorer import FEATURES, Scorer, features  # noqa: E402
from feed_app.production import CAMPAIGN, DAY_US, START_US, Production  # noqa: E402
from feed_app.world import CATALOGUE, draw_people  # noqa: E402

sys.path.remove(str(EXAMPLE))


@cache
def trained() -> tuple[Any, bytes]:
    x, clicked = train.click_log()
    model = train.train(x[:5_000], clicked[:5_000])
    return model, train.export(model)


@cache
def feed() -> Feed:
    """What 500 people are shown by the trained model."""
    return line.run(draw_people(np.random.default_rng(0), 500), Scorer(Artifact(trained()[1])))


def candidates(n: int = 200) -> Feed:
    """Feeds after module 1."""
    people = draw_people(np.random.default_rng(1), n)
    return m01_candidates.run(line.empty(people))


# -- the modules -------------------------------------------------------------------------------------


def test_nothing_is_shown_that_is_not_allowed_or_was_read() -> None:
    shown = np.arange(feed().articles.shape[1]) < feed().size[:, None]
    who, place = np.nonzero(shown)
    article, people = feed().articles[who, place], feed().people
    assert feed().allowed[who, place].all()
    assert not (CATALOGUE.adult[article] & people.minor[who]).any()
    assert ((CATALOGUE.language[article] == 0) | people.both_languages[who]).all()
    assert not people.read[who, article].any()
    assert all(
        len(set(row[:size].tolist())) == size for row, size in zip(feed().articles, feed().size, strict=True)
    )


def test_of_each_story_only_the_first_allowed_candidate_is_left() -> None:
    eligible = m02_eligibility.run(candidates())
    left = m03_repeats.run(eligible)
    for row in range(len(left.people)):
        stories = CATALOGUE.story[left.articles[row]]
        unread = eligible.allowed[row] & ~left.people.read[row, left.articles[row]]
        first = np.unique(stories[unread], return_index=True)[1]
        assert np.flatnonzero(left.allowed[row]).tolist() == sorted(np.flatnonzero(unread)[first].tolist())


def test_calibration_never_turns_an_order_round_and_is_flat_between_its_steps() -> None:
    logits = np.linspace(-8, 6, 4001)[None, :]
    probability = m05_calibration.run(replace(candidates(1), score=logits)).score[0]
    assert (np.diff(probability) >= 0).all()
    assert 0 < probability[0] < probability[-1] < 1
    assert len(set(probability.tolist())) == 62


def test_diversity_prefers_another_topic_to_more_of_the_same() -> None:
    articles = np.argsort(-CATALOGUE.topics[:, 0])  # many that are alike
    other = int(articles[-1])
    row = np.array([[*articles[:9].tolist(), other]])
    score = np.array([[0.5] * 9 + [0.45]])
    start = replace(candidates(1), articles=row, allowed=np.ones(row.shape, dtype=bool), score=score)
    assert m06_diversity.run(start).articles[0, 1] == other


def test_rules_limit_a_publisher_and_place_what_is_paid_for() -> None:
    after = m07_rules.run(m06_diversity.run(replace(candidates(), score=np.ones((200, 40)))))
    paid = CATALOGUE.sponsored[after.articles]
    assert 0 < paid.any(axis=1).sum() < len(paid)
    assert paid[paid.any(axis=1), m07_rules.SPONSORED_PLACE].all()
    counts = [np.bincount(CATALOGUE.publisher[row[:3]]).max() for row in after.articles]
    assert max(counts) <= m07_rules.OF_A_PUBLISHER + 1  # one more only where it is paid for
    unpaid = [n for n, row in zip(counts, after.articles, strict=True) if not CATALOGUE.sponsored[row].any()]
    assert max(unpaid) <= m07_rules.OF_A_PUBLISHER


def test_length_layout_and_reminder_go_by_their_thresholds() -> None:
    score = np.array(
        [[0.5] * 8, [0.9, 0.9, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.3, 0.2, 0.2, 0.01, 0.2, 0.2, 0.2, 0.2]]
    )
    start = replace(candidates(3), score=score, allowed=np.ones(score.shape, dtype=bool))
    start = replace(start, articles=start.articles[:, :8])
    assert m08_length.run(start).size.tolist() == [5, 3, 3]
    assert m09_layout.run(start).large.tolist() == [False, False, True]
    assert m10_reminder.run(start).reminder.tolist() == [False, True, False]


# -- the model ---------------------------------------------------------------------------------------


def test_the_exported_model_says_what_the_trained_one_says() -> None:
    model, body = trained()
    x, _ = train.click_log(seed=6)
    logits = Scorer(Artifact(body)).logits(x[:500])[:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), model.predict_proba(x[:500])[:, 1], atol=1e-5)


def test_the_campaign_tunes_the_last_layer_of_it(tmp_path: Path) -> None:
    (tmp_path / "scorer.onnx").write_bytes(trained()[1])
    policy = Onnx(OnnxOptions(model="scorer.onnx", tune=["head.*"]), base=tmp_path)
    assert [block.name for block in policy.space.blocks] == ["head.weight", "head.bias"]
    assert policy.space.size == train.HIDDEN + 1


def damaged(change: str) -> bytes:
    model = onnx.load_model_from_string(trained()[1])
    if change == "nan":
        weights = np.full((train.HIDDEN, 1), np.nan, dtype=np.float32)
        model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weights, "head.weight"))
    if change == "output":
        model.graph.output[0].name = model.graph.node[-1].output[0] = "score"
    body: bytes = model.SerializeToString()
    return {"cut": body[:200], "text": b"a model", "large": body + bytes(1_000_000)}.get(change, body)


@pytest.mark.parametrize("change", ["nan", "output", "cut", "text", "large"])
def test_the_scorer_refuses_what_it_cannot_vouch_for(change: str) -> None:
    with pytest.raises(Refused):
        Scorer(Artifact(damaged(change)))


def test_the_model_sees_nothing_hidden() -> None:
    people = draw_people(np.random.default_rng(2), 5)
    other = replace(people, taste=-people.taste, aversion=people.aversion * 9, habit=people.habit + 1)
    articles = np.arange(10)[None, :].repeat(5, axis=0)
    np.testing.assert_array_equal(features(people, articles), features(other, articles))
    assert features(people, articles).shape == (5, 10, len(FEATURES))


# -- production --------------------------------------------------------------------------------------


SECRET = "a secret of this test"


@contextmanager
def serving(folder: Path, people: int = 400, seed: int = 3) -> Iterator[str]:
    """Production behind HTTP, in a thread; gives its address."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Production(folder, Artifact(trained()[1]), seed=seed, people=people, secrets=(SECRET,))
    with closing(made), process.make_server(made) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def order(body: bytes) -> Push:
    """An arm of 70 % beside a control of 30 %."""
    placement = Placement(1, "1.1", Slice(300_000, 1_000_000), Slice(0, 300_000))
    return Push("0" * 64, CAMPAIGN, 0, "t0", 1, 86_400.0, Artifact(body), placement)


def live(folder: Path, body: bytes, **options: int) -> dict[str, list[Any]]:
    """A day with an arm and a day after it, by the connectors that a campaign uses; the log."""
    with serving(folder, **options) as url:
        target = HttpTarget(HttpOptions(url=f"{url}/blackopt", secret=SECRET), base=Path())
        assert target.push(order(body)).outcome is Outcome.APPLIED
        HttpClock(HttpClockOptions(url=f"{url}/clock")).wait_until(START_US + 2 * DAY_US)
    with closing(sqlite3.connect(folder / "events.db")) as log:
        return {
            table: log.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
            for table in ("exposures", "events")
        }


def test_the_same_orders_leave_the_same_log(tmp_path: Path) -> None:
    log = live(tmp_path / "one", trained()[1])
    assert live(tmp_path / "two", trained()[1]) == log
    arms = [arm for *_, arm, _ in log["exposures"]]
    assert (len(arms), set(arms)) == (400, {"t0", "control"})  # of the first day: the lease has ended then
    assert {name for _, name, _ in log["events"]} == {"open", "mute"}


def test_events_follow_their_exposure(tmp_path: Path) -> None:
    log = live(tmp_path, trained()[1], people=1_500)
    exposed = {unit: t_us for _, _, unit, _, t_us in log["exposures"]}
    for unit, name, t_us in log["events"]:
        if name == "mute":
            assert 0 <= t_us - exposed[unit] < 3 * DAY_US // 24
        else:
            assert t_us // DAY_US == exposed[unit] // DAY_US + 1


def test_the_log_agrees_with_the_truth(tmp_path: Path) -> None:
    log = live(tmp_path, trained()[1], people=4_000)
    day = START_US // DAY_US + 1
    back, _ = truth.expected(Scorer(Artifact(trained()[1])), day=day, sample=8_000)
    share = sum(name == "open" for _, name, _ in log["events"]) / 4_000
    assert abs(share - back) < 4 * (back * (1 - back) * (1 / 4_000 + 1 / 8_000)) ** 0.5


def test_louder_feeds_bring_fewer_people_back() -> None:
    articles = feed().articles
    worth = {}
    for name, sign in (("loud", 1.0), ("quiet", -1.0)):
        order_of = np.argsort(-sign * CATALOGUE.loudness[articles], axis=1)
        worth[name] = reactions.react(m06_diversity.taken(feed(), order_of)).back.mean()
    assert worth["loud"] < worth["quiet"]


def test_production_answers_nonsense_and_keeps_its_time(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        for nonsense in (b"", b"[]", b'{"until_us": 1.5}', b'{"until_us": true}'):
            assert requests.post(f"{url}/clock", data=nonsense, timeout=9).status_code == 400
        assert requests.get(f"{url}/nothing", timeout=9).status_code == 404
        assert requests.post(f"{url}/blackopt/push", json={}, timeout=9).status_code in {400, 401}
        far = requests.post(f"{url}/clock", json={"until_us": START_US + 9 * DAY_US}, timeout=9).json()
        assert far == {"now_us": START_US + DAY_US}  # a day a request
        back = requests.post(f"{url}/clock", json={"until_us": START_US}, timeout=9).json()
        assert back == far


# -- the whole ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_campaign_tunes_a_module_whose_pipeline_it_cannot_see(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, str(EXAMPLE / "tour.py"), "--quick", "--directory", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout
    assert re.search(r"back_d1 \S+ % against \S+ % under control: \S+ %, 95 % CI \S+ % to \S+ %", said), said
    effect = re.search(r"^true effect: (\S+)%$", said, re.MULTILINE)
    assert effect is not None, said
    assert float(effect[1]) > 0
    # What the campaign has: a file, a model, an address and a log. No code of the pipeline.
    assert not list(run.rglob("*.py"))
    assert "feed_app" not in (run / "campaign.yaml").read_text()
    imported = subprocess.run(
        [sys.executable, "-c", "import feed_app"], check=False, cwd=run, capture_output=True
    )
    assert imported.returncode == 1
    # Only the last layer has moved.
    before, after = (
        {i.name: numpy_helper.to_array(i) for i in onnx.load(run / name).graph.initializer}
        for name in ("scorer.onnx", "tuned.onnx")
    )
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        "head.weight",
        "head.bias",
    }
    with closing(sqlite3.connect(run / "events.db")) as log:
        assert {name for (name,) in log.execute("SELECT DISTINCT name FROM events")} == {"open", "mute"}
