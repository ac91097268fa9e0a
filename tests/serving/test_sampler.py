"""Sampling per unit: sticky, even, whole while versions change, and never more than what is ordered."""

from __future__ import annotations

import json
import math
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blackopt.artifacts import Centre, Keyed, Kind, Store, full
from blackopt.artifacts.centre import reference
from blackopt.artifacts.table import BLOCK, table
from blackopt.errors import UsageError
from blackopt.serving import Arms, Models, Sampler
from blackopt.serving.models import Moves, Served, Still
from blackopt.traffic import allocate
from blackopt.types import Adopt, Artifact, Placement, Push, Withdraw
from blackopt_connectors.file import FileOptions, FileTarget

SHAPES = {"w": (40, 20), "b": (40,)}
SIZE = 840
SIGMA = 0.05


class Model:
    """Says all its numbers: what is served can be compared with what should be."""

    made = 0

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        type(self).made += 1
        self.tensors = tensors

    def act(self) -> bytes:
        return b"".join(self.tensors[name].tobytes() for name in SHAPES)


def centre(version: int, still: tuple[str, ...] = ()) -> Centre:
    values = np.random.default_rng(version).standard_normal(SIZE, dtype=np.float32)
    return Centre("feed", version, 5, SHAPES, values, still)


def expected(version: int, candidate: Keyed | None, still: tuple[str, ...] = ()) -> bytes:
    given = centre(version, still)
    out = given.values.copy()
    return (out if candidate is None else given.perturb(candidate, out)).tobytes()


