"""Several rehearsals together: how often they ended with a proof, and how much of what was possible."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from blackopt.campaign import CampaignSpec
from blackopt.rehearsal.outcome import Rehearsal
from blackopt.rehearsal.run import rehearse
from blackopt.rehearsal.world import World

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of the user's own is made in it
"""Where files need no disk, on Linux: a rehearsal's ledger is thrown away, and need not be durable."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What several rehearsals say.

    Attributes:
        rehearsals: each.
        proven: how many ended with a proven improvement; ``wrongly``: of those, without a true one.
        promoted: how many promoted their recommendation; None where no promotion was rehearsed.
        true, possible: medians of the final recommendation's true improvement and of the most there was.
        least, most: of the true improvements.
    """

    rehearsals: tuple[Rehearsal, ...]
    proven: int
    wrongly: int
    true: float
    possible: float
    least: float
    most: float
    promoted: int | None = None

    def __str__(self) -> str:
        n = len(self.rehearsals)
        after = "" if self.promoted is None else f"; {self.promoted} promoted it"
        if not self.possible:
            claimed = f"{self.proven} of {n} rehearsals claimed an improvement"
            return f"there was nothing to find, and {claimed}{after}"
        return (
            f"in {self.proven} of {n} rehearsals the campaign ended with a proven improvement; "
            f"median true improvement {100 * self.true:+.2f} % of {100 * self.possible:+.2f} % possible"
            f" ({100 * self.least:+.2f} to {100 * self.most:+.2f} %){after}"
        )


def summarise(rehearsals: Sequence[Rehearsal], *, promote: bool = False) -> Summary:
    """At least one rehearsal, together; ``promote``: with their promotions."""
    true = [one.true for one in rehearsals]
    return Summary(
        rehearsals=tuple(rehearsals),
        proven=sum(one.proven for one in rehearsals),
        wrongly=sum(one.proven and one.true <= 0.0 for one in rehearsals),
        true=median(true),
        possible=median(one.possible for one in rehearsals),
        least=min(true),
        most=max(true),
        promoted=sum(one.promoted for one in rehearsals) if promote else None,
    )


def rehearse_often(
    spec: CampaignSpec,
    world: World,
    seeds: Sequence[int],
    *,
    until_us: int,
    keep: Path | None = None,
    promote: bool = False,
    done: Callable[[Rehearsal], None] = lambda _: None,
) -> Summary:
    """One rehearsal for each seed.

    Args:
        spec: of the campaign.
        world: what is assumed.
        seeds: at least one.
        until_us: how long each lasts at most, in virtual microseconds.
        keep: a folder for the ledgers, one below it for each seed; None throws them away.
        promote: rehearse the promotion of each recommendation too.
        done: called after each.
    """
    one = partial(rehearse, spec, world, until_us=until_us, promote=promote)
    found = []
    for seed in seeds:
        if keep is not None:
            folder = keep / f"seed-{seed}"
            folder.mkdir(parents=True)
            found.append(one(seed=seed, folder=folder))
        else:
            with tempfile.TemporaryDirectory(dir=_fast()) as name:
                found.append(one(seed=seed, folder=Path(name)))
        done(found[-1])
    return summarise(found, promote=promote)


def _fast() -> Path | None:
    return MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
