"""``blackopt check``: everything that can be known before anything is pushed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blackopt.campaign import load
from blackopt.cli.main import Output
from blackopt.cli.output import as_json, as_table
from blackopt.errors import BlackoptError
from blackopt.protocols import Evaluator, Source, Target
from blackopt.runner.assembly import Parts, open_ledger
from blackopt.runner.budget import trials_asked


def check(path: Path, output: Output) -> None:
    """Validate, build every plug-in, reach every address; print a line for each, fail on the first kind of failure."""
    import os

    spec = load(path, env=os.environ)
    done: list[tuple[str, str, str]] = [("campaign", str(path), f"{spec.mode} campaign {spec.name}")]
    failure: BlackoptError | None = None
    with Parts(spec) as parts:
        space = parts.policy.space
        done.append(("policy", spec.policy.use, f"{space.size} parameters"))
        learner = parts.learner()
        done.append(("optimizer", spec.optimizer.use, f"ready, {learner.optimizer.group} candidate(s) to a group"))
        builders: list[tuple[str, str, Callable[[], Target | Source | Evaluator]]] = []
        if spec.push is not None and spec.measure is not None:
            builders = [("push", spec.push.use, parts.target), ("measure", spec.measure.use, parts.source)]
        elif spec.evaluate is not None:
            builders = [("evaluate", spec.evaluate.use, parts.evaluator)]
        for section, use, build in builders:
            try:
                done.append((section, use, build().check()))
            except BlackoptError as error:
                done.append((section, use, f"failed: {error.what}"))
                failure = failure or error
        if spec.ledger.exists():
            with open_ledger(spec, read_only=True) as ledger:
                done.append(("ledger", str(spec.ledger), f"{trials_asked(ledger.counts())} trials, {ledger.campaign.mode}"))
        else:
            done.append(("ledger", str(spec.ledger), "will be created"))
    if output is Output.JSON:
        as_json([{"section": section, "use": use, "result": result} for section, use, result in done])
    else:
        as_table(["section", "use", "result"], done)
    if failure is not None:
        raise failure
