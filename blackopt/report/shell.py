"""A page in one file: nothing is loaded, nothing runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from blackopt.errors import FatalError

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, sections: Sequence[str]) -> str:
    """The page.

    Args:
        title: as text.
        sections: HTML, one after the other.
    """
    style = (files("blackopt.report") / "style.css").read_text(encoding="utf-8")
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta name='color-scheme' content='light dark'>"
        f"<title>{escape(title)} · blackopt</title><style>{style}</style></head>"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def write(text: str, to: Path, what: str, next_step: str) -> None:
    """Write a page atomically.

    Args:
        text: the page.
        to: the file; replaced if it exists.
        what: the page is, for messages.
        next_step: what to do where it cannot be written.

    Raises:
        FatalError: it cannot be written; an earlier one is unchanged.
    """
    part = to.with_name(f".{to.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(to)
    except OSError as error:
        raise FatalError(
            f"{what} cannot be written",
            where=str(to),
            why=error.strerror or str(error),
            safe="nothing else was changed; an earlier page is as it was",
            next_step=next_step,
        ) from error
