"""The quadratic trust region: the conformance suite."""

from __future__ import annotations

from typing import Any, ClassVar

from blackopt.optimizers.surrogate import Surrogate
from blackopt.testing.optimizers import OptimizerConformance


class TestSurrogateConformance(OptimizerConformance):
    optimizer = Surrogate
    options: ClassVar[dict[str, Any]] = {"remember": 100}


class TestSurrogateThatRemembersAllConformance(OptimizerConformance):
    optimizer = Surrogate
    options: ClassVar[dict[str, Any]] = {"remember": 300}
