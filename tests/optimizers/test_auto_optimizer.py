"""Auto: the conformance suite for each kind of choice, the table of rules, and what keeps a choice from
changing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from blackopt import plugins
from blackopt.errors import UsageError
from blackopt.optimizers.auto import RULES, Auto, AutoOptions, Noise, Task, chosen
from blackopt.optimizers.groups import Groups, GroupsOptions
from blackopt.optimizers.openai_es import OpenAIES
from blackopt.protocols import Believing, Explained
from blackopt.space import Space
from blackopt.testing.optimizers import (
    OptimizerConformance,
    fingerprint,
    noisy_script,
    through_json,
)


class TestAutoWithFewTrialsConformance(OptimizerConformance):
    """Reals choose ``surrogate``, the mixed space chooses ``ga``."""

    optimizer = Auto
    options: ClassVar[Mapping[str, Any]] = {"trials": 320, "parallel": 16}

    @pytest.mark.skip(
        reason="a surrogate's state grows up to 2,000 results; with fewer, its own tests hold it"
    )
    def test_a_dump_does_not_grow_with_what_was_told(self) -> None:
        """See :class:`TestAutoWithManyTrialsConformance`."""


class TestAutoWithoutNoiseConformance(OptimizerConformance):
    """Reals choose ``relay``."""

    optimizer = Auto
    options: ClassVar[Mapping[str, Any]] = {"trials": 320, "parallel": 16, "noise": "none"}


class TestAutoWithManyTrialsConformance(OptimizerConformance):
    """Reals choose ``openai-es``."""

    optimizer = Auto
    options: ClassVar[Mapping[str, Any]] = {"trials": 2001, "parallel": 1, "sigma": 0.2}
    budget: ClassVar[int] = 660  # fifteen populations: a dump of the same phase has the same size


def task(n: int = 10, trials: int = 320, **others: Any) -> Task:
    given = {"choices": 0, "integers": 0, "bounded": True, "parallel": 16, "noise": "some", **others}
    return Task(n=n, trials=trials, **given)


@pytest.mark.parametrize(
    ("given", "use", "options"),
    [
        (task(n=50, trials=2000), "surrogate", {}),
        (task(n=100, trials=1000), "surrogate", {}),
        (task(n=100, trials=1001), "openai-es", {"population": 32}),
        (task(n=101), "openai-es", {"population": 18}),
        (task(trials=2001), "openai-es", {"population": 44}),
        (task(trials=2001, noise="strong"), "openai-es", {"population": 90}),
        (task(n=101, parallel=64), "openai-es", {"population": 32}),
        (task(n=10**6, trials=20), "openai-es", {"population": 4}),
        (task(bounded=False), "surrogate", {}),
        (task(noise="none"), "relay", {}),
        (task(noise="none", n=100, trials=10**5), "relay", {}),
        (task(noise="none", integers=1), "surrogate", {}),
        (task(noise="none", integers=1, n=100, trials=1001), "cma-es", {"restarts": "bipop"}),
        (task(noise="none", n=101), "cma-es", {"covariance": "diagonal"}),
        (task(noise="none", n=10_000), "cma-es", {"covariance": "diagonal"}),
        (task(noise="none", n=10_001), "openai-es", {"population": 18}),
        (task(choices=1), "ga", {"population": 18}),
        (task(choices=1, trials=20), "ga", {"population": 8}),
        (task(integers=10), "surrogate", {}),
        (task(n=120, integers=60), "openai-es", {"population": 18}),
        (task(n=120, integers=61), "ga", {"population": 18}),
    ],
)
def test_the_table_at_its_thresholds(given: Task, use: str, options: dict[str, Any]) -> None:
    rule = chosen(given)
    assert rule.use == use
    assert rule.options(given) == options


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.because[:20])
def test_every_choice_comes_with_blackopt_itself(rule: Any) -> None:
    """An extra that is installed or not must not change a campaign, and the options must be real ones."""
    cls = plugins.find("optimizers", rule.use)
    cls.Options.model_validate({"seed": 1, "sigma": 0.3, **rule.options(task(trials=3))})
    for library in ("cmaes", "nevergrad", "optuna"):
        assert library not in cls.version


def weights(n: int) -> Space:
    return Space.from_spec({"w": {"weights": n}})


def floats(n: int) -> Space:
    return Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(n)})


def make(n: int, **options: Any) -> Auto:
    space = weights(n) if n > 50 else floats(n)
    return Auto(space, space.start(), AutoOptions(**{"trials": 320, "parallel": 4, **options}))


def test_it_is_what_it_chose() -> None:
    auto, own = make(120, sigma=0.5, seed=3), OpenAIES.Options(population=18, sigma=0.5, seed=3)  # type: ignore[call-arg]
    alone = OpenAIES(weights(120), np.zeros(120), own)
    for _ in range(3):
        script = noisy_script()
        for optimizer in (auto, alone):
            optimizer.tell([script(c) for c in optimizer.ask(20)])
    assert auto.recommend().tobytes() == alone.recommend().tobytes()
    assert auto.group == 2


def test_it_says_what_it_chose_and_why() -> None:
    few = make(12)
    assert isinstance(few, Explained)
    assert few.reason.startswith("surrogate, for 12 coordinates, 320 trials, 4 in flight, some noise: one")
    space = Space.from_spec({"a": {"choice": [1, 2]}, "k": {"int": [1, 3]}, "j": {"int": [1, 3]}})
    reason = Auto(space, space.start(), AutoOptions(trials=9, parallel=1, noise="none")).reason
    assert reason.startswith("ga, for 4 coordinates (1 choice, 2 integers), 9 trials")
    assert reason.endswith("no noise: choices have no slope to follow, and breeding needs none (provisional)")


def test_groups_pass_on_what_they_know_and_what_they_are_told() -> None:
    space = Space.from_spec({"a": {"simplex": 3}, "b": {"weights": 120}})
    parts = [{"blocks": [name], "use": "auto"} for name in space.slices]
    options = GroupsOptions.model_validate({"groups": parts, "trials": 320, "parallel": 4})
    both = Groups(space, space.start(), options)
    assert both.reason.startswith("surrogate, for 3 coordinates, 320 trials, 4 in flight")
    assert "; openai-es, for 120 coordinates (some without bounds), 320 trials, 4 in flight" in both.reason


@pytest.mark.parametrize("missing", ["trials", "parallel"])
def test_it_does_not_guess_how_many_trials_there_will_be(missing: str) -> None:
    with pytest.raises(UsageError, match=f"`{missing}` is needed"):
        make(3, **{missing: None})


@pytest.mark.parametrize(
    "other", [{"trials": 321}, {"parallel": 5}, {"noise": "strong"}, {"sigma": 0.1}, {"seed": 9}]
)
def test_a_state_of_other_options_is_refused(other: dict[str, Any]) -> None:
    auto = make(3)
    with pytest.raises(UsageError, match="options"):
        Auto.load(floats(3), AutoOptions(**{"trials": 320, "parallel": 4, **other}), auto.dump())


def test_the_choice_is_part_of_the_version() -> None:
    few, many = make(3), make(120)
    assert few.version != many.version
    assert few._optimizer.version in few.version
    state = through_json(few.dump())
    with pytest.raises(UsageError, match="version"):
        Auto.load(floats(3), AutoOptions(trials=320, parallel=4), {**state, "version": many.version})


@pytest.mark.parametrize("noise", ["none", "some", "strong"])
def test_a_loaded_one_has_made_the_same_choice(noise: Noise) -> None:
    auto = make(120, noise=noise)
    auto.tell([noisy_script()(c) for c in auto.ask(40)])
    options = AutoOptions(trials=320, parallel=4, noise=noise)
    again = Auto.load(weights(120), options, through_json(auto.dump()))
    assert (again.reason, again.version, again.group) == (auto.reason, auto.version, auto.group)
    assert fingerprint(again.dump()) == fingerprint(auto.dump())


def test_it_passes_on_what_is_believed_and_has_no_belief_of_its_own() -> None:
    few, many = make(3), make(120)
    assert isinstance(few, Believing)
    belief = few.belief()
    assert belief is not None
    assert (belief.improvement.value, belief.improvement.se, belief.probability) == (0.0, 0.0, 1.0)
    assert many.belief() is None
