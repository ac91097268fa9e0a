"""A URL as the place of a store: whatever fsspec opens, such as ``s3://bucket/prefix``.

An object appears under its name when its upload is complete. There is neither a lock nor a rename, so a store
here has one writer at a time; :mod:`blackopt.artifacts.store` says what that means. Who may read and write,
and at which endpoint, is what fsspec's own configuration and environment say (``FSSPEC_S3_ENDPOINT_URL``,
``~/.config/fsspec``), or what the client of the scheme finds (``AWS_ACCESS_KEY_ID``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from blackopt.errors import BlackoptError, ConfigurationError, RetriableError

_USER = re.compile(r"//[^/@]*@")


class Bucket:
    """A place whose paths are objects below a URL; it is looked for when it is first used.

    Args:
        url: scheme, bucket or host, and prefix.

    Raises:
        ConfigurationError: fsspec or the client of the scheme is not installed, or there is no such scheme.
    """

    def __init__(self, url: str) -> None:
        self._url = _USER.sub("//", url).rstrip("/")
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise _unusable(self._url, "fsspec is not installed", str(error)) from error
        with self._answered():
            try:
                self._files, root = url_to_fs(url)
            except ImportError as error:
                what = f"the client for {url.partition('://')[0]}:// is not installed"
                raise _unusable(self._url, what, str(error)) from error
            except ValueError as error:
                raise _unusable(self._url, "this is no URL that fsspec opens", str(error)) from error
        self._root: str = root.rstrip("/")

    def where(self, path: str) -> str:
        """The URL, for messages."""
        return f"{self._url}/{path}"

    def read(self, path: str) -> bytes:
        """The bytes there.

        Raises:
            FileNotFoundError: nothing is.
        """
        with self._answered():
            body: bytes = self._files.cat_file(self._full(path))
        return body

    def size(self, path: str) -> int | None:
        """How many bytes are there; None where nothing is."""
        try:
            with self._answered():
                size: int = self._files.info(self._full(path))["size"]
        except FileNotFoundError:
            return None
        return size

    def list(self, folder: str) -> dict[str, int]:
        """The paths below a folder in order, with their sizes; none where it is not there."""
        try:
            with self._answered():
                found: dict[str, dict[str, Any]] = self._files.find(self._full(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {path[len(self._root) + 1 :]: entry["size"] for path, entry in sorted(found.items())}

    def write(self, path: str, body: bytes) -> None:
        """Replace what is there; afterwards every reader sees it."""
        full = self._full(path)
        with self._answered():
            try:
                self._files.pipe_file(full, body)
            except FileNotFoundError:
                self._make_folders(full)
                self._files.pipe_file(full, body)

    def keep(self, path: str, body: bytes) -> None:
        """Write what is always these bytes; nothing is written where as many are there.

        Reading them back to compare would cost what writing costs. An upload that was cut off, where one can
        be, left fewer.
        """
        if self.size(path) != len(body):
            self.write(path, body)

    def delete(self, path: str) -> None:
        """Nothing is there."""
        try:
            with self._answered():
                self._files.rm_file(self._full(path))
        except FileNotFoundError:
            return

    def tidy(self) -> None:
        """Nothing: an upload that was not completed is no object."""

    def locked(self, *, alone: bool) -> AbstractContextManager[None]:  # noqa: ARG002 - of directories
        """Nothing: there are no locks, and one writer."""
        return nullcontext()

    def _full(self, path: str) -> str:
        self._files.invalidate_cache()  # of listings: others write here, too
        return f"{self._root}/{path}"

    def _make_folders(self, full: str) -> None:
        """Where folders are things of their own (SFTP). Their outermost, or the bucket, is never made."""
        top = "/".join(full.split("/")[: 2 if full.startswith("/") else 1])
        if not self._files.exists(top):
            raise ConfigurationError(
                "the place of a store is not there",
                where=self._url,
                why=f"there is no {top}, and making one is not for blackopt",
                safe="nothing was written",
                next_step="make it, or mend the URL",
            )
        self._files.makedirs(full.rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Errors of any client as ours."""
        try:
            yield
        except (FileNotFoundError, BlackoptError):
            raise
        except (PermissionError, ValueError) as error:
            raise ConfigurationError(
                "the store refuses",
                where=self._url,
                why=str(error),
                safe="what was in it is as it was",
                next_step="mend the URL, or give access by the environment or fsspec's configuration",
            ) from error
        except Exception as error:  # every client has errors of its own, and not all are an OSError
            raise RetriableError(
                "the store does not answer",
                where=self._url,
                why=f"{type(error).__name__}: {error}",
                safe="what was in it is as it was, or one object of it is as it was asked to be",
                next_step="see that it can be reached from here, and how; the same call may be made again",
            ) from error


def _unusable(url: str, what: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        what,
        where=url,
        why=why,
        safe="nothing was read or written",
        next_step="run: pip install 'blackopt[fsspec]', and the client of the scheme, such as s3fs or gcsfs",
    )
