"""``blackopt plugins``: what is installed."""

from __future__ import annotations

from blackopt import plugins as registry
from blackopt.cli.output import Output, as_json, as_table


def plugins(output: Output) -> None:
    """Print every entry point, without importing any."""
    found = registry.describe()
    if output is Output.JSON:
        as_json(
            [
                {"group": p.group, "name": p.name, "distribution": p.distribution, "module": p.module}
                for p in found
            ]
        )
        return
    as_table(
        ["group", "name", "distribution", "module"],
        [[p.group, p.name, p.distribution, p.module] for p in found],
    )
