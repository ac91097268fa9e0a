"""Artifacts for large models: whole, as what changed, or as a key of 24 bytes; and where they are kept.

docs/artifacts.md says which when, and gives the bytes for implementers in any language.
"""

from blackopt.artifacts.centre import Centre
from blackopt.artifacts.compression import Codec, compress, expand
from blackopt.artifacts.delta import Base, apply, float16, full, int8, sparse
from blackopt.artifacts.keyed import Keyed, perturb, rebuild
from blackopt.artifacts.portable import Kind, draw
from blackopt.artifacts.store import Collected, Store

__all__ = [
    "Base",
    "Centre",
    "Codec",
    "Collected",
    "Keyed",
    "Kind",
    "Store",
    "apply",
    "compress",
    "draw",
    "expand",
    "float16",
    "full",
    "int8",
    "perturb",
    "rebuild",
    "sparse",
]
