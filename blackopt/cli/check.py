"""``blackopt check``: everything that can be known before anything is pushed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blackopt.campaign import load
from blackopt.cli.output import Output, as_json, as_table, complain, plural
from blackopt.errors import BlackoptError
from blackopt.protocols import Evaluator, Explained, Optimizer, Source, Target
from blackopt.runner.assembly import Parts, open_ledger
from blackopt.runner.budget import trials_asked
from blackopt.runner.centres import Centres, require_keys


def check(path: Path, output: Output) -> None:
    """Validate, build every plug-in, reach every address: a line for each, then every failure in full."""
    import os

    spec = load(path, env=os.environ)
    done: list[tuple[str, str, str]] = [("campaign", str(path), f"{spec.mode} campaign {spec.name}")]
    failures: list[BlackoptError] = []
    with Parts(spec) as parts:
        space = parts.policy.space
        done.append(("policy", spec.policy.use, plural(space.size, "dimension")))
        optimizer = parts.learner().optimizer
        require_keys(spec, parts.policy, optimizer)
        done.append(("optimizer", spec.optimizer.use, _ready(optimizer)))
        builders: list[tuple[str, str, Callable[[], Target | Source | Evaluator | Centres]]] = []
        if spec.push is not None and spec.measure is not None:
            builders = [("push", spec.push.use, parts.target), ("measure", spec.measure.use, parts.source)]
        elif spec.evaluate is not None:
            builders = [("evaluate", spec.evaluate.use, parts.evaluator)]
        if spec.explore is not None:
            builders.append(("explore", spec.explore.store, lambda: Centres(spec, parts.policy)))
        for section, use, build in builders:
            try:
                done.append((section, use, build().check()))
            except BlackoptError as error:
                done.append((section, use, f"failed: {error.what}"))
                failures.append(error)
        if spec.ledger.exists():
            with open_ledger(spec, read_only=True) as ledger:
                done.append(
                    (
                        "ledger",
                        str(spec.ledger),
                        f"{plural(trials_asked(ledger.counts()), 'trial')}, {ledger.campaign.mode}",
                    )
                )
        else:
            done.append(("ledger", str(spec.ledger), "will be created"))
    if output is Output.JSON:
        as_json([{"section": section, "use": use, "result": result} for section, use, result in done])
    else:
        as_table(["section", "use", "result"], done)
    for failure in failures:
        failure.next_step = failure.next_step or "mend this, then run `blackopt check` again"
    for failure in failures[:-1]:
        complain(failure)
    if failures:
        raise failures[-1]


def _ready(optimizer: Optimizer) -> str:
    """What it asks in, and what it says about itself."""
    groups = f", asks in groups of {optimizer.group}" if optimizer.group > 1 else ""
    said = optimizer.reason if isinstance(optimizer, Explained) else ""
    return f"ready{groups}" + (f"; {said}" if said else "")
