"""The conformance suite of policies: subclass it in your tests, and every rule of the contract is checked.

class TestMyPolicy(PolicySuite):
    def make(self) -> Policy:
        return MyPolicy(MyPolicy.Options(size=3), base=Path("."))
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import pytest

from blackopt.errors import UsageError
from blackopt.protocols import Layered, PluginOptions, Policy
from blackopt.space import Space
from blackopt.types import Artifact, Vector

POINTS = 50
"""How many random points each rule is tried at."""


def points(space: Space, start: Vector) -> Iterator[Vector]:
    """The start, the corners, and random points of a space, always the same; each (n,) inside the bounds."""
    rng = np.random.default_rng(2)
    bounded = np.isfinite(space.lower) & np.isfinite(space.upper)
    yield start
    yield np.where(bounded, space.lower, 0.0)
    yield np.where(bounded, space.upper, 0.0)
    for _ in range(POINTS):
        inside = space.lower[bounded] + rng.random(int(bounded.sum())) * (space.upper - space.lower)[bounded]
        # Unbounded coordinates over many orders of magnitude, where rounding differs.
        point = start + rng.normal(size=space.size) * 10.0 ** rng.integers(-12, 6, size=space.size)
        point[bounded] = inside
        yield space.clip(point)


class PolicySuite(ABC):
    """Rules that every policy keeps. Subclasses say how to build one."""

    @abstractmethod
    def make(self) -> Policy:
        """A new policy, built the same way every time."""

    def test_it_has_the_shape_of_a_policy(self) -> None:
        """Protocol, options that forbid unknown keys, and a space."""
        policy = self.make()
        assert isinstance(policy, Policy)
        assert issubclass(policy.Options, PluginOptions)
        assert policy.Options.model_config.get("extra") == "forbid"
        assert isinstance(policy.space, Space)

    def test_the_start_lies_inside_the_bounds_and_belongs_to_the_caller(self) -> None:
        """(n,) float64; changing the array changes nothing in the policy."""
        policy = self.make()
        start = policy.start()
        assert start.shape == (policy.space.size,)
        assert start.dtype == np.float64
        assert policy.space.contains(start)
        before = start.copy()
        start += 1.0
        assert np.array_equal(policy.start(), before)

    def test_shapes_are_those_of_its_blocks(self) -> None:
        """A policy that says the shapes of its tensors says them of all its numbers."""
        policy = self.make()
        sizes = {block.name: block.size for block in policy.space.blocks}
        for name, shape in policy.shapes.items() if isinstance(policy, Layered) else ():
            assert sizes.get(name, math.prod(shape)) == math.prod(shape)

    def test_the_same_vector_gives_the_same_bytes(self) -> None:
        """From one policy, from two, and without touching the vector."""
        policy, twin = self.make(), self.make()
        for point in points(policy.space, policy.start()):
            kept = point.copy()
            first = policy.render(point)
            assert np.array_equal(point, kept)
            assert policy.render(kept) == first == twin.render(kept)

    def test_what_was_rendered_is_parsed_back_exactly(self) -> None:
        """``render(parse(a)) == a``, and the parsed vector lies inside the bounds."""
        policy = self.make()
        for point in points(policy.space, policy.start()):
            artifact = policy.render(point)
            parsed = policy.parse(artifact)
            assert policy.space.contains(parsed)
            assert policy.render(parsed) == artifact

    def test_different_points_give_different_artifacts(self) -> None:
        """Random points differ, so must what production runs."""
        policy = self.make()
        natural = {repr(policy.space.decode(p)) for p in points(policy.space, policy.start())}
        bodies = {policy.render(p).body for p in points(policy.space, policy.start())}
        assert len(bodies) == len(natural) > 1

    def test_an_artifact_is_named_by_its_bytes(self) -> None:
        """Bytes, a media type, and the sha256 of the bytes."""
        policy = self.make()
        artifact = policy.render(policy.start())
        assert isinstance(artifact.body, bytes)
        assert artifact.body
        assert "/" in artifact.media_type
        assert artifact.sha256 == hashlib.sha256(artifact.body).hexdigest()

    def test_clipping_what_is_inside_changes_nothing(self) -> None:
        """The bounds hold no surprise."""
        policy = self.make()
        for point in points(policy.space, policy.start()):
            assert np.array_equal(policy.space.clip(point), point)

    def test_f78_what_is_no_point_of_the_space_is_not_rendered(self) -> None:
        """Another shape, NaN, or a coordinate outside its bounds."""
        policy = self.make()
        start = policy.start()
        wrong = [np.append(start, 0.0), start[None, :], np.full_like(start, np.nan)]
        bounded = np.flatnonzero(np.isfinite(policy.space.upper))
        if bounded.size:
            outside = start.copy()
            outside[bounded[0]] = policy.space.upper[bounded[0]] + 1.0
            wrong.append(outside)
        for vector in wrong:
            with pytest.raises(UsageError):
                policy.render(vector)

    @pytest.mark.parametrize("body", [b"", b"\x00\xff", b"[]", b'{"unknown": 1}'])
    def test_foreign_bytes_are_not_parsed(self, body: bytes) -> None:
        """An artifact of something else is the caller's error."""
        with pytest.raises(UsageError):
            self.make().parse(Artifact(body))