class Lane:
    """A driver's side of one campaign, and a module that reads its directory; time is in the test's hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kill_file = folder / "arms", folder / "KILL"
        self.folder.mkdir()
        self.store = Store(folder / "centres")
        self.target = FileTarget(FileOptions(directory=self.folder), base=folder)
        self.incumbent = centre(1_000)
        self.later_s = 0.0
        self.trials = 0
        self.samplers: list[Sampler[Model]] = []

    def sampler(self, **options: Any) -> Sampler[Model]:
        defaults: dict[str, Any] = {
            "campaign": "feed",
            "store": self.folder.parent / "centres",
            "model": Model,
            "incumbent": self.incumbent.tensors(),
            "kill_file": self.kill_file,
            "every_s": None,
            "clocks": (lambda: time.monotonic() + self.later_s, lambda: time.time() + self.later_s),
        }
        self.samplers.append(Sampler.load(self.folder, **{**defaults, **options}))
        return self.samplers[-1]

    def window(
        self, number: int, version: int, *, pairs: int = 4, kind: Kind = Kind.TABLE, ttl_s: float = 900.0
    ) -> dict[str, Keyed]:
        """Push twins: what each arm serves."""
        control, slices = allocate(1_000_000, 200_000, 2 * pairs)
        served: dict[str, Keyed] = {}
        for index, part in enumerate(slices):
            trial = self.trials
            self.trials += 1
            served[f"t{trial}"] = Keyed(version, trial // 2, 1 - 2 * (index % 2), SIGMA, kind)
            placement = Placement(number, f"s.{number}", part, control)
            artifact = served[f"t{trial}"].encode()
            order = Push(f"k{trial}", "feed", trial, f"t{trial}", 1, ttl_s, artifact, placement)
            assert self.target.push(order).outcome == "applied"
        return served

    def withdraw(self, arms: Mapping[str, object]) -> None:
        for arm in arms:
            self.target.withdraw(Withdraw(f"w{arm}", "feed", int(arm[1:]), arm, 1))


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    lane = Lane(tmp_path)
    yield lane
    for sampler in lane.samplers:
        sampler.close()


def units(count: int = 400) -> list[str]:
    return [f"user {number}" for number in range(count)]


@settings(deadline=None)
@given(
    lead=st.integers(0, 3 * BLOCK),
    still=st.integers(0, BLOCK),
    rest=st.integers(1, 2 * BLOCK),
    sign=st.sampled_from([1, -1]),
    sigma=st.floats(1e-3, 10.0),
)
def test_products_that_are_at_hand_give_the_same_bits(
    lead: int, still: int, rest: int, sign: int, sigma: float
) -> None:
    values = np.random.default_rng(1).standard_normal(lead + still + rest, dtype=np.float32)
    shapes = {"a": (lead,), "still": (still,), "b": (rest,)}
    around = Centre("feed", 1, 5, shapes, values, ("still",))
    candidate = Keyed(1, rest, sign, sigma, Kind.TABLE)
    one, two = values.copy(), values.copy()
    around.perturb(candidate, one)
    moves = Moves.of(around, candidate, table(5) * np.float32(sigma))
    Served(Still(around, 1, None), candidate, moves).fill(two)
    assert one.tobytes() == two.tobytes()


def test_more_steps_than_have_tables_give_the_same_numbers(lane: Lane) -> None:
    centre(3).publish(lane.store)
    models = Models(lane.folder.parent / "centres", "feed", Model, incumbent=lane.incumbent.tensors())
    candidates = [Keyed(3, 1, 1, 0.01 * (number + 1), Kind.TABLE) for number in range(7)]
    loaded = [models.load(candidate.encode()) for candidate in candidates]
    assert sum(served.moves is not None for served in loaded) == 4
    for served, candidate in zip(loaded, candidates, strict=True):
        out = np.empty(SIZE, np.float32)
        served.fill(out)
        assert out.tobytes() == expected(3, candidate)


@pytest.mark.parametrize("kind", list(Kind))
def test_each_unit_is_served_the_numbers_of_its_arm_and_keeps_them(lane: Lane, kind: Kind) -> None:
    centre(3).publish(lane.store)
    arms = lane.window(1, 3, kind=kind)
    sampler = lane.sampler()
    seen: dict[str, bytes] = {}
    for unit in [*units(), *units()]:
        with sampler.perturb(unit) as p:
            candidate = arms.get(p.arm or "")
            assert p.act() == expected(3, candidate), "the control gets the centre"
            assert (p.window, p.version) == (1, 3)
            assert (p.key, p.sign) == ((candidate.key, candidate.sign) if candidate else (None, None))
            assert p.act() == seen.setdefault(unit, p.act())
    assert len(set(seen.values())) == 9, "eight candidates and the centre"


def test_centres_may_be_at_a_url(lane: Lane) -> None:
    url = f"memory://{lane.folder}"
    centre(3).publish(Store(url))
    arms = lane.window(1, 3)
    sampler = lane.sampler(store=url)
    for unit in units(40):
        with sampler.perturb(unit) as p:
            assert p.act() == expected(3, arms.get(p.arm or ""))


def test_outside_every_arm_is_the_incumbent(lane: Lane) -> None:
    sampler = lane.sampler()
    with sampler.perturb("anyone") as p:
        assert (p.arm, p.window, p.version, p.key) == (None, 0, None, None)
        assert p.act() == expected(1_000, None)
    centre(3).publish(lane.store)
    arms = lane.window(1, 3)
    sampler.refresh()
    for unit in ("", "\ud800"):
        with sampler.perturb(unit) as p:
            assert (p.arm, p.act()) == (None, expected(1_000, None))
    with pytest.raises(UsageError, match="unit: expected a string"):
        sampler.perturb(7)  # type: ignore[arg-type]
    lane.withdraw(arms)
    sampler.refresh()
    assert {sampler.perturb(unit).arm for unit in units()} == {None}


@pytest.mark.parametrize("seed", range(3))
def test_twins_and_control_get_their_shares(lane: Lane, seed: int) -> None:
    """Pearson's chi-square over eight arms and the control: beyond 26.1 one time in a thousand."""
    centre(3).publish(lane.store)
    lane.window(1 + seed, 3)
    sampler = lane.sampler()
    count = 20_000
    served = Counter(sampler.perturb(f"{seed}/{number}").arm for number in range(count))
    shares = {arm: 0.2 if arm == "control" else 0.1 for arm in served}
    assert len(shares) == 9
    assert math.isclose(sum(shares.values()), 1.0)
    chi2 = sum((served[arm] - count * share) ** 2 / (count * share) for arm, share in shares.items())
    assert chi2 < 26.1


