"""Any PyTorch module as its safetensors state dict: some tensors move, the rest stays byte for byte.

torch itself is not needed here, nor the safetensors library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from blackopt.artifacts.safetensors import MEDIA_TYPE
from blackopt.errors import UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import Vector
from blackopt_policies._floats import numbers, raw
from blackopt_policies._safetensors import FLOATS, entries, floats
from blackopt_policies._tensors import ModelOptions, ModelPolicy, Tensor, Tuned, configuring, read_file


class TorchOptions(ModelOptions):
    """``policy: {use: torch, model: ranker.safetensors, tune: [head.*]}``."""


class Torch(ModelPolicy):
    """Renders the safetensors file with the chosen tensors replaced, each in the type it is stored in.

    Args:
        options: the file, and the tensors to move.
        base: folder of the campaign, which the path is relative to.

    Attributes:
        space: a block for each chosen tensor, under its name in the state dict.
        shapes: of the tensors by these names.

    Raises:
        ConfigurationError: the file cannot be used, or a pattern fits no tensor of it.
    """

    Options: ClassVar[type[PluginOptions]] = TorchOptions
    media_type = MEDIA_TYPE

    def __init__(self, options: TorchOptions, *, base: Path) -> None:
        path = base / options.model
        self._body = read_file(path)
        with configuring(path):
            self._entries, _ = entries(self._body)
            self.shapes = {name: entry.shape for name, entry in self._entries.items()}
            tensors = [
                Tensor(name, values, dtype) for name, dtype, values in floats(self._body, self._entries)
            ]
            others = {
                name: f"numbers of type {entry.dtype}"
                for name, entry in self._entries.items()
                if entry.dtype not in FLOATS
            }
            self.tuned = Tuned(tensors, options, others=others)
        self.space = self.tuned.space

    def write(self, values: Mapping[str, Vector]) -> bytes:
        """The file with these numbers."""
        body = bytearray(self._body)
        for name, numbers_ in values.items():
            body[self._entries[name].place] = raw(numbers_, self.tuned.tensors[name].dtype)
        return bytes(body)

    def read(self, body: bytes) -> dict[str, Vector]:
        """The numbers of the chosen tensors.

        Raises:
            UsageError: not a safetensors file of the same tensors.
        """
        found, _ = entries(body)
        if found != self._entries:
            raise UsageError("artifact: its tensors have other names, types or shapes than the model's")
        return {
            name: numbers(body[found[name].place], tensor.dtype)
            for name, tensor in self.tuned.tensors.items()
        }
