"""Compressed artifacts: they come back, and never hold more than is allowed."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from blackopt.artifacts.compression import MAGIC, Codec, compress, expand
from blackopt.errors import ArtifactError
from blackopt.types import Artifact

CODECS = pytest.mark.parametrize("codec", Codec)


def wrapped(codec: int, size: int, inside: bytes, *, zeros: bytes = bytes(3)) -> bytes:
    return MAGIC + bytes([codec]) + zeros + size.to_bytes(8, "little") + inside


@settings(deadline=None)
@given(st.binary(max_size=2_000), st.sampled_from(Codec))
def test_what_goes_in_comes_out(body: bytes, codec: Codec) -> None:
    artifact = compress(Artifact(body, "a/b"), codec)
    assert artifact.media_type == "a/b+boz"
    assert expand(artifact.body, most=len(body)) == body
    assert expand(b"x" + body, most=len(body) + 1) == b"x" + body


def test_the_bytes() -> None:
    body = b"abc" * 100
    assert compress(Artifact(body)).body == wrapped(1, 300, zlib.compress(body, 1))
    assert compress(Artifact(body), Codec.ZSTD).body == wrapped(2, 300, zstandard.compress(body, 1))


@CODECS
def test_more_than_is_allowed_is_refused(codec: Codec) -> None:
    body = compress(Artifact(bytes(1_001)), codec).body
    assert expand(body, most=1_001) == bytes(1_001)
    with pytest.raises(ArtifactError, match="1001 bytes are inside, and at most 1000"):
        expand(body, most=1_000)
    with pytest.raises(ArtifactError, match="it has 1001 bytes"):
        expand(bytes(1_001), most=1_000)


@CODECS
def test_a_bomb_is_refused_before_it_goes_off(codec: Codec) -> None:
    bomb = compress(Artifact(bytes(100_000_000)), codec).body[16:]
    stream = zstandard.ZstdCompressor().compressobj()  # a frame that does not say how large it is
    silent = stream.compress(bytes(100_000_000)) + stream.flush()
    tracemalloc.start()
    for inside in [bomb, silent] if codec is Codec.ZSTD else [bomb]:
        with pytest.raises(ArtifactError, match="cannot be expanded"):
            expand(wrapped(codec, 1_000, inside), most=1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@CODECS
@pytest.mark.parametrize("size", [0, 99, 101, 2**63])
def test_a_header_that_says_another_size_is_refused(codec: Codec, size: int) -> None:
    inside = compress(Artifact(bytes(100)), codec).body[16:]
    with pytest.raises(ArtifactError, match=r"inside|another size"):
        expand(wrapped(codec, size, inside), most=10_000)


@CODECS
def test_cut_or_followed_by_more_is_refused(codec: Codec) -> None:
    body = compress(Artifact(bytes(range(200))), codec).body
    for end in range(4, len(body)):
        with pytest.raises(ArtifactError):
            expand(body[:end], most=10_000)
    with pytest.raises(ArtifactError):
        expand(body + b"x", most=10_000)


@pytest.mark.parametrize("body", [wrapped(0, 3, b"abc"), wrapped(3, 3, b"abc"), wrapped(1, 3, b"abc")])
def test_other_codecs_and_streams_are_refused(body: bytes) -> None:
    with pytest.raises(ArtifactError, match="cannot be expanded"):
        expand(body, most=10_000)


def test_the_empty_bytes_are_empty() -> None:
    inside = zlib.compress(b"abc")
    assert expand(wrapped(1, 3, inside), most=3) == b"abc"
    with pytest.raises(ArtifactError, match="bytes 5 to 7"):
        expand(wrapped(1, 3, inside, zeros=b"\0\0\1"), most=3)


def test_without_the_library_the_error_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "sys.modules['zstandard'] = None\n"
        "from blackopt.artifacts.compression import Codec, compress\n"
        "from blackopt.types import Artifact\n"
        "compress(Artifact(b'abc'), Codec.ZSTD)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "pip install 'blackopt[zstd]'" in run.stderr
