"""What is recorded of a campaign: its document, the part of it that must not change, and what did change.

The document is what was written, in canonical units: ``24h`` is ``1d``, a key of the core that is set to its
default is left out, and so is every default that was not written. So an upgrade that adds an option with a
default changes no document, while any edit of a meaning does. What an optimizer asks of the core (``trials``,
``parallel``) is recorded as its option: an edit of the budget must not become another optimizer. References
to secrets stay as written: rotating a secret is no edit.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from blackopt.campaign.base import Section
from blackopt.campaign.schema import Metric
from blackopt.campaign.specs import Document
from blackopt.diagnostics import KeyPath, dotted

OPERATIONAL: frozenset[KeyPath] = frozenset(
    {
        ("budget",),
        ("clock",),
        ("ledger",),
        ("promotion",),
        ("schedule", "poll"),
        ("schedule", "lease"),
        ("explore", "store"),
    }
)
"""What may be edited while a campaign runs: how long it goes on, how often it looks, where its file and its
time are, how its recommendation will be promoted, and where its centres are.

None of these changes what a candidate is, who sees it, or what its measurement means. Everything else does,
or might: the url of ``push`` may be another production, a query another metric. Where that is not so,
``${NAME}`` keeps the moving part out of the document.
"""


def dump(section: Section) -> Document:
    """A section of the core as it was written, in canonical units."""
    return section.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_defaults=True)


def dump_measure(written: Document, metrics: dict[str, Metric]) -> Document:
    """``measure`` as it was written; the core's keys of each metric in canonical units."""
    shown = {}
    for name, core in metrics.items():
        own = {
            key: value for key, value in written["metrics"][name].items() if key not in Metric.model_fields
        }
        shown[name] = {**dump(core), **own}
    return {**written, "metrics": shown}


def plain_numbers(value: Any) -> Any:
    """A copy in which whole floats are integers: ``1.0`` and ``1`` are one number in JSON."""
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def canonical(document: Document) -> str:
    """The document as text: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def frozen(document: Document) -> Document:
    """The part of a document that must not change once its campaign has started."""
    kept: Document = {}
    for key, value in document.items():
        if (key,) in OPERATIONAL:
            continue
        inner = {name for path in OPERATIONAL if len(path) == 2 and path[0] == key for name in path[1:]}
        kept[key] = (
            {k: v for k, v in value.items() if k not in inner} if inner and isinstance(value, dict) else value
        )
    return kept


def sha256(document: Document) -> str:
    """Hex digest of the canonical text of what must not change."""
    return hashlib.sha256(canonical(frozen(document)).encode()).hexdigest()


def changes(old: Document, new: Document) -> list[str]:
    """What differs between the frozen parts of two documents, a line each, for people.

    Returns:
        Lines such as ```optimizer.sigma` 0.3 -> 0.5``, sorted by path; empty exactly if :func:`sha256`
        agrees.
    """
    before, after = _leaves(frozen(old), ()), _leaves(frozen(new), ())
    lines = []
    for path in sorted(before.keys() | after.keys(), key=lambda p: [str(part) for part in p]):
        name = f"`{dotted(path)}`"
        if path not in after:
            lines.append(f"{name} removed (was {_show(before[path])})")
        elif path not in before:
            lines.append(f"{name} added: {_show(after[path])}")
        elif canonical({"": before[path]}) != canonical({"": after[path]}):
            lines.append(f"{name} {_show(before[path])} -> {_show(after[path])}")
    return lines


def _leaves(value: Any, path: KeyPath) -> dict[KeyPath, Any]:
    """Every scalar, and every empty mapping or list, by its path."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    leaves = {at: leaf for key, item in items for at, leaf in _leaves(item, (*path, key)).items()}
    return leaves or {path: value}


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
