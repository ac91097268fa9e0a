"""Any artifact, smaller where its bytes repeat themselves.

    bytes 0-3    "BOZ1"
    byte  4      0x01 zlib (RFC 1950), 0x02 Zstandard (RFC 8878)
    bytes 5-7    0
    bytes 8-15   size of what is inside      unsigned, little-endian
    bytes 16-    the compressed bytes, one stream or frame

What is inside is never larger than the receiver allows, whatever the header or the stream says.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import Any

from blackopt.errors import ArtifactError, ConfigurationError
from blackopt.types import Artifact

MAGIC = b"BOZ1"
SUFFIX = "+boz"
"""Follows the media type of what is inside."""

_HEADER = struct.Struct("<4sB3xQ")


class Codec(IntEnum):
    """How it is compressed; the value is byte 4."""

    ZLIB = 1
    ZSTD = 2


def compress(artifact: Artifact, codec: Codec = Codec.ZLIB) -> Artifact:
    """The same artifact, wrapped.

    Raises:
        ConfigurationError: ``zstandard`` is not installed.
    """
    # Level 1: on floating-point numbers the higher ones cost time and save less than a per cent.
    body = artifact.body
    packed = zlib.compress(body, 1) if codec is Codec.ZLIB else _zstandard().compress(body, 1)
    return Artifact(_HEADER.pack(MAGIC, codec, len(body)) + packed, artifact.media_type + SUFFIX)


def expand(body: bytes, *, most: int) -> bytes:
    """What is inside; ``body`` itself where it is not wrapped.

    Args:
        body: of an artifact.
        most: bytes that the receiver is willing to hold.

    Raises:
        ArtifactError: it is damaged, or larger than ``most``.
        ConfigurationError: ``zstandard`` is needed and not installed.
    """
    if not body.startswith(MAGIC):
        if len(body) > most:
            raise _refused(body, f"it has {len(body)} bytes, and at most {most} are allowed")
        return body
    try:
        _, number, size = _HEADER.unpack_from(body)
        codec = Codec(number)
        if body[5:8] != bytes(3):
            raise ValueError("bytes 5 to 7 are not 0")
    except (struct.error, ValueError) as error:
        raise _refused(body, str(error)) from error
    if size > most:
        raise _refused(body, f"{size} bytes are inside, and at most {most} are allowed")
    inside = _inflate(body, size) if codec is Codec.ZLIB else _unzstd(body, size)
    if len(inside) != size:
        raise _refused(body, f"{len(inside)} bytes are inside, and its header says {size}")
    return inside


def _inflate(body: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        # One byte more than allowed shows that there are more, and room for none is no limit to zlib.
        inside = stream.decompress(memoryview(body)[_HEADER.size :], size + 1)
    except zlib.error as error:
        raise _refused(body, str(error)) from error
    if len(inside) <= size and (not stream.eof or stream.unused_data):
        raise _refused(body, "its stream is cut off, or something follows it")
    return inside


def _unzstd(body: bytes, size: int) -> bytes:
    zstandard = _zstandard()
    frame = body[_HEADER.size :]
    try:
        # What the frame says of itself is checked first: the library allocates that at once.
        if zstandard.frame_content_size(frame) != size:
            raise _refused(body, f"its frame holds another size than the {size} bytes of its header")
        if zstandard.get_frame_parameters(frame).window_size > max(size, 1 << 20):
            raise _refused(body, "its frame asks for a larger window than it has bytes")
        inside: bytes = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _refused(body, str(error)) from error
    return inside


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ConfigurationError(
            "zstandard is not installed",
            why=str(error),
            safe="nothing was compressed or expanded",
            next_step="run: pip install 'blackopt[zstd]', or use zlib",
        ) from error
    return zstandard


def _refused(body: bytes, why: str) -> ArtifactError:
    return ArtifactError(
        "this artifact cannot be expanded",
        where=f"{len(body)} bytes that begin with {body[:16].hex()}",
        why=why,
        safe="no more than the allowed bytes were held",
        next_step="send the artifact again, or allow more if its size is known to be right",
    )
