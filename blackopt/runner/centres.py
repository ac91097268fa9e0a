"""What candidates by key are relative to, in the store that driver and modules share.

A candidate of a campaign with `explore` is 24 bytes: which version, which noise, which way, how far. Before
its trial is written, the numbers of its version (the optimizer's centre) are in the store; they are collected
once every trial of the version has been told. A whole model (a confirmation, a promotion) is a centre as
well, under a number of its own, and its order names the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import cached_property

import numpy as np

from blackopt.artifacts import Centre, Keyed, Store, perturb
from blackopt.artifacts.centre import label, reference
from blackopt.artifacts.store import located
from blackopt.blocks import WeightsBlock
from blackopt.campaign import CampaignSpec, refused
from blackopt.errors import ArtifactError
from blackopt.ledger import Ledger
from blackopt.ledger.rows import CentreRow, TrialRow, TrialState
from blackopt.protocols import Layered, Optimizer, Policy
from blackopt.types import Artifact, KeyedCandidate, Vector

WHOLE = 1 << 47
"""Versions from here on are no centres of the optimizer: the trial of this number is the model itself."""

ADOPTED = WHOLE + (1 << 46)
"""The same for incumbents, by their number."""


def vector_sha(vector: Vector) -> str:
    """Hex sha256 of the little-endian float64 bytes."""
    return hashlib.sha256(vector.astype("<f8").tobytes()).hexdigest()


class Centres:
    """The centres of one campaign.

    Args:
        spec: of a campaign with ``explore``.
        policy: whose blocks are the model's tensors, in the order of the vector.

    Attributes:
        shapes: of the tensors by name.
        scale: what one unit of the optimizer's coordinates is in the model.
    """

    def __init__(self, spec: CampaignSpec, policy: Policy) -> None:
        if spec.explore is None:
            raise ValueError("a campaign without `explore` has no centres")
        self.campaign, self.seed = spec.name, spec.optimizer.options.seed
        self._where = located(spec.explore.store, spec.base)
        blocks = policy.space.blocks
        self.scale = blocks[0].scale if isinstance(blocks[0], WeightsBlock) else 1.0
        known = policy.shapes if isinstance(policy, Layered) else {}
        self.shapes = {block.name: known.get(block.name, (block.size,)) for block in blocks}

    @cached_property
    def store(self) -> Store:
        """The directory, made on first use, or what is at the URL."""
        return Store(self._where)

    def check(self) -> str:
        """Look at what is in the store, for ``blackopt check``.

        Raises:
            BlackoptError: it cannot be reached.
        """
        return f"reached, {len(self.store.labels())} labels"

    def published(self, version: int, vector: Vector, recorded: CentreRow | None) -> CentreRow:
        """Put the optimizer's centre into the store, and say what is there.

        Args:
            version: how many updates the optimizer had made.
            vector: (n,) its centre.
            recorded: what the ledger says of this version. It stands for as long as the store has it, also
                where this machine's arithmetic differs in the last bits.
        """
        if (
            recorded is not None
            and self.store.resolve(label(self.campaign, version)) == recorded.artifact_sha
            and recorded.artifact_sha in self.store  # whatever else had access to it
        ):
            return recorded
        sha = self._publish(version, vector)
        return recorded or CentreRow(version, vector_sha(vector), sha)

    def artifact(self, trial: TrialRow) -> Artifact:
        """What is sent for a trial: its key in the model's units, or the name of its own file."""
        if not trial.keyed:
            return reference(self._publish(WHOLE + trial.number, trial.vector))
        key = Keyed.decode(trial.body)
        return Keyed(key.version, key.key, key.sign, key.sigma * self.scale, key.kind).encode()

    def adopted(self, number: int, vector: Vector) -> Artifact:
        """What is sent to make a vector the incumbent of this number."""
        return reference(self._publish(ADOPTED + number, vector))

    def vector(self, key: bytes) -> Vector | None:
        """(n,) the coordinates of a candidate as it was served; None once its centre has been collected."""
        candidate = Keyed.decode(key)
        try:
            centre = Centre.load(self.store, self.campaign, candidate.version)
        except ArtifactError:
            return None
        return perturb(centre.values.astype(np.float64) / self.scale, candidate, self.seed)

    def collect(self, ledger: Ledger) -> None:
        """Remove the centres that no trial needs any more. Repeating it changes nothing."""
        states = [state for state in TrialState if state is not TrialState.TOLD]
        needed = {t.version if t.keyed else WHOLE + t.number for t in ledger.trials(states=states)}
        needed |= {ADOPTED + order.number for order in ledger.incumbents()[-1:]}
        if stale := self._others(needed):
            for name in stale:
                self.store.unlabel(name)
            self.store.collect()

    def _others(self, needed: Collection[int]) -> list[str]:
        """Labels of this campaign's centres other than these."""
        kept = {label(self.campaign, version) for version in needed}
        prefix = label(self.campaign, 0)[:-1]
        return [name for name in self.store.labels() if name.startswith(prefix) and name not in kept]

    def _publish(self, version: int, vector: Vector) -> str:
        values = np.multiply(vector, self.scale).astype(np.float32)
        return Centre(self.campaign, version, self.seed, self.shapes, values).publish(self.store)


def require_keys(spec: CampaignSpec, policy: Policy, optimizer: Optimizer) -> None:
    """Refuse a campaign with ``explore`` whose candidates cannot be keys; before anything is asked of it.

    Args:
        spec: of any campaign.
        policy: its policy.
        optimizer: a fresh one, to be thrown away: it is asked for a candidate.

    Raises:
        DiagnosticsError: at the line of the section to change.
    """
    if spec.explore is None:
        return
    bounded = [block.name for block in policy.space.blocks if not isinstance(block, WeightsBlock)]
    scales = {block.scale for block in policy.space.blocks if isinstance(block, WeightsBlock)}
    if bounded:
        raise refused(
            spec,
            ("policy",),
            f"`{bounded[0]}` has bounds, and a candidate by key is not cut off at any",
            "tune weights without `bounds`, or leave out `explore`",
        )
    if len(scales) > 1:
        raise refused(
            spec,
            ("policy",),
            f"its tensors have scales from {min(scales):g} to {max(scales):g}, and a key has one step",
            f'such as tune: {{"*": {{scale: {max(scales):g}}}}}',
        )
    if not isinstance(optimizer.ask(1)[0], KeyedCandidate):
        raise refused(
            spec,
            ("optimizer",),
            f"`{spec.optimizer.use}` draws candidates that are no keys",
            "use: openai-es, or use: ars",
        )
