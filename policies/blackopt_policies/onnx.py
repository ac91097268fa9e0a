"""Any ONNX model: some of its initializers move, the graph and all others stay. Runs in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import Vector
from blackopt_policies._floats import raw
from blackopt_policies._tensors import ModelOptions, ModelPolicy, Tensor, Tuned, configuring, read_file


class OnnxOptions(ModelOptions):
    """``policy: {use: onnx, model: ranker.onnx, tune: [head.*]}``."""


class Onnx(ModelPolicy):
    """Renders the ONNX model with the chosen initializers replaced, each in the type it is stored in.

    Args:
        options: the file, and the initializers to move.
        base: folder of the campaign, which the path is relative to.

    Attributes:
        space: a block for each chosen initializer, under its name in the graph.
        shapes: of the initializers by these names.

    Raises:
        ConfigurationError: onnx is not installed, the file cannot be used, or a pattern fits no initializer.
    """

    Options: ClassVar[type[PluginOptions]] = OnnxOptions

    def __init__(self, options: OnnxOptions, *, base: Path) -> None:
        try:
            import onnx
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "the policy `onnx` needs the package onnx, which is not installed",
                next_step="pip install 'blackopt[onnx]'",
            ) from error
        path = base / options.model
        types = onnx.TensorProto
        self._types = {
            types.FLOAT16: "float16",
            types.BFLOAT16: "bfloat16",
            types.FLOAT: "float32",
            types.DOUBLE: "float64",
        }
        body = read_file(path)
        with configuring(path):
            self._model = self._load(body)
            tensors, others = [], {}
            for initializer in self._model.graph.initializer:
                dtype = self._types.get(initializer.data_type)
                if dtype is None:
                    others[initializer.name] = f"numbers of type {types.DataType.Name(initializer.data_type)}"
                else:
                    tensors.append(Tensor(initializer.name, self._numbers(initializer), dtype))
            self.shapes = {each.name: tuple(each.dims) for each in self._model.graph.initializer}
            self.tuned = Tuned(tensors, options, others=others)
        self.space = self.tuned.space

    def write(self, values: Mapping[str, Vector]) -> bytes:
        """The model with these numbers."""
        # Every tuned initializer is overwritten each time, so nothing of the last artifact is left.
        for initializer in self._model.graph.initializer:
            if initializer.name in values:
                for field in ("float_data", "int32_data", "double_data"):
                    initializer.ClearField(field)
                dtype = self._types[initializer.data_type]
                initializer.raw_data = raw(values[initializer.name], dtype)
        body: bytes = self._model.SerializeToString(deterministic=True)
        return body

    def read(self, body: bytes) -> dict[str, Vector]:
        """The numbers of the chosen initializers.

        Raises:
            UsageError: not an ONNX model with these initializers.
        """
        found = {initializer.name: initializer for initializer in self._load(body).graph.initializer}
        values = {}
        for name, tensor in self.tuned.tensors.items():
            if name not in found or self._types.get(found[name].data_type) != tensor.dtype:
                raise UsageError(f"artifact: expected an initializer {name!r} of type {tensor.dtype}")
            values[name] = self._numbers(found[name])
            if values[name].shape != tensor.values.shape:
                raise UsageError(
                    f"artifact: {name}: expected {tensor.values.size} numbers, got {values[name].size}"
                )
        return values

    def _load(self, body: bytes) -> Any:
        import onnx

        try:
            model = onnx.load_model_from_string(body)
        except Exception as error:  # protobuf's own, which is not ours to import
            raise UsageError(f"expected an ONNX model, got {body[:16]!r} ({error})") from error
        if not model.graph.node:  # no bytes at all decode to a model without anything
            raise UsageError(f"expected an ONNX model, got {len(body)} bytes without a graph")
        return model

    def _numbers(self, initializer: Any) -> Vector:
        from onnx import TensorProto, numpy_helper

        if initializer.data_location == TensorProto.EXTERNAL:
            raise UsageError(
                f"{initializer.name!r} is stored in a file beside the model, and an artifact is one file: "
                "save it with onnx.save(onnx.load(path), path, save_as_external_data=False)"
            )
        try:
            array = numpy_helper.to_array(initializer)
        except ValueError as error:
            raise UsageError(f"{initializer.name!r}: its numbers cannot be read: {error}") from error
        values: Vector = np.asarray(array, dtype=np.float64).ravel()
        return values