def test_the_next_window_deals_anew(lane: Lane) -> None:
    centre(3).publish(lane.store)
    centre(4).publish(lane.store)
    lane.window(1, 3)
    sampler = lane.sampler()
    before = {unit: sampler.perturb(unit).arm for unit in units()}
    second = lane.window(2, 4)
    sampler.refresh()
    perturbed = {unit: sampler.perturb(unit) for unit in units()}
    assert {p.arm for p in perturbed.values()} == {*second, "control"}
    assert {(p.window, p.version) for p in perturbed.values()} == {(2, 4)}
    stayed = sum((before[unit] == "control") == (p.arm == "control") for unit, p in perturbed.items())
    assert stayed < 0.8 * len(perturbed), "salts are of the window"


def test_blocks_that_take_no_noise_stay_those_of_the_centre(lane: Lane) -> None:
    for version in (3, 4):
        centre(version, still=("w",)).publish(lane.store)
    first = lane.window(1, 3)
    sampler = lane.sampler()
    for window, version, arms in ((1, 3, first), (2, 4, None)):
        arms = arms or lane.window(window, version)
        sampler.refresh()
        for unit in units(100):
            with sampler.perturb(unit) as p:
                assert p.act() == expected(version, arms.get(p.arm or ""), still=("w",))
                assert p.model.tensors["w"].tobytes() == centre(version).tensors()["w"].tobytes()


