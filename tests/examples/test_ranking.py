"""The example examples/ranking: its data, its metric, its rankers, and both of its commands, shortened."""

from __future__ import annotations

import hashlib
import itertools
import lzma
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ranking"
DATA = Path(os.environ.get("BLACKOPT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "lightgbm_rank"

sys.path.insert(0, str(EXAMPLE))
import compare  # noqa: E402
from ranking_app import data, rankers  # noqa: E402
from ranking_app.data import Queries  # noqa: E402
from ranking_app.metric import Ndcg  # noqa: E402

sys.path.remove(str(EXAMPLE))

needs_data = pytest.mark.skipif(
    not DATA.exists(),
    reason=f"LightGBM's example of ranking is not in {DATA}; BLACKOPT_DATA names another place",
)


def made_up(queries: int = 30, seed: int = 0) -> Queries:
    """Queries whose grades follow two of the columns."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, size=queries)
    features = np.zeros((sizes.sum(), data.COLUMNS))
    features[:, 1:6] = rng.random((sizes.sum(), 5))
    worth = features[:, 1] - features[:, 2] + 0.2 * rng.normal(size=sizes.sum())
    return Queries(features, np.clip(np.floor(3 * worth + 1), 0, 4).astype(np.int64), sizes)


def of_grades(*grades: int) -> Queries:
    """One query."""
    return Queries(np.zeros((len(grades), 1)), np.array(grades), np.array([len(grades)]))


# -- the metric --------------------------------------------------------------------------------------


def test_ndcg_is_what_the_formula_says() -> None:
    ndcg = Ndcg(of_grades(0, 2, 1), 2)
    # Places: the grade of 0, then that of 1. Best: 2, then 1.
    reached, best = 1 / np.log2(3), 3 + 1 / np.log2(3)
    assert ndcg(np.array([3.0, 1.0, 2.0])) == pytest.approx([reached / best])
    assert ndcg(np.array([1.0, 3.0, 2.0])) == pytest.approx([1.0])


def test_ndcg_agrees_with_scikit_learn_query_by_query() -> None:
    from sklearn.metrics import ndcg_score

    queries = made_up()
    scores = np.random.default_rng(1).normal(size=len(queries.grades))
    found = Ndcg(queries, 5).per_query(scores)[0]
    start = 0
    for value, size in zip(found, queries.sizes.tolist(), strict=True):
        part = slice(start, start + size)
        gains = 2.0 ** queries.grades[part] - 1
        start += size
        if size > 1 and gains.max() > 0:
            assert value == pytest.approx(ndcg_score([gains], [scores[part]], k=5))
        else:
            assert value == 1.0


def test_equal_scores_count_as_the_mean_over_their_orders() -> None:
    queries, ndcg = of_grades(3, 0, 1, 2), Ndcg(of_grades(3, 0, 1, 2), 3)
    tied = np.array([1.0, 1.0, 1.0, 2.0])
    orders = [np.array([*order, 9.0]) for order in itertools.permutations((1.0, 2.0, 3.0))]
    assert ndcg(tied) == pytest.approx(np.mean([ndcg(scores) for scores in orders]))
    backwards = Ndcg(Queries(queries.features, queries.grades[::-1], queries.sizes), 3)
    assert backwards(tied[::-1]) == pytest.approx(ndcg(tied))  # the file's order helps nobody


def test_a_query_of_one_grade_counts_as_one_whatever_the_order() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 6))
    for grade in (0, 3):
        assert Ndcg(of_grades(*[grade] * 4), 3)(scores) == pytest.approx(np.ones(6))


# -- the data ----------------------------------------------------------------------------------------


FILES = {"rank.train": b"2 1:0.5 300:1\n0 2:0.25\n1 3:0.125\n", "rank.train.query": b"2\n1\n"}
SHA256 = {name: hashlib.sha256(body).hexdigest() for name, body in FILES.items()}


@pytest.fixture
def home(home: tuple[str, dict[str, bytes]]) -> tuple[str, dict[str, bytes]]:
    """The data's home, with the two files."""
    home[1].update({f"/{name}": body for name, body in FILES.items()})
    return home


def test_what_was_downloaded_is_read(home: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    url, _ = home
    folder = data.download(tmp_path / "new", home=url, sha256=SHA256)
    queries = data.load(folder, "rank.train", sha256=SHA256)
    assert queries.features.shape == (3, 301)
    assert (queries.features[0, 1], queries.features[0, 300], queries.features[1, 2]) == (0.5, 1.0, 0.25)
    assert queries.grades.tolist() == [2, 0, 1]
    assert queries.sizes.tolist() == [2, 1]
    assert queries.part(np.array([1, 0])).grades.tolist() == [1, 2, 0]


@pytest.mark.parametrize(("body", "message"), [(None, "404"), (b"<html>sorry</html>", "sha256")])
def test_a_download_that_is_not_the_data_keeps_nothing(
    home: tuple[str, dict[str, bytes]], tmp_path: Path, body: bytes | None, message: str
) -> None:
    url, served = home
    del served["/rank.train.query"]
    if body is not None:
        served["/rank.train.query"] = body
    with pytest.raises(data.DataError, match=message):
        data.download(tmp_path / "new", home=url, sha256=SHA256)
    assert not (tmp_path / "new").exists()


def test_files_that_are_missing_damaged_or_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match=r"ranking_app\.data --download"):
        data.load(tmp_path)
    (tmp_path / "rank.train.xz").write_bytes(lzma.compress(FILES["rank.train"])[:40])
    with pytest.raises(data.DataError, match="damaged"):
        data.load(tmp_path, "rank.train", sha256=SHA256)
    (tmp_path / "rank.train").write_bytes(FILES["rank.train"].replace(b"2 ", b"3 "))
    with pytest.raises(data.DataError, match="sha256"):
        data.load(tmp_path, "rank.train", sha256=SHA256)


@pytest.mark.parametrize(
    ("line", "message"),
    [(b"5 1:0.5", "0 to 4"), (b"1 301:0.5", "line 1"), (b"1 x", "line 1"), (b"\n", "line 1")],
    ids=["a grade", "a column", "no value", "nothing"],
)
def test_a_line_that_makes_no_sense_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    files = {"rank.train": line, "rank.train.query": b"1"}
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)
    sums = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    with pytest.raises(data.DataError, match=message):
        data.load(tmp_path, "rank.train", sha256=sums)


# -- the rankers -------------------------------------------------------------------------------------


def test_folds_leave_every_query_out_once() -> None:
    parts = list(rankers.folds(23, 5, seed=3))
    assert sorted(np.concatenate([left_out for _, left_out in parts]).tolist()) == list(range(23))
    assert all(set(rest).isdisjoint(left_out) and len(rest) + len(left_out) == 23 for rest, left_out in parts)


def test_ridge_solves_the_normal_equations_up_to_scale() -> None:
    train = made_up()
    (fitted,) = rankers.ridge(train, (10.0,)).values()
    x = (train.features - fitted.mean) / fitted.deviation
    gradient = x.T @ (train.grades - train.grades.mean())
    other = (x.T @ x + 10.0 * np.eye(data.COLUMNS)) @ fitted.weights
    np.testing.assert_allclose(other / np.linalg.norm(other), gradient / np.linalg.norm(gradient), atol=1e-9)
    assert (fitted.weights**2).mean() == pytest.approx(1.0)


@pytest.mark.parametrize("use", ["openai-es", "auto"])
@pytest.mark.parametrize("penalty", [None, 10.0], ids=["zero", "ridge"])
def test_a_search_begins_at_its_start_and_improves_the_training_metric(
    use: str, penalty: float | None
) -> None:
    train = made_up()
    found = rankers.Tuned(use, seed=1, trials=(0, 160), penalty=penalty)(train)
    before, after = (float(Ndcg(train, rankers.K)(score(train.features))[0]) for score in found.values())
    start = rankers.chance(train)[0] if penalty is None else rankers.ridge(train, (penalty,))[penalty]
    assert before == pytest.approx(Ndcg(train, rankers.K)(start(train.features))[0])
    assert after > before


def test_the_chosen_setting_is_the_best_on_queries_that_were_left_out() -> None:
    def fit(train: Queries) -> dict[float, rankers.Score]:
        known = {row.tobytes() for row in train.features}

        def by_heart(x: np.ndarray) -> np.ndarray:
            return np.array([5.0 if row.tobytes() in known else 0.0 for row in x])

        return {1: by_heart, 2: lambda x: x[:, 1] - x[:, 2], 3: lambda x: x[:, 1] - x[:, 2]}

    assert rankers.chosen(fit, made_up(), inner=3, seed=0) == 2


def test_an_error_is_that_of_a_mean_over_queries() -> None:
    value = np.random.default_rng(0).normal(size=(1, 40))
    row = compare.Row({rankers.K: value}, [[np.arange(20), np.arange(20, 40)]])
    mean, over_queries, over_folds = row.error()
    assert mean == pytest.approx(value.mean())
    assert over_queries == pytest.approx(value.std(ddof=1) / 40**0.5)
    assert over_folds == pytest.approx(abs(value[0, :20].mean() - value[0, 20:].mean()) / 2)
    assert row.error(row) == (0.0, 0.0, 0.0)


# -- with the data -----------------------------------------------------------------------------------


@needs_data
def test_all_queries_are_there_and_chance_is_where_it_was_found() -> None:
    queries = data.load(DATA)
    assert (len(queries), len(queries.grades)) == (251, 3773)
    test = data.load(DATA, "rank.test")
    found = [float(Ndcg(test, k)(np.zeros(len(test.grades)))[0]) for k in (1, 3, 5, 10)]
    # What drawing orders has given, published beside the data.
    assert found == pytest.approx([0.353, 0.418, 0.473, 0.583], abs=0.006)


@needs_data
def test_a_short_comparison_tests_every_ranker_on_every_query() -> None:
    rows = compare.compare(data.load(DATA), repeats=1, outer=2, inner=2, trials=(0, 48))
    assert len(rows) == 11
    assert all((row.ndcg[1] >= 0).all() and len(row.train) == 2 for row in rows.values())
    assert rows["random order"].mean(5) == pytest.approx(0.492, abs=0.001)
    for name in (compare.RIDGE, compare.LAMBDARANK, "openai-es from ridge, all 48"):
        assert 0.6 < rows[name].mean(5) < 0.75
        assert rows[name].error(rows["random order"])[0] > 0.1
    table = list(compare.lines(rows))
    assert len(table[0]) == len(table[1])
    assert re.match(r"ridge regression +0\.\d{3}", table[2])


@needs_data
def test_the_campaign_improves_its_training_queries(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "tune.py"), "--data", str(DATA), "--directory", str(tmp_path)]
    done = subprocess.run([*command, "--trials", "64"], capture_output=True, text=True, check=False)
    found = re.search(r"201 training queries +(\S+) -> (\S+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) < float(found[2])
    assert "50 test queries" in done.stdout


def test_a_place_without_the_data_is_named_with_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "compare.py"), "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "python -m ranking_app.data --download FOLDER" in done.stderr
