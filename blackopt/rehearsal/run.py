"""One rehearsal: the real runner and a real ledger, against a simulated production, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from blackopt.campaign import CampaignSpec
from blackopt.errors import ConfigurationError
from blackopt.rehearsal.clock import VirtualClock
from blackopt.rehearsal.faults import Faults
from blackopt.rehearsal.landscape import Landscape
from blackopt.rehearsal.outcome import Rehearsal
from blackopt.rehearsal.production import SLICES, SimulatedProduction
from blackopt.rehearsal.watch import Watch
from blackopt.rehearsal.world import DAY_US, World
from blackopt.runner.assembly import Parts, drive
from blackopt.runner.judge import Judge


def require_production(spec: CampaignSpec) -> None:
    """Only a campaign in production has something to rehearse.

    Raises:
        ConfigurationError: it is another.
    """
    if spec.schedule is None or spec.measure is None or spec.traffic is None:
        raise ConfigurationError(
            "there is no production to rehearse",
            where=spec.file,
            why=f"it is a campaign of the form {spec.mode}",
            safe="nothing was contacted",
            next_step="`blackopt run`: nothing of it is served to anybody",
        )


def prepared(spec: CampaignSpec, ledger: Path) -> CampaignSpec:
    """The campaign as it is rehearsed: another ledger, and polls that are no more frequent than the simulated
    readings change. Both may differ from what the ledger's campaign says, as in a campaign that runs.
    """
    require_production(spec)
    assert spec.schedule is not None
    poll = max(spec.schedule.poll, min(spec.schedule.window, DAY_US) // SLICES)
    guardrails = tuple(
        replace(
            g,
            # A guardrail is silent only if it would be with readings that come as often as they do here.
            silent_after=max(g.silent_after, matures_after(spec, g.metric) + 3 * poll),
        )
        for g in spec.guardrails
    )
    schedule = spec.schedule.model_copy(update={"poll": poll, "lease": max(spec.schedule.lease, 3 * poll)})
    # Candidates by key are rehearsed as the vectors that they stand for: there is no module to perturb.
    return replace(spec, ledger=ledger, schedule=schedule, guardrails=guardrails, explore=None)


def matures_after(spec: CampaignSpec, metric: str) -> int:
    """From an exposure until the metric has matured, in microseconds."""
    return Judge(spec).metrics[metric].maturity.mature_at(0)


def rehearse(
    spec: CampaignSpec, world: World, *, seed: int, folder: Path, until_us: int, promote: bool = False
) -> Rehearsal:
    """Run the campaign once, to its end or for so long.

    Args:
        spec: of a campaign in production. Its target, source, clock and ledger are never touched.
        world: what is assumed of production.
        seed: draws the truth, the units and the faults; the campaign's own seed is the optimizer's.
        folder: where the rehearsal's ledger is made, as ``<name>.db``.
        until_us: how long at most, in virtual microseconds.
        promote: take its recommendation to production as well, as ``blackopt promote`` does.
    """
    spec = prepared(spec, folder / f"{spec.name}.db")
    clock = VirtualClock()
    faults = Faults(world.faults, seed, clock)
    with Parts(spec) as own:
        truth = Landscape(
            own.policy,
            improve=world.improve,
            harms=world.harms,
            wander=world.wander,
            seed=seed,
            start_us=clock.now_us(),
        )
        judge = Judge(spec)
        production = SimulatedProduction(
            world,
            truth,
            own.policy,
            clock,
            faults,
            judge.kinds,
            {name: rule.maturity.mature_at for name, rule in judge.metrics.items()},
            spec.objective,
            seed=seed,
        )
        with Parts(spec, clock=clock, target=production, source=production) as parts:
            watch = Watch(spec, world, truth, production, faults, parts)
            with drive(parts, watch.notice) as runner:
                watch.follow(runner, clock, clock.now_us() + until_us, promote=promote)
                return watch.found(seed)