def test_a_candidate_that_is_there_already_is_not_computed(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    compute = Served.fill

    def counting(self: Served[Model], out: NDArray[np.float32]) -> None:
        computed.append(self.candidate)
        compute(self, out)

    monkeypatch.setattr(Served, "fill", counting)
    centre(3).publish(lane.store)
    arms = lane.window(1, 3)
    sampler = lane.sampler(keep=2)
    by_arm = {sampler.perturb(unit).arm: unit for unit in units()}
    one, two, three = (by_arm[arm] for arm in ("t0", "t1", "t2"))
    for unit in (one, one, two, one, two):
        with sampler.perturb(unit):
            pass
    assert [c and c.sign for c in computed] == [1, -1], "two are kept"
    lane.target.push(  # a renewal is the same candidate
        Push("k0", "feed", 0, "t0", 1, 900.0, arms["t0"].encode(), Placement(1, "s.1", *_slices(0)))
    )
    sampler.refresh()
    with sampler.perturb(one), sampler.perturb(by_arm["control"]):
        pass
    assert len(computed) == 2
    for unit in (three, one, two):
        with sampler.perturb(unit):
            pass
    assert len(computed) == 4, "the one that was used longest ago has made room"


def _slices(index: int) -> tuple[Any, Any]:
    control, slices = allocate(1_000_000, 200_000, 8)
    return slices[index], control


def test_open_perturbations_have_memory_of_their_own(lane: Lane) -> None:
    centre(3).publish(lane.store)
    arms = lane.window(1, 3)
    sampler = lane.sampler()
    by_arm = {sampler.perturb(unit).arm: unit for unit in units()}
    made = Model.made
    for _ in range(3):
        with (
            sampler.perturb(by_arm["t0"]) as a,
            sampler.perturb(by_arm["t1"]) as b,
            sampler.perturb(by_arm["t0"]) as c,
        ):
            assert a.model is not c.model
            for p in (a, b, c):
                assert p.act() == expected(3, arms[p.arm or ""])
            with pytest.raises(UsageError, match="open already"), a:
                pass
    assert Model.made == made + 3, "models are made once for each"


def test_an_error_in_the_block_gives_the_memory_back(lane: Lane) -> None:
    centre(3).publish(lane.store)
    lane.window(1, 3)
    sampler = lane.sampler()
    unit = next(unit for unit in units() if sampler.perturb(unit).key is not None)
    made = Model.made
    for _ in range(5):
        with pytest.raises(RuntimeError, match="mine"), sampler.perturb(unit):
            raise RuntimeError("mine")
    assert Model.made == made + 1


def test_versions_change_under_requests_without_a_gap_or_a_torn_model(lane: Lane) -> None:
    versions = 6
    for version in range(versions):
        centre(version).publish(lane.store)
    right = {expected(version, None) for version in range(versions)}
    right |= {
        expected(version, Keyed(version, version * 4 + pair, sign, SIGMA, Kind.TABLE))
        for version in range(versions)
        for pair in range(4)
        for sign in (1, -1)
    }
    lane.window(1, 0)
    sampler = lane.sampler()
    stop, wrong, served = threading.Event(), [], Counter[int | None]()

    def requests(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with sampler.perturb(f"{name} {number}") as p:
                first = p.act()
                if first not in right or p.act() != first or p.version is None:
                    wrong.append((p.arm, p.version))
                served[p.version] += 1

    threads = [threading.Thread(target=requests, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for version in range(1, versions):
        while served[version - 1] < 100:
            time.sleep(0.001)
        lane.window(version + 1, version)
        sampler.refresh()
    while served[versions - 1] < 100:
        time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(served) == set(range(versions)), "never the incumbent in between"


def test_leases_end(lane: Lane) -> None:
    centre(3).publish(lane.store)
    lane.window(1, 3, ttl_s=60.0)
    sampler = lane.sampler()
    assert sampler.perturb("a user").arm is not None
    lane.later_s = 59.0
    assert sampler.perturb("a user").arm is not None
    lane.later_s = 61.0
    assert {sampler.perturb(unit).arm for unit in units()} == {None}, "without a look at the disk"
    sampler.refresh()
    late = lane.sampler()
    assert {late.perturb(unit).arm for unit in units()} == {None}


def test_the_kill_file_stops_everything(lane: Lane) -> None:
    centre(3).publish(lane.store)
    lane.window(1, 3)
    sampler = lane.sampler()
    lane.kill_file.touch()
    lane.later_s += 2
    for unit in units(50):
        with sampler.perturb(unit) as p:
            assert (p.arm, p.act()) == (None, expected(1_000, None))
    lane.kill_file.unlink()
    lane.later_s += 2
    assert sampler.perturb("a user").arm is not None


def test_an_arm_whose_centre_is_not_there_is_refused_until_it_is(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    arms = lane.window(1, 3)
    sampler = lane.sampler()
    assert {sampler.perturb(unit).arm for unit in units()} == {None}
    assert "t0.json is not served: the centre of this version is not in the store (feed.v3)" in caplog.text
    caplog.clear()
    sampler.refresh()
    assert caplog.text == "", "said once"
    centre(3).publish(lane.store)
    for index, (arm, candidate) in enumerate(arms.items()):
        placement = Placement(1, "s.1", *_slices(index))
        lane.target.push(Push("k", "feed", int(arm[1:]), arm, 1, 901.0, candidate.encode(), placement))
    sampler.refresh()
    assert {sampler.perturb(unit).arm for unit in units()} == {*arms, "control"}


@pytest.mark.parametrize(
    ("artifact", "reason"),
    [
        (Artifact(b"{}"), "media type 'application/json'; this module takes"),
        (Keyed(3, 1, 1, 0.2).encode(), "sigma is 0.2; at most 0.1 here"),
        (Keyed(4, 1, 1, 0.1).encode(), "its tensors w (3,) are not those of the model, w (40, 20), b (40,)"),
        (Artifact(b"K", Keyed(3, 1, 1, 0.2).encode().media_type), "this is not a candidate by key"),
        (Keyed(6, 1, 1, 0.1).encode(), "what the store calls feed.v6 is feed.v3"),
        (reference("0" * 64), "an artifact is not in the store"),
        (reference("../../passwd"), "expected a sha256"),
        (full({"w": np.zeros((40, 20)), "b": np.zeros(40)}), "a tensor of it is not float32"),
        (full({"w": np.zeros((40, 20), np.float32)}), "are not those of the model"),
    ],
)
def test_what_the_module_refuses(lane: Lane, artifact: Artifact, reason: str) -> None:
    lane.store.label("feed.v6", centre(3).publish(lane.store))
    Centre("feed", 4, 5, {"w": (3,)}, np.zeros(3, np.float32)).publish(lane.store)
    models = Models(
        lane.folder.parent / "centres", "feed", Model, incumbent=lane.incumbent.tensors(), max_sigma=0.1
    )
    arms = Arms(accept=models.accept, load=models.load, incumbent=models.incumbent, secrets=[])
    status, answer = arms.handle("POST", "/push", {"Content-Type": "application/json"}, _body(artifact))
    assert status == 422
    assert json.loads(answer)["detail"].startswith("bounds: ")
    assert reason in json.loads(answer)["detail"]


def _body(artifact: Artifact, **fields: Any) -> bytes:
    from blackopt_connectors._wire import push_body

    placement = Placement(1, "s", *_slices(0))
    return push_body(Push("k", "feed", 1, "t1", 1, 60.0, artifact, placement))


def test_orders_by_http_do_the_same(lane: Lane) -> None:
    centre(3).publish(lane.store)
    models = Models(lane.folder.parent / "centres", "feed", Model, incumbent=lane.incumbent.tensors())
    arms = Arms(accept=models.accept, load=models.load, incumbent=models.incumbent, secrets=[])
    candidate = Keyed(3, 1, -1, SIGMA, Kind.SIGN)
    status, _ = arms.handle("POST", "/push", {"Content-Type": "application/json"}, _body(candidate.encode()))
    assert status == 200
    sampler = Sampler(arms, models)
    for unit in units():
        with sampler.perturb(unit) as p:
            right = {"t1": expected(3, candidate), "control": expected(3, None), None: expected(1_000, None)}
            assert p.act() == right[p.arm]
    sampler.refresh()
    sampler.close()


def test_a_centre_or_a_whole_model_is_served_as_it_is_beside_the_incumbent(lane: Lane) -> None:
    name = centre(3).publish(lane.store)
    control, slices = allocate(1_000_000, 200_000, 2)
    for trial, artifact in enumerate((reference(name), full(centre(9).tensors()))):
        placement = Placement(1, "s.1", slices[trial], control)
        lane.target.push(Push(f"k{trial}", "feed", trial, f"t{trial}", 1, 900.0, artifact, placement))
    sampler = lane.sampler()
    right = {"t0": (3, 3), "t1": (9, None), "control": (1_000, None)}
    for unit in units(100):
        with sampler.perturb(unit) as p:
            numbers, version = right[p.arm or ""]
            assert (p.act(), p.version, p.key) == (expected(numbers, None), version, None)


def test_what_was_adopted_is_the_incumbent_also_after_a_restart(lane: Lane) -> None:
    name = centre(3).publish(lane.store)
    sampler = lane.sampler()
    lane.target.adopt(Adopt("a", "feed", 1, 1, reference(name)))
    sampler.refresh()
    for each in (sampler, lane.sampler()):
        with each.perturb("anyone") as p:
            assert (p.arm, p.version, p.act()) == (None, 3, expected(3, None))
    lane.kill_file.touch()
    with lane.sampler().perturb("anyone") as p:
        assert p.act() == expected(1_000, None), "the configured one, not the adopted one"


def test_an_adoption_that_is_refused_leaves_the_incumbent(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    lane.target.adopt(Adopt("a", "feed", 1, 1, reference("0" * 64)))
    sampler = lane.sampler()
    with sampler.perturb("anyone") as p:
        assert p.act() == expected(1_000, None)
    assert "incumbent is not served: an artifact is not in the store" in caplog.text


def test_files_that_are_no_orders_are_said_and_not_served(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    centre(3).publish(lane.store)
    arms = lane.window(1, 3, pairs=1)
    folder = lane.folder / "feed"
    (folder / "t90.json").write_text("{")
    (folder / "t91.json").write_bytes((folder / "t0.json").read_bytes())
    (folder / "t92.json").symlink_to(folder / "t0.json")
    (folder / "notes.txt").write_text("x")
    (folder / "t93.json").mkdir()
    sampler = lane.sampler()
    assert {sampler.perturb(unit).arm for unit in units()} == {*arms, "control"}
    assert "t90.json is not served: malformed" in caplog.text
    assert "t91.json is not served: malformed: it is the push of t0" in caplog.text
    assert "t92" not in caplog.text


def test_more_traffic_than_the_module_lends_is_not_served(lane: Lane) -> None:
    centre(3).publish(lane.store)
    lane.window(1, 3)
    sampler = lane.sampler(max_share=0.35)
    assert {sampler.perturb(unit).arm for unit in units()} == {"t0", "t1", "t2", "control", None}


def test_a_directory_that_cannot_be_read_changes_nothing(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    centre(3).publish(lane.store)
    arms = lane.window(1, 3)
    sampler = lane.sampler()
    (lane.folder / "feed").rename(lane.folder / "away")
    (lane.folder / "feed").touch()  # scandir: not a directory
    sampler.refresh()
    assert {sampler.perturb(unit).arm for unit in units()} == {*arms, "control"}
    assert "cannot be read" in caplog.text


def test_a_thread_looks_by_itself_and_ends(lane: Lane) -> None:
    centre(3).publish(lane.store)
    sampler = lane.sampler(every_s=0.01)
    lane.window(1, 3)
    until = time.monotonic() + 30
    while sampler.perturb("a user").arm is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    sampler.close()
    until = time.monotonic() + 30
    while any(thread.name == "blackopt-arms" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_centres_that_nothing_refers_to_are_let_go(lane: Lane) -> None:
    import gc

    for version in range(4):
        centre(version).publish(lane.store)
    sampler = lane.sampler()
    for version in range(4):
        lane.window(version + 1, version)
        sampler.refresh()
        for unit in units(50):
            with sampler.perturb(unit):
                pass
    gc.collect()
    # A whole model has the seed 0.
    alive = {each.version for each in gc.get_objects() if type(each) is Centre and each.seed == 5}
    assert 3 in alive
    assert not alive & {0, 1, 2}


def test_memory_does_not_grow_with_requests(lane: Lane) -> None:
    centre(3).publish(lane.store)
    lane.window(1, 3)
    sampler = lane.sampler(keep=2)

    def requests(count: int) -> None:
        for number in range(count):
            with sampler.perturb(f"user {number}") as p:
                p.act()

    requests(1_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        requests(10_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000, "ten bytes a request"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"campaign": "../x"}, "campaign: expected"),
        ({"keep": 0}, "keep: expected"),
        ({"max_sigma": 0.0}, "max_sigma: expected"),
        ({"incumbent": {}}, "incumbent: expected float32"),
        ({"incumbent": {"w": np.zeros(3)}}, "incumbent: expected float32"),
        ({"every_s": 0.0}, "every_s: expected"),
        ({"max_share": 0.0}, "max_share: expected"),
    ],
)
def test_impossible_arguments(lane: Lane, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lane.sampler(**change)


def test_to_log_needs_a_log(lane: Lane) -> None:
    with lane.sampler().perturb("a user") as p, pytest.raises(UsageError, match="made without a log"):
        p.log()
