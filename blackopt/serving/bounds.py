"""The module's own last word on an artifact: every parameter known, present, finite and inside its range."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from blackopt.errors import UsageError
from blackopt.serving import strict_json
from blackopt.serving.answers import Refused
from blackopt.types import Artifact

Bound: TypeAlias = tuple[float, float] | AbstractSet[str]
"""Lowest and highest allowed value, both inclusive; or the set of allowed strings."""


def within(bounds: Mapping[str, Bound]) -> Callable[[Artifact], None]:
    """A check for JSON artifacts that are one object of named parameters.

    A range applies to a number and to every number of a (nested) list. Put the ranges around the incumbent to
    cap the step as well. The optimizer has bounds too; these hold when it, its file or its host is wrong.

    Args:
        bounds: by parameter name: ``(lowest, highest)``, or a set of the strings that a choice may take.

    Returns:
        A callable for ``Arms(accept=...)`` that raises :class:`Refused`.

    Raises:
        UsageError: no bounds, a range that is empty or NaN, or an empty set.
    """
    if not bounds:
        raise UsageError("bounds: expected at least one parameter, got none")
    for name, bound in bounds.items():
        if isinstance(bound, tuple):
            if len(bound) != 2 or not bound[0] <= bound[1]:
                raise UsageError(
                    f"bounds[{name!r}]: expected (lowest, highest) with lowest <= highest, got {bound!r}"
                )
        elif not isinstance(bound, AbstractSet) or not bound:
            raise UsageError(
                f"bounds[{name!r}]: expected a pair of numbers or a set of strings, got {bound!r}"
            )
    frozen = dict(bounds)

    def check(artifact: Artifact) -> None:
        parameters = _parameters(artifact)
        for name in frozen:
            if name not in parameters:
                raise Refused(f"{name!r} is missing")
        for name, value in parameters.items():
            if name not in frozen:
                raise Refused(f"{name!r} is not a parameter of this module")
            for where, leaf in _leaves(repr(name), value):
                _check(where, leaf, frozen[name])

    return check


def _parameters(artifact: Artifact) -> dict[str, object]:
    if artifact.media_type.partition(";")[0].strip() != "application/json":
        raise Refused(f"media type {artifact.media_type!r}; this module takes application/json")
    try:
        value = strict_json.parse(artifact.body)
    except ValueError as error:
        raise Refused(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refused(f"expected one object of named parameters, got {type(value).__name__}")
    return value


def _leaves(where: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, list):
        if not value:
            raise Refused(f"{where} is an empty list")
        for index, item in enumerate(value):
            yield from _leaves(f"{where}[{index}]", item)
    else:
        yield where, value


def _check(where: str, leaf: object, bound: Bound) -> None:
    if not isinstance(bound, tuple):
        if not isinstance(leaf, str) or leaf not in bound:
            raise Refused(f"{where} is {leaf!r}, not one of {sorted(bound)}")
        return
    # bool is an int to Python, and no parameter's value.
    if isinstance(leaf, bool) or not isinstance(leaf, int | float) or not math.isfinite(leaf):
        raise Refused(f"{where} is {leaf!r}, not a finite number")
    if not bound[0] <= leaf <= bound[1]:
        raise Refused(f"{where} is {leaf!r}, outside [{bound[0]!r}, {bound[1]!r}]")
