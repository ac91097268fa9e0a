"""Strict YAML: what a campaign file may contain, and where in the text everything stands.

YAML 1.1 reads ``no`` as false, ``012`` as ten, ``1e3`` as text and ``1:30`` as ninety, and lets a later key
silently replace an earlier one; 236 bytes of aliases expand to millions of nodes. So the text is read here
from PyYAML's events:

* no anchors, aliases, tags, merge keys, directives or second documents; no duplicate keys;
* ``true`` and ``false`` are the only booleans, numbers are decimal, ``1e3`` is 1000.0, everything else is
  text;
* what different readers take for different numbers (``012``), what is no number (``.nan``) and what no text
  can carry (NUL, lone surrogates) is refused, with its line and column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from blackopt.campaign.findings import Findings, Place
from blackopt.diagnostics import KeyPath

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_INTEGER = 2**64

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


class _Stop(Exception):
    """The rest of the text cannot be read; the problem is recorded."""


def decode(body: bytes, findings: Findings) -> str | None:
    """The bytes of a campaign file as text; None if they are not, with the problem recorded."""
    if len(body) > MAX_BYTES:
        findings.add((), f"is larger than {MAX_BYTES // 1024} KiB", "keep data in files of its own")
        return None
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        column = error.start - (body.rfind(b"\n", 0, error.start) + 1) + 1
        findings.add_at(Place(line, column), (), "is not UTF-8 text", "save the file in UTF-8")
        return None


def read(text: str, findings: Findings) -> dict[str, Any] | None:
    """The mapping that a campaign's text holds; None where there is none, with every problem recorded.

    Values are None, bool, int, finite float, str, and lists and dicts (with str keys) of these.
    """
    # A surrogate cannot be in a file; it can be in a str, and would make the encoding below fail.
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        findings.add((), f"is larger than {MAX_BYTES // 1024} KiB", "keep data in files of its own")
        return None
    # YAML's own idea of a line break, so that the numbers of PyYAML's marks fit.
    findings.lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", text)
    try:
        return _Reader(text, findings).document()
    except _Stop:
        return None


class _Reader:
    """One pass over the events of one text."""

    def __init__(self, text: str, findings: Findings) -> None:
        self.text, self.findings = text, findings
        self.events = self._guarded()
        self.last = Place(1, 1)

    def document(self) -> dict[str, Any] | None:
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                break
        else:
            self.findings.add_at(Place(1, 1), (), "the file is empty", "a campaign begins with `version: 1`")
            return None
        if event.version or event.tags:
            self.findings.add_at(
                _place(event), (), "directives (%YAML, %TAG) are not allowed", "remove the line"
            )
        root = next(self.events)
        value = self._node(root, ())
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._stop(_place(event), "a second document begins here", "one file holds one campaign")
        if self.findings.is_broken(()):
            return None
        if not isinstance(value, dict):
            self.findings.add_at(_place(root), (), "must be a mapping", "a campaign begins with `version: 1`")
            return None
        return value

    # -- nodes -----------------------------------------------------------------------------------------

    def _node(self, event: yaml.Event, path: KeyPath) -> Any:
        self.findings.values[path] = place = _place(event)
        if isinstance(event, yaml.AliasEvent):
            self.findings.add(
                path, f"aliases (*{event.anchor}) are not allowed", "write the value out", breaks=True
            )
            return None
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            self._stop(place, "a value is missing here", "")
        if event.anchor is not None:
            self.findings.add(path, f"anchors (&{event.anchor}) are not allowed", "write each value out")
        if event.tag is not None:
            self.findings.add(
                path, f"tags ({event.tag}) are not allowed", "write the value without it", breaks=True
            )
        if len(path) >= MAX_DEPTH:
            self._stop(place, f"is nested more than {MAX_DEPTH} levels deep", "")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path)

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, Place] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event, path)
            own = (*path, key)
            if key in first:
                line = first[key].line
                self.findings.add_at(
                    _place(event), own, f"is given twice; the first is on line {line}", "keep one"
                )
            first.setdefault(key, _place(event))
            self.findings.keys[own] = _place(event)
            result[key] = self._node(next(self.events), own)
        return result

    def _key(self, event: yaml.Event, path: KeyPath) -> str:
        """Keys are always text: ``no``, ``1`` and ``null`` are names like any other."""
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or event.anchor is not None:
            self._stop(
                _place(event), "a key must be plain text", "no brackets, aliases, anchors or tags", path
            )
        if event.value == "<<" and event.implicit[0]:
            self._stop(_place(event), "merge keys (<<) are not allowed", "write the keys out", path)
        if _UNUSABLE.search(event.value):
            self._stop(_place(event), "a key holds a character that is not text", "", path)
        return str(event.value)

    def _sequence(self, path: KeyPath) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            result.append(self._node(event, (*path, len(result))))
        return result

    # -- scalars ---------------------------------------------------------------------------------------

    def _scalar(self, event: yaml.Event, path: KeyPath) -> Any:
        if not isinstance(event, yaml.ScalarEvent):
            self._stop(_place(event), "a value is missing here", "")
        text = str(event.value)
        if _UNUSABLE.search(text):
            self.findings.add(
                path, "holds a character that is not text (NUL or half a surrogate pair)", breaks=True
            )
            return None
        # implicit[0]: written plain, so its looks decide; quoted and block scalars are always text.
        return self._plain(text, path) if event.implicit[0] else text

    def _plain(self, text: str, path: KeyPath) -> Any:
        if text in ("", "~", "null"):
            return None
        if text in ("true", "false"):
            return text == "true"
        if _INTEGER.fullmatch(text):
            if len(text) <= 25 and abs(int(text)) <= MAX_INTEGER:
                return int(text)
            self.findings.add(
                path, "is an integer of more than 64 bits", "quote it if it is text", breaks=True
            )
        elif _LEADING_ZERO.fullmatch(text):
            hint = f'write {text.lstrip("+-0") or 0}, or "{text}" if it is text'
            self.findings.add(
                path, f"{text} is octal to some readers and decimal to others", hint, breaks=True
            )
        elif _FLOAT.fullmatch(text):
            value = float(text)
            if value - value == 0:  # finite
                return value
            self.findings.add(path, f"{text[:40]} is too large for a number", breaks=True)
        elif _NOT_FINITE.fullmatch(text):
            self.findings.add(
                path, f"{text} is not a number", "leave the key out if there is no value", breaks=True
            )
        else:
            return text
        return None

    # -- what PyYAML refuses ---------------------------------------------------------------------------

    def _guarded(self) -> Iterator[yaml.Event]:
        """PyYAML's events; whatever it raises becomes a problem."""
        try:
            for event in yaml.parse(self.text, Loader=yaml.SafeLoader):
                self.last = _place(event)
                yield event
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position]
            line = len(re.split("\r\n|[\r\n\x85\u2028\u2029]", before))
            column = len(re.split("[\r\n\x85\u2028\u2029]", before)[-1]) + 1
            self._stop(
                Place(line, column),
                "holds a character that YAML does not allow",
                "remove it, or write its escape",
            )
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Place(mark.line + 1, mark.column + 1) if mark else self.last
            what = error.problem or error.context or "cannot be read"
            self._stop(place, f"is not YAML: {what}", self._hint(what, place))
        except (ValueError, OverflowError):  # PyYAML converts "\UFFFFFFFF" and %YAML 1.<huge> without looking
            self._stop(self.last, "an escape or number after this place is out of range", "")

    def _hint(self, what: str, place: Place) -> str:
        line = self.findings.lines[place.line - 1] if place.line <= len(self.findings.lines) else ""
        if "\\t" in what or "\t" in line[: place.column]:
            return "indent with spaces, not tabs"
        if "${" in line:
            return 'quote references: "${NAME}"'
        if "mapping values are not allowed" in what:
            return "quote text that holds a colon, and look for wrong indentation"
        return ""

    def _stop(self, place: Place, message: str, hint: str, path: KeyPath = ()) -> NoReturn:
        self.findings.add_at(place, path, message, hint)
        raise _Stop


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark else Place()
