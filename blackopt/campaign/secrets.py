"""References to secrets: ``${NAME}`` from the environment, ``${file:path}`` from a file beside the campaign.

They may stand in the options of plug-ins, alone or within a longer text; ``$$`` is a dollar sign. The
campaign's own keys take none, because every one of them is copied to the ledger, to reports and to
production. What a reference stands for reaches the plug-in's options and nothing else: not the document, not
a hash, not an error message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blackopt.campaign.findings import Findings
from blackopt.diagnostics import KeyPath, suggest

MAX_SECRET_BYTES = 64 * 1024
AS_REFERENCE = "write it as ${NAME} or ${file:path}"

_TOKEN = re.compile(r"\$\$|\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PASSWORD_IN_URL = re.compile(r"[A-Za-z][\w+.-]*://[^/\s:@]*:(?P<password>[^/\s@]+)@")


def has_reference(value: object) -> bool:
    """Whether a text refers to something outside the campaign."""
    return isinstance(value, str) and any(token.group() != "$$" for token in _TOKEN.finditer(value))


class _Missing(Exception):
    """A reference leads nowhere: (message, hint)."""


@dataclass(frozen=True)
class References:
    """Where references are looked up, and who must never quote what is found."""

    env: Mapping[str, str]
    base: Path
    findings: Findings

    def expand(self, value: Any, path: KeyPath) -> Any:
        """A copy of a JSON-like value with every reference replaced; problems are recorded at their place."""
        if isinstance(value, dict):
            return {key: self.expand(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, (*path, i)) for i, item in enumerate(value)]
        return self._text(value, path) if isinstance(value, str) and "$" in value else value

    def refuse(self, value: Any, path: KeyPath) -> None:
        """Record a problem for every reference in a part of the campaign that takes none."""
        if isinstance(value, dict):
            for key, item in value.items():
                self.refuse(item, (*path, key))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                self.refuse(item, (*path, i))
        elif has_reference(value):
            hint = "references may stand in the options of plug-ins; write the value itself"
            self.findings.add(
                path,
                "takes no reference, because it is copied to the ledger and to reports",
                hint,
                breaks=True,
            )

    def _text(self, text: str, path: KeyPath) -> str:
        def replace(token: re.Match[str]) -> str:
            if token.group() == "$$":
                return "$"
            value = self._look_up(token)
            self.findings.hide(value, token.group())
            return value

        try:
            expanded = _TOKEN.sub(replace, text)
        except _Missing as missing:
            message, hint = missing.args
            self.findings.add(path, message, hint, breaks=True)
            return ""
        if has_reference(text):
            self.findings.hide(expanded, text)
        return expanded

    def _look_up(self, token: re.Match[str]) -> str:
        name = token.group(1)
        if not token.group().endswith("}"):
            raise _Missing("a reference is not closed", "write ${NAME}, or $$ for a dollar sign")
        if name.startswith("file:"):
            return self._file(name.removeprefix("file:").strip())
        if not _NAME.fullmatch(name):
            raise _Missing(
                f"${{{name}}} is not a reference", "write ${NAME} or ${file:path}, or $$ for a dollar sign"
            )
        if name not in self.env:
            raise _Missing(f"the environment has no {name}", suggest(name, self.env) or f"export {name}=...")
        if not self.env[name]:
            raise _Missing(f"{name} is empty in the environment", f"export {name}=...")
        return self.env[name]

    def _file(self, name: str) -> str:
        if not name:
            raise _Missing("${file:} names no file", "write ${file:path}, relative to the campaign")
        path = self.base / name
        try:
            if not path.is_file():
                raise _Missing(f"there is no file {name}", f"it is looked for in {self.base}")
            with path.open("rb") as file:
                body = file.read(MAX_SECRET_BYTES + 1)
        except (OSError, ValueError) as error:
            raise _Missing(f"{name} cannot be read", type(error).__name__) from error
        try:
            text = body.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            text = ""
        if not text or len(body) > MAX_SECRET_BYTES or "\0" in text:
            raise _Missing(f"{name} does not hold a secret", f"UTF-8 text of 1 to {MAX_SECRET_BYTES} bytes")
        return text


def find_plain_passwords(value: Any, path: KeyPath, findings: Findings, *, hint: str = AS_REFERENCE) -> None:
    """Record a problem for every ``scheme://user:password@`` whose password is written out."""
    if isinstance(value, dict):
        for key, item in value.items():
            find_plain_passwords(item, (*path, key), findings, hint=hint)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            find_plain_passwords(item, (*path, i), findings, hint=hint)
    elif isinstance(value, str) and "://" in value:
        for match in _PASSWORD_IN_URL.finditer(value):
            if not has_reference(match["password"]):
                report_plain_secret(
                    match["password"], path, findings, "holds a password in plain text", hint=hint
                )


def report_plain_secret(
    secret: str, path: KeyPath, findings: Findings, message: str, *, hint: str = AS_REFERENCE
) -> None:
    """Record that a secret is written out, without showing it again."""
    findings.hide(secret, "***")
    findings.blank(path)
    findings.add(path, message, f"{hint}: the campaign is copied to the ledger")
