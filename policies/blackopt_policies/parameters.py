"""Named parameters: the artifact is one JSON object, a value for each name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from blackopt.errors import UsageError
from blackopt.protocols import PluginOptions
from blackopt.space import BlockSpec, Space
from blackopt.types import Artifact, Vector


class ParametersOptions(PluginOptions):
    """``policy: {use: parameters, space: {...}}``."""

    space: dict[str, BlockSpec] = Field(
        description="Parameters by name, each with its kind, bounds and start."
    )

    @model_validator(mode="after")
    def _is_a_space(self) -> Self:
        Space.from_spec(self.space)
        return self


class Parameters:
    """Renders a vector as ``{"lr":0.01,"mode":"a"}``: declared order, floats that read back exactly.

    Args:
        options: the space.
        base: folder of the campaign; not used, as there are no files.

    Attributes:
        space: as declared.
    """

    Options: ClassVar[type[PluginOptions]] = ParametersOptions

    def __init__(self, options: ParametersOptions, *, base: Path) -> None:
        self.base = base
        self.space = Space.from_spec(options.space)

    def start(self) -> Vector:
        """(n,) the declared start values."""
        return self.space.start()

    def render(self, vector: Vector) -> Artifact:
        """The parameters of (n,) coordinates.

        Raises:
            UsageError: another shape, or a coordinate outside the bounds.
        """
        values = self.space.decode(vector)
        return Artifact(
            json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        )

    def parse(self, artifact: Artifact) -> Vector:
        """(n,) the coordinates of an artifact; ``render`` gives the same bytes for them.

        Raises:
            UsageError: no JSON object, a name that is missing or unknown, or a value outside its bounds.
        """
        try:
            values = json.loads(artifact.body)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"artifact: expected JSON, got {artifact.body[:40]!r} ({error})") from error
        if not isinstance(values, dict):
            raise UsageError(f"artifact: expected a JSON object of parameters, got {type(values).__name__}")
        return self.space.encode(values)
