"""Writes the generated pages of the documentation; ``--check`` fails if one is out of date.

A page is a function that returns its text, listed in ``PAGES``. ``optimizers.md`` is written by hand but for
what benchmarks measured: a line ``<!-- results: NAME -->`` asks for the tables of ``docs/results/NAME.json``,
and what stands between it and ``<!-- end of NAME -->`` is written here (``benchmarks/results.py`` has the
format). Run it with the interpreter that blackopt is installed for.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

from benchmarks.results import Table, read
from blackopt.campaign.base import Section
from blackopt.campaign.document import OPERATIONAL
from blackopt.campaign.published import core_schema
from blackopt.campaign.schema import CORE, PLUGINS, PRODUCTION, REQUIRED, Head, Metric

HERE = Path(__file__).resolve().parent

INTRODUCTION = """\
# campaign.yaml

<!-- Written by docs/generate.py from blackopt/campaign/schema.py; do not edit. -->

One file declares a campaign. `blackopt check` reads it, reports every problem at once, each with its line,
and contacts what it names; nothing starts before it is right. `blackopt schema` prints a JSON Schema for
editors, with the options of the plug-ins that are installed.

```yaml
version: 1
name: email-offer
policy:    {use: linear, inputs: 18, outputs: 3}
optimizer: {use: openai-es, population: 16, sigma: 0.3, seed: 7}
push:      {use: http, url: "http://127.0.0.1:8801/blackopt", secret: "${MAILER_SECRET}"}
measure:
  use: sql
  url: sqlite:///events.db
  metrics:
    visit_14d:       {kind: proportion, query: queries/visits.sql, window: 14d, lag: 1h}
    unsubscribe_14d: {kind: proportion, query: queries/unsubscribes.sql, window: 14d, lag: 1h}
objective: {maximize: visit_14d, relative_to: control}
guardrails: [{metric: unsubscribe_14d, at_most: "1.05 * control"}]
traffic:   {unit: customer, share: 60%, control: 20%}
budget:    {trials: 320, max_in_flight: 16}
schedule:  {window: 1d, poll: 15m, deadline: 30d}
```

## Three forms

| form | sections | candidates are |
| --- | --- | --- |
| production | {production}, and `guardrails` and `promotion` where wanted | served to live traffic |
| evaluation | `evaluate` | run by blackopt itself: a function, a process |
| manual | neither | asked and told by hand (`blackopt ask`, `blackopt tell`) |

Every form has {required}. `clock` and `ledger` are optional everywhere.

## Values

* **Durations** carry their unit: `2w`, `14d`, `1h30m`, `45s`, `250ms`, `10us`. A number alone is refused.
* **Shares** are percentages: `60%`, `12.5%`. At most four decimals.
* **Hours** are two times of a day, such as `"20:00-08:00"`, past midnight where the second is the earlier
  one.
* **Bounds** are numbers in the metric's units, or a multiple of what the control measures:
  `"1.05 * control"`.
* **Booleans** are `true` and `false`. `yes`, `no`, `on` and `off` are text, as are dates and `1:30`.
* **Numbers** are decimal; `1e3` is 1000. `012`, `.nan` and `.inf` are refused.
* **Secrets** stand only in the options of plug-ins, as `"${NAME}"` (environment) or `"${file:path}"` (a file
  beside the campaign, without its last line break), alone or within a longer text; `$$` is a dollar sign.
  What they stand for is never stored and never printed. A secret or a password that is written out is
  refused.
* Keys may stand once. Anchors, aliases, tags, merge keys and second documents are refused, as is a file of
  more than 256 KiB.

## While it runs

