"""A linear model, y = W x + b, with named thresholds beside it, as JSON that any language can run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import PluginOptions
from blackopt.space import Block, BlockSpec, Space, WeightsBlock
from blackopt.types import Artifact, Vector

_Weight = Annotated[float, Field(allow_inf_nan=False)]
_OWN = ("weights", "bias")


class LinearOptions(PluginOptions):
    """``policy: {use: linear, inputs: 18, outputs: 3}``."""

    inputs: Annotated[int, Field(ge=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="Number of features, or their names in order; names are written into the artifact."
    )
    outputs: int = Field(1, ge=1, description="Number of outputs.")
    bias: bool = Field(
        True, description="Whether the optimizer moves the bias; it stays where it is otherwise."
    )
    scale: float = Field(1.0, gt=0.0, allow_inf_nan=False, description="Step of the optimizer in weights.")
    start: str | list[list[_Weight]] | None = Field(
        None,
        description="Path of an artifact of this policy, or weights as one list an output; zeros without.",
    )
    parameters: dict[str, BlockSpec] = Field(
        default_factory=dict, description="Named values beside the weights, such as thresholds."
    )

    @property
    def width(self) -> int:
        """How many features."""
        return self.inputs if isinstance(self.inputs, int) else len(self.inputs)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if isinstance(self.inputs, list) and len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs: the features must have different names, got {self.inputs!r}")
        for name in _OWN:
            if name in self.parameters:
                raise ValueError(f"parameters: {name!r} is taken by the model; choose another name")
        if self.parameters:
            Space.from_spec(self.parameters)
        if isinstance(self.start, list):
            _check_rows(self.start, self.outputs, self.width)
        return self


class Linear:
    """Renders ``{"weights":[[...]],"bias":[...],"parameters":{...}}``, one row of weights an output.

    The three keys are always there, ``inputs`` too where the features have names; floats read back exactly.

    Args:
        options: shape, scale and start.
        base: folder of the campaign, which a path under ``start`` is relative to.

    Attributes:
        space: blocks ``weights`` (row by row), ``bias`` unless it is fixed, then the parameters.
        shapes: of the first two.

    Raises:
        ConfigurationError: the artifact under ``start`` cannot be read, or does not fit.
    """

    Options: ClassVar[type[PluginOptions]] = LinearOptions

    def __init__(self, options: LinearOptions, *, base: Path) -> None:
        self._outputs, self._inputs = options.outputs, options.width
        self.shapes = {"weights": (self._outputs, self._inputs), "bias": (self._outputs,)}
        self._names = options.inputs if isinstance(options.inputs, list) else None
        self._parameters = tuple(options.parameters)
        self._learns_bias = options.bias
        self._bias = [0.0] * self._outputs
        specs = options.parameters
        rows: list[list[float]] | None = options.start if isinstance(options.start, list) else None
        if isinstance(options.start, str):
            rows, self._bias, values = self._load(base / options.start)
            specs = {name: spec.model_copy(update={"start": values[name]}) for name, spec in specs.items()}
        flat = None if rows is None else [weight for row in rows for weight in row]
        size = self._outputs * self._inputs
        try:
            blocks: list[Block] = [WeightsBlock("weights", size, scale=options.scale, start=flat)]
            if options.bias:
                blocks.append(WeightsBlock("bias", self._outputs, scale=options.scale, start=self._bias))
            self.space = Space([*blocks, *(spec.build(name) for name, spec in specs.items())])
        except UsageError as error:
            raise ConfigurationError(
                "the policy cannot start where it is told to",
                where=str(options.start if isinstance(options.start, str) else "policy.start"),
                why=str(error),
                next_step="correct `policy.start`, or leave it out to start with zero weights",
            ) from error

    def start(self) -> Vector:
        """(n,) the weights, bias and parameters under ``start``, or zeros and the parameters' own starts."""
        return self.space.start()

    def render(self, vector: Vector) -> Artifact:
        """The model of (n,) coordinates.

        Raises:
            UsageError: another shape, or a coordinate outside the bounds.
        """
        values = self.space.decode(vector)
        flat = values["weights"]
        assert isinstance(flat, list)  # a block of weights decodes to nothing else
        step = self._inputs
        body: dict[str, object] = {} if self._names is None else {"inputs": self._names}
        body["weights"] = [flat[row * step : (row + 1) * step] for row in range(self._outputs)]
        body["bias"] = values.get("bias", self._bias)
        body["parameters"] = {name: values[name] for name in self._parameters}
        return Artifact(json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())

    def parse(self, artifact: Artifact) -> Vector:
        """(n,) the coordinates of an artifact; ``render`` gives the same bytes for them.

        Raises:
            UsageError: not an artifact of this policy: another shape, other names, or another fixed bias.
        """
        rows, bias, parameters = self._read(artifact.body)
        if not self._learns_bias and bias != self._bias:
            raise UsageError(f"artifact: the bias is fixed at {self._bias}, got {bias}")
        values: dict[str, object] = {"weights": [weight for row in rows for weight in row], **parameters}
        if self._learns_bias:
            values["bias"] = bias
        return self.space.encode(values)

    def _load(self, path: Path) -> tuple[list[list[float]], list[float], dict[str, object]]:
        try:
            return self._read(path.read_bytes())
        except (OSError, UsageError) as error:
            raise ConfigurationError(
                "the artifact to start from cannot be used",
                where=str(path),
                why=str(error),
                next_step="point `policy.start` at an artifact of this policy and shape, or leave it out",
            ) from error

    def _read(self, body: bytes) -> tuple[list[list[float]], list[float], dict[str, object]]:
        """Weights by output, bias, parameters; checked but for what the space checks."""
        try:
            model = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"artifact: expected JSON, got {body[:40]!r} ({error})") from error
        expected = {"weights", "bias", "parameters"} | (set() if self._names is None else {"inputs"})
        if not isinstance(model, dict) or set(model) != expected:
            got = ", ".join(model) if isinstance(model, dict) else type(model).__name__
            raise UsageError(
                f"artifact: expected an object of {', '.join(sorted(expected))}, got {got or 'nothing'}"
            )
        if self._names is not None and model["inputs"] != self._names:
            raise UsageError(f"artifact: expected the features {self._names}, got {model['inputs']}")
        rows, bias, parameters = model["weights"], model["bias"], model["parameters"]
        _check_rows(rows, self._outputs, self._inputs)
        if not isinstance(bias, list) or len(bias) != self._outputs or not all(map(_is_number, bias)):
            raise UsageError(f"artifact: expected a bias of {self._outputs} finite numbers, got {bias!r}")
        if not isinstance(parameters, dict) or set(parameters) != set(self._parameters):
            names = ", ".join(self._parameters) or "no parameters"
            raise UsageError(f"artifact: expected parameters {names}, got {parameters!r}")
        return rows, [float(b) for b in bias], parameters


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_rows(rows: object, outputs: int, inputs: int) -> None:
    if isinstance(rows, list) and len(rows) == outputs:
        lengths = {len(row) if isinstance(row, list) else -1 for row in rows}
        if lengths == {inputs} and all(_is_number(weight) for row in rows for weight in row):
            return
    width = len(rows[0]) if isinstance(rows, list) and rows and isinstance(rows[0], list) else "?"
    height = len(rows) if isinstance(rows, list) else "?"
    raise UsageError(
        f"expected weights of shape (outputs, inputs) = ({outputs}, {inputs}), finite numbers only, "
        f"got shape ({height}, {width})"
    )
