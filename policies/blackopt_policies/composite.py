"""Several policies in one campaign: one vector, and one artifact that bundles theirs.

Each part is a policy with its own options; a module takes the part that is its own from the bundle, with
``blackopt.serving.bundle`` or as the JSON it is.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, cast

import numpy as np
from pydantic import ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator

from blackopt.errors import ConfigurationError, UsageError
from blackopt.nested import nested_options
from blackopt.protocols import PluginOptions, Policy
from blackopt.space import Block, Space
from blackopt.types import Artifact, Vector

_NAME = r"^[A-Za-z_][A-Za-z0-9_\-]*$"


class Part(PluginOptions):
    """One of ``parts``; every other key is an option of the policy that ``use`` names."""

    model_config = ConfigDict(extra="allow")

    use: str = Field(description="Name of a policy.")
    _built_by: tuple[Any, PluginOptions] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _options_of_its_policy(self, info: ValidationInfo) -> Self:
        # From a campaign's file, options are judged strictly.
        written = self.model_extra or {}
        plugin, options = nested_options("policies", self.use, written, as_json=info.mode == "json")
        self._built_by = (plugin, options)
        return self

    def build(self, base: Path) -> Policy:
        """The policy of this part."""
        assert self._built_by is not None  # the validator ran
        plugin, options = self._built_by
        return cast("Policy", plugin(options, base=base))


class CompositeOptions(PluginOptions):
    """``policy: {use: composite, parts: {ranker: {use: trees, ...}, mix: {use: parameters, ...}}}``."""

    parts: Annotated[dict[Annotated[str, Field(pattern=_NAME)], Part], Field(min_length=1)] = Field(
        description="Policies by name, each as it would stand under `policy`."
    )


class Composite:
    """Renders ``{"parts":{"<name>":{"media_type":…,"sha256":…,"text":…}}}``; binary parts as ``base64``.

    Args:
        options: the parts.
        base: folder of the campaign, which their paths are relative to.

    Attributes:
        space: the blocks of all parts in order, each under ``<part>.<block>``.
        parts: the policies by name.

    Raises:
        ConfigurationError: a part cannot be built; ``where`` names it.
    """

    Options: ClassVar[type[PluginOptions]] = CompositeOptions

    def __init__(self, options: CompositeOptions, *, base: Path) -> None:
        self.parts: dict[str, Policy] = {}
        for name, part in options.parts.items():
            try:
                self.parts[name] = part.build(base)
            except ConfigurationError as error:
                error.where = f"policy.parts.{name}: {error.where}"
                raise
        self.space = Space([_named(name, b) for name, part in self.parts.items() for b in part.space.blocks])

    def start(self) -> Vector:
        """(n,) the starts of the parts, one after the other."""
        return np.concatenate([part.start() for part in self.parts.values()])

    def render(self, vector: Vector) -> Artifact:
        """The bundle of the parts' artifacts for (n,) coordinates.

        Raises:
            UsageError: another shape, or a coordinate outside the bounds.
        """
        self.space.decode(vector)  # refuses with the names of the composite
        coordinates = np.asarray(vector, dtype=np.float64)
        rendered, at = {}, 0
        for name, part in self.parts.items():
            artifact = part.render(coordinates[at : at + part.space.size])
            rendered[name] = {"media_type": artifact.media_type, "sha256": artifact.sha256} | _body(artifact)
            at += part.space.size
        text = json.dumps({"parts": rendered}, ensure_ascii=False, separators=(",", ":"))
        return Artifact(text.encode())

    def parse(self, artifact: Artifact) -> Vector:
        """(n,) the coordinates of a bundle; ``render`` gives the same bytes for them.

        Raises:
            UsageError: not a bundle of these parts, or a part that its policy refuses.
        """
        try:
            bundle = json.loads(artifact.body)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"artifact: expected JSON, got {artifact.body[:40]!r} ({error})") from error
        entries = bundle.get("parts") if isinstance(bundle, dict) else None
        if not isinstance(entries, dict) or list(entries) != list(self.parts):
            raise UsageError(f"artifact: expected an object of parts: {', '.join(self.parts)}")
        found = []
        for name, part in self.parts.items():
            try:
                found.append(part.parse(_artifact(entries[name])))
            except UsageError as error:
                raise UsageError(f"parts.{name}: {error}") from error
        return np.concatenate(found)


def _named(part: str, block: Block) -> Block:
    """The block under the name that it has in the composite; it is the same in all else."""
    named = copy.copy(block)
    named.name = f"{part}.{block.name}"
    named.coordinates = tuple(f"{part}.{coordinate}" for coordinate in block.coordinates)
    return named


def _body(artifact: Artifact) -> dict[str, str]:
    try:
        return {"text": artifact.body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(artifact.body).decode()}


def _artifact(entry: object) -> Artifact:
    try:
        if not isinstance(entry, dict) or len(entry) != 3:
            raise UsageError("expected media_type, sha256, and text or base64")
        text = entry.get("text")
        body = base64.b64decode(entry["base64"], validate=True) if text is None else text.encode()
        artifact = Artifact(body, str(entry["media_type"]))
        if entry["sha256"] != artifact.sha256:
            raise UsageError(f"its sha256 is {artifact.sha256}, but {entry['sha256']} was announced")
    except (KeyError, TypeError, AttributeError, binascii.Error, UnicodeEncodeError) as error:
        raise UsageError(f"expected media_type, sha256, and text or base64 ({error!r})") from error
    return artifact