A campaign is frozen once it has started, because an edit would change what the numbers in its ledger mean.
Free to edit are {operational},
and what a reference to a secret stands for. Any other edit stops the next run with a list of what changed.
"""

PLUGIN_TEXT = {
    "clock": "Where the time comes from. Default: `{use: system}`.",
    "policy": "What turns a vector into an artifact that production can run.",
    "optimizer": "The algorithm that asks for candidates and is told what became of them.",
    "push": "What serves candidates to production, and withdraws them.",
    "measure": "Where metrics are polled. `metrics` declares them, each under its name:",
    "evaluate": "What runs a candidate and returns its value.",
}


def campaign() -> str:
    """The reference page of ``campaign.yaml``."""
    text = INTRODUCTION
    for name, words in {
        "production": _list(PRODUCTION),
        "required": _list(REQUIRED),
        "operational": _list(sorted(".".join(map(str, path)) for path in OPERATIONAL)),
    }.items():
        text = text.replace(f"{{{name}}}", words)
    parts = [text, "## At the top\n", _table(Head), "## Sections of plug-ins\n"]
    parts.append(
        "`use` names a plug-in (`blackopt plugins` lists the installed); other keys are its options.\n"
    )
    for key, (group, contract) in PLUGINS.items():
        parts.append(
            f"### {key}\n\n{PLUGIN_TEXT[key]}\n\nGroup `blackopt.{group}`, contract `{contract.__name__}`.\n"
        )
        if key == "measure":
            parts.append(_table(Metric))
            parts.append("Every other key of a metric belongs to the source.\n")
    parts.append("## Sections of the core\n")
    for key, model in CORE.items():
        kind = " (a list of these)" if key == "guardrails" else ""
        parts.append(f"### {key}{kind}\n\n{cleandoc(model.__doc__ or '')}\n\n{_table(model)}")
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _table(model: type[Section]) -> str:
    schema = core_schema(model)
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |", *_rows(schema, "")]
    return "\n".join(rows) + "\n"


def _rows(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    """A row for each key, and for each key of the mappings within."""
    for key, value in schema["properties"].items():
        default = "required" if key in schema.get("required", []) else _default(value)
        meaning = " ".join(value.get("description", "").split())
        yield f"| `{prefix}{key}` | {_kind(value)} | {default} | {meaning} |"
        if "properties" in value:
            yield from _rows(value, f"{prefix}{key}.")


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if isinstance(default, list):
        return f"`[{', '.join(default)}]`"
    return "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _kind(value: dict[str, Any]) -> str:
    """A JSON Schema type in words."""
    if "anyOf" in value:
        return " or ".join(_kind(kind) for kind in value["anyOf"] if kind.get("type") != "null")
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    # Durations, shares and bounds carry the name of their kind as their title.
    if value.get("title") in ("duration", "share", "bound", "hours", "share or number"):
        return str(value["title"])
    if value["type"] == "object":
        return "mapping"
    if value["type"] == "array":
        return f"list of {_kind(value['items'])}"
    low = f" >= {value['minimum']}" if "minimum" in value else ""
    low += f" > {value['exclusiveMinimum']:g}" if "exclusiveMinimum" in value else ""
    low += f" and < {value['exclusiveMaximum']:g}" if "exclusiveMaximum" in value else ""
    names = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true` or `false`"}
    return names[value["type"]] + low


def _list(words: Any) -> str:
    *most, last = [f"`{word}`" for word in words]
    return f"{', '.join(most)} and {last}"


def optimizers() -> str:
    """The page about optimizers as it stands, with the present results in their places."""
    return with_results((HERE / "optimizers.md").read_text(encoding="utf-8"), HERE / "results")


def with_results(page: str, folder: Path) -> str:
    """A page with each of its results written anew; those that are not in the folder are left out.

    Raises:
        SystemExit: a place for results has no end, so that nobody can say what to replace.
    """
    for name in re.findall(r"^<!-- results: (.+) -->$", page, re.MULTILINE):
        begin, end = f"<!-- results: {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"the page asks for the results {name!r} and has no line {end.strip()!r} below")
        path = folder / f"{name}.json"
        page = before + begin + (_results(path) if path.exists() else "") + end + after
    return page


def _results(path: Path) -> str:
    """A section: tables, what lost, and the command that printed them."""
    results = read(path)
    parts = [f"### {results.title}", *(_measured(table) for table in results.tables)]
    if results.lost:
        parts.append("What lost:\n\n" + "\n".join(f"- {sentence}" for sentence in results.lost))
    versions = ", ".join(f"{library} {version}" for library, version in results.versions.items())
    parts.append(
        f"Printed by `{results.command}` on {results.date}. Seeds: {results.seeds}. {versions}. "
        f"{results.machine}."
    )
    return "\n" + "\n\n".join(parts) + "\n\n"


def _measured(table: Table) -> str:
    lines: list[list[Any]] = [table.columns, ["---"] * len(table.columns), *table.rows]
    rows = "\n".join(f"| {' | '.join(map(_shown, line))} |" for line in lines)
    return f"**{table.title}**\n\n{rows}" + f"\n\n{table.note}" * bool(table.note)


def _shown(cell: float | str | None) -> str:
    return "" if cell is None else cell if isinstance(cell, str) else f"{cell:.3g}"


PAGES: dict[str, Callable[[], str]] = {"reference/campaign.md": campaign, "optimizers.md": optimizers}


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for name, render in PAGES.items():
        page, text = HERE / name, render()
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, encoding="utf-8")
    for name in stale:
        print(
            f"docs/{name} {'is out of date: run docs/generate.py' if check else 'written'}", file=sys.stderr
        )
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
