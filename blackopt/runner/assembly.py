"""From a campaign to a runner: build the plug-ins, open the ledger, restore the optimizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self, TypeVar, cast

from blackopt import plugins
from blackopt.campaign import CampaignSpec, changes
from blackopt.errors import ConfigurationError, RetriableError
from blackopt.ledger import Driver, Ledger
from blackopt.ledger.rows import NewCampaign
from blackopt.protocols import Clock, Evaluator, Optimizer, PluginOptions, Policy, Source, Target
from blackopt.runner.centres import Centres, require_keys
from blackopt.runner.checked import CheckedSource
from blackopt.runner.evaluation import EvaluationLane
from blackopt.runner.judge import Judge
from blackopt.runner.learner import Learner, optimizer_maker
from blackopt.runner.loop import Lane, Runner
from blackopt.runner.notices import Notice, Notify
from blackopt.runner.production import ProductionLane

Connector = TypeVar("Connector", Target, Source, Evaluator)


class Parts:
    """The plug-ins of one campaign, built on first use and closed together."""

    def __init__(
        self,
        spec: CampaignSpec,
        *,
        evaluator: Evaluator | None = None,
        clock: Clock | None = None,
        target: Target | None = None,
        source: Source | None = None,
    ) -> None:
        self.spec = spec
        self._evaluator, self._clock, self._target, self._source = evaluator, clock, target, source
        self._policy: Policy | None = None
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def policy(self) -> Policy:
        """Turns vectors into artifacts."""
        if self._policy is None:
            section = self.spec.policy
            self._policy = cast(
                "Policy", plugins.find("policies", section.use)(section.options, base=self.spec.base)
            )
        return self._policy

    @property
    def clock(self) -> Clock:
        """Where the time comes from."""
        if self._clock is None:
            section = self.spec.clock
            self._clock = cast("Clock", plugins.find("clocks", section.use)(section.options))
        return self._clock

    def target(self) -> Target:
        """Where candidates are pushed."""
        if self._target is not None:
            return self._target
        section = self.spec.push
        if section is None:
            raise _missing(self.spec, "push")
        target: Target = plugins.find("connectors", section.use, role=Target)(
            section.options, base=self.spec.base
        )
        return self._keep(target)

    def source(self) -> Source:
        """Where metrics are polled."""
        if self._source is not None:
            return self._source
        measure = self.spec.measure
        if measure is None:
            raise _missing(self.spec, "measure")
        source = self._build_source({name: metric.options for name, metric in measure.metrics.items()})
        return CheckedSource(source, Judge(self.spec).metrics)

    def history_source(self) -> Source:
        """Where the control's past is read: the campaign's source, with what the metrics' ``history`` says.

        Raises:
            ConfigurationError: no metric has a ``history``.
        """
        measure = self.spec.measure
        if measure is None:
            raise _missing(self.spec, "measure")
        past = {name: m.history for name, m in measure.metrics.items() if m.history is not None}
        if not past:
            raise ConfigurationError(
                "no metric says how its past is read",
                where=f"{self.spec.file}: measure.metrics",
                why="--since and --until read the control's past, by each metric's `history`",
                safe="nothing was read",
                next_step="add `history`, such as history: {query: queries/past.sql}; or state --baseline",
            )
        return self._build_source(past)

    def _build_source(self, metrics: Mapping[str, PluginOptions]) -> Source:
        measure = self.spec.measure
        if measure is None:
            raise _missing(self.spec, "measure")
        source: Source = plugins.find("connectors", measure.use, role=Source)(
            measure.options, metrics, base=self.spec.base
        )
        return self._keep(source)

    def evaluator(self) -> Evaluator:
        """What runs candidates, in a campaign without production."""
        if self._evaluator is not None:
            return self._evaluator
        section = self.spec.evaluate
        if section is None:
            raise _missing(self.spec, "evaluate")
        evaluator: Evaluator = plugins.find("connectors", section.use, role=Evaluator)(
            section.options, base=self.spec.base
        )
        return self._keep(evaluator)

    @property
    def centres(self) -> Centres | None:
        """What candidates by key are relative to; None where candidates are vectors."""
        return None if self.spec.explore is None else Centres(self.spec, self.policy)

    def learner(self) -> Learner:
        """A fresh optimizer, to be restored from a ledger."""
        section = self.spec.optimizer
        cls = cast("type[Optimizer]", plugins.find("optimizers", section.use))
        make = optimizer_maker(cls, self.policy.space, self.policy.start(), cast("Any", section.options))
        return Learner(make, maximize=self.spec.objective.maximizes, centres=self.centres)

    def _keep(self, part: Connector) -> Connector:
        self._closing.callback(part.close)
        return part


def open_ledger(spec: CampaignSpec, *, read_only: bool = False) -> Ledger:
    """Open the campaign's ledger, which must exist and be about this very campaign.

    Raises:
        LedgerError: there is none, or it cannot be trusted.
        ConfigurationError: the campaign was edited after it started; the message lists what changed.
    """
    ledger = Ledger.open(spec.ledger, read_only=read_only)
    if ledger.campaign.config_sha != spec.sha256:
        edited = _edited(spec, ledger)
        ledger.close()
        raise edited
    return ledger


def create_ledger(spec: CampaignSpec, parts: Parts, at_us: int) -> Ledger:
    """A new ledger for the campaign."""
    learner = parts.learner()  # an optimizer that cannot be built must not leave a ledger behind
    version = learner.version
    require_keys(spec, parts.policy, learner.optimizer)
    campaign = NewCampaign(spec.name, spec.canonical, spec.sha256, spec.optimizer.use, version)
    return Ledger.create(spec.ledger, campaign, at_us=at_us)


@contextmanager
def drive(parts: Parts, notify: Notify, *, create: bool = True) -> Iterator[Runner]:
    """Take the campaign's lock and hand out a runner that is restored and ready to start.

    Raises:
        LockHeld: another process drives it.
    """
    spec = parts.spec
    fresh = create and not spec.ledger.exists()
    make_lane = _lane(parts, notify, check=fresh)
    with ExitStack() as stack:
        at_us = parts.clock.now_us()
        ledger = stack.enter_context(create_ledger(spec, parts, at_us) if fresh else open_ledger(spec))
        if fresh:
            notify(Notice("ledger", f"new: {ledger.path}"))
        driver = stack.enter_context(ledger.drive(at_us=at_us))
        learner = parts.learner()
        learner.restore(ledger)
        yield Runner(spec, driver, learner, make_lane(driver, learner), parts.clock, notify)


def _lane(parts: Parts, notify: Notify, *, check: bool) -> Callable[[Driver, Learner], Lane]:
    """How the campaign's trials live, with its connectors built and waiting for a driver.

    A campaign is frozen once its ledger exists. So whatever ``check`` can find out is found out before, when
    it may still be mended.

    Raises:
        ConfigurationError: it is asked and told by hand.
        BlackoptError: ``check`` failed.
    """
    spec, policy = parts.spec, parts.policy
    if spec.evaluate is not None:
        evaluator = parts.evaluator()
        if check:
            evaluator.check()
        return lambda driver, learner: EvaluationLane(spec, driver, learner, policy, evaluator, notify)
    if spec.push is not None:
        target, source, judge = parts.target(), parts.source(), Judge(spec)
        if check:
            for part in (target, source):
                with suppress(RetriableError):  # what is only down may come back: the turns try again
                    part.check()
        return lambda driver, learner: ProductionLane(
            spec, driver, learner, policy, target, source, judge, notify
        )
    raise ConfigurationError(
        f"campaign {spec.name} is asked and told by hand",
        where=str(spec.file),
        why="it has neither `push` and `measure` nor `evaluate`",
        safe="nothing was created",
        next_step="use `blackopt ask` and `blackopt tell`",
    )


def _missing(spec: CampaignSpec, section: str) -> ConfigurationError:
    return ConfigurationError(f"campaign {spec.name} has no `{section}`", where=str(spec.file))


def _edited(spec: CampaignSpec, ledger: Ledger) -> ConfigurationError:
    old = json.loads(ledger.campaign.config)
    lines = changes(old, spec.document)
    return ConfigurationError(
        "the campaign was edited after it started",
        where=f"{spec.file}, against {ledger.path}",
        why="; ".join(lines),
        safe="nothing was pushed; the ledger is unchanged",
        next_step="undo the edit, or start the edited campaign anew under another `name` (and `ledger`)"
        + _keeping(old["optimizer"], spec.document["optimizer"]),
    )


def _keeping(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """How a budget may be edited although the optimizer was made for it."""
    told = [
        f"`{key}: {old[key]}`" for key in ("trials", "parallel") if key in old and old[key] != new.get(key)
    ]
    return f"; a budget may be edited: write {' and '.join(told)} under `optimizer`" if told else ""
