"""Puts the factors that the policy ``lora`` renders into the weights of the base, with numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts import safetensors
from blackopt.errors import ArtifactError
from blackopt.serving.answers import Refused
from blackopt.types import Artifact

_A, _B = ".lora_A.weight", ".lora_B.weight"


def merge(
    base: Mapping[str, NDArray[Any]],
    artifact: Artifact,
    *,
    base_sha256: str,
    prefix: str = "base_model.model.",
) -> dict[str, NDArray[Any]]:
    """The base's weights with the change of an artifact: W + (alpha / rank) B A.

    Args:
        base: the weights by name, as ``safetensors.numpy.load`` gives them; not changed.
        artifact: as rendered by the policy ``lora``.
        base_sha256: of the file that ``base`` was read from.
        prefix: as in the campaign.

    Returns:
        All weights by name; those that no factor changes are the base's own arrays.

    Raises:
        Refused: not such an artifact, one for another base, or factors that do not fit the base's weights.
    """
    try:
        factors, metadata = safetensors.read(artifact.body)
        if metadata["base_sha256"] != base_sha256:
            raise Refused(f"the factors are for the base {metadata['base_sha256']}, not for {base_sha256}")
        scale = float(metadata["alpha"]) / float(metadata["rank"])
        merged = dict(base)
        for key in [key for key in factors if key.endswith(_A)]:
            name = key.removeprefix(prefix).removesuffix(_A) + ".weight"
            change = scale * (factors[key.removesuffix(_A) + _B].astype(np.float64) @ factors[key])
            if change.shape != base[name].shape or not np.isfinite(change).all():
                raise Refused(f"{name}: expected a finite change of shape {base[name].shape}")
            merged[name] = (base[name] + change).astype(base[name].dtype)
    except (ArtifactError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"not the factors of this base: {type(error).__name__}: {error}") from error
    return merged
