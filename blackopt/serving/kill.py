"""The kill file: whoever can create a file on the module's host can stop every experiment, network or not."""

from __future__ import annotations

import logging
from pathlib import Path

CHECK_EVERY_S = 1.0

_log = logging.getLogger("blackopt.serving")


class KillFile:
    """Whether the file is there, looked up at most once a second.

    Args:
        path: of the file, or None for a module without one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        # One tuple, replaced whole: threads that race look twice, and never see half of an answer.
        self._seen: tuple[float, bool] | None = None

    def present(self, now: float) -> bool:
        """Whether everything is to be stopped, at ``now`` seconds of the module's clock."""
        if self._path is None:
            return False
        seen = self._seen
        if seen is not None and 0 <= now - seen[0] < CHECK_EVERY_S:
            return seen[1]
        killed = self._look(self._path)
        if killed and (seen is None or not seen[1]):
            _log.warning("kill file %s: serving the incumbent only", self._path)
        self._seen = (now, killed)
        return killed

    @staticmethod
    def _look(path: Path) -> bool:
        try:
            path.lstat()
        except FileNotFoundError:
            return False
        except OSError as error:
            # In doubt the incumbent is right: whoever made the place unreadable may have meant this.
            _log.warning("kill file %s cannot be checked (%s): taken as present", path, error)
        return True
