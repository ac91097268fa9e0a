"""Conformance suite for targets: subclass :class:`TargetConformance` and pytest finds the rest.

    from blackopt.testing.targets import TargetConformance

    class TestMine(TargetConformance):
        @pytest.fixture
        def target(self, tmp_path):
            with a_running_module() as url:
                yield Mine(Mine.Options(url=url), base=tmp_path)

The fixture returns a target whose module serves nothing yet. The suite holds both to
:class:`blackopt.protocols.Target`: idempotent by key, fenced by epoch, observable, withdrawn for good, and
with an incumbent whose number only rises.

For a module that remembers, give the fixture ``restart`` too; for one that judges what it is sent,
``unacceptable``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from blackopt.protocols import PluginOptions, Target
from blackopt.types import Adopt, Artifact, Outcome, Placement, Push, Slice, Withdraw

CAMPAIGN = "conformance"


def a_push(trial: int, *, epoch: int = 1, ttl_s: float = 600.0, body: bytes = b"") -> Push:
    """A push of one trial, on its own hundredth of the traffic of window 1."""
    lower = 100_000 + 10_000 * trial
    return Push(
        key=hashlib.sha256(f"{CAMPAIGN}|{trial}|apply".encode()).hexdigest(),
        campaign=CAMPAIGN,
        trial=trial,
        arm=f"t{trial}",
        epoch=epoch,
        ttl_s=ttl_s,
        artifact=Artifact(body or b'{"trial":%d}' % trial),
        placement=Placement(1, "7.1", Slice(lower, lower + 10_000), Slice(0, 100_000)),
    )


def a_withdrawal(trial: int, *, epoch: int = 1) -> Withdraw:
    """The withdrawal of one trial."""
    key = hashlib.sha256(f"{CAMPAIGN}|{trial}|withdraw".encode()).hexdigest()
    return Withdraw(key, CAMPAIGN, trial, f"t{trial}", epoch)


def an_adoption(number: int, *, epoch: int = 1, body: bytes = b"") -> Adopt:
    """The adoption of one incumbent."""
    key = hashlib.sha256(f"{CAMPAIGN}|{number}|adopt".encode()).hexdigest()
    return Adopt(key, CAMPAIGN, number, epoch, Artifact(body or b'{"incumbent":%d}' % number))


class TargetConformance:
    """What every target does. Subclasses give the fixture ``target``."""

    @pytest.fixture
    def target(self) -> Target:
        """A target whose module serves nothing yet."""
        raise NotImplementedError("a subclass of TargetConformance defines the fixture `target`")

    @pytest.fixture
    def restart(self) -> Callable[[], Target] | None:
        """Ends the module, starts it on what it remembers, and gives a target for it; None: it forgets."""
        return None

    @pytest.fixture
    def unacceptable(self) -> Artifact | None:
        """What the module refuses to serve; None: nobody answers for it when an order is taken."""
        return None

    def test_is_a_target_with_strict_options(self, target: Target) -> None:
        """It has every method of the contract, and options that refuse unknown keys."""
        assert isinstance(target, Target)
        assert issubclass(target.Options, PluginOptions)
        assert target.Options.model_config.get("extra") == "forbid"

    def test_check_changes_nothing_and_says_one_line(self, target: Target) -> None:
        """``check`` may run at any time, against production."""
        target.push(a_push(1))
        before = _arms(target)
        line = target.check()
        assert line
        assert "\n" not in line
        assert _arms(target) == before

    def test_nothing_is_live_at_first(self, target: Target) -> None:
        """The fixture starts clean, or the other tests prove nothing."""
        assert target.observe() == []

    def test_a_push_is_live_as_it_was_ordered(self, target: Target) -> None:
        """What is observed names the order, and its lease is not longer than it."""
        order = a_push(3, ttl_s=600.0)
        assert target.push(order).outcome is Outcome.APPLIED
        (live,) = target.observe()
        assert (live.campaign, live.trial, live.arm, live.epoch) == (CAMPAIGN, 3, "t3", 1)
        assert live.sha256 == order.artifact.sha256
        assert 0 < live.expires_in_s <= 600.0

    def test_a_repeated_push_changes_nothing(self, target: Target) -> None:
        """At-least-once delivery is harmless."""
        target.push(a_push(1))
        before = _arms(target)
        assert target.push(a_push(1)).outcome is Outcome.REPEATED
        assert _arms(target) == before

    def test_a_repeated_push_renews_the_lease(self, target: Target) -> None:
        """The same order with more time makes the arm live longer."""
        target.push(a_push(1, ttl_s=100.0))
        assert target.push(a_push(1, ttl_s=500.0)).outcome is Outcome.REPEATED
        (live,) = target.observe()
        assert 100.0 < live.expires_in_s <= 500.0

    def test_a_trial_never_changes_its_artifact(self, target: Target) -> None:
        """What was measured under a trial's name is one artifact."""
        target.push(a_push(1))
        receipt = target.push(a_push(1, body=b'{"other":1}'))
        assert receipt.outcome is Outcome.REFUSED
        assert receipt.detail
        assert [live.sha256 for live in target.observe()] == [a_push(1).artifact.sha256]

    def test_several_arms_are_live_together(self, target: Target) -> None:
        """Arms of a window do not replace each other."""
        for trial in (2, 0, 1):
            target.push(a_push(trial))
        assert sorted(live.trial for live in target.observe()) == [0, 1, 2]

    def test_a_withdrawn_arm_is_not_live(self, target: Target) -> None:
        """And the others still are."""
        target.push(a_push(1))
        target.push(a_push(2))
        assert target.withdraw(a_withdrawal(1)).outcome is Outcome.APPLIED
        assert [live.trial for live in target.observe()] == [2]

    def test_withdrawing_what_is_not_live_succeeds(self, target: Target) -> None:
        """Never pushed, or withdrawn before."""
        assert target.withdraw(a_withdrawal(9)).outcome is not Outcome.REFUSED
        target.push(a_push(1))
        target.withdraw(a_withdrawal(1))
        assert target.withdraw(a_withdrawal(1)).outcome is not Outcome.REFUSED

    def test_a_push_after_its_withdrawal_is_refused(self, target: Target) -> None:
        """A push that was held up on its way must not bring the arm back."""
        target.push(a_push(1))
        target.withdraw(a_withdrawal(1))
        assert target.push(a_push(1)).outcome is Outcome.REFUSED
        assert target.observe() == []

    def test_a_lower_epoch_is_fenced(self, target: Target) -> None:
        """A driver that was replaced changes nothing any more."""
        target.push(a_push(1, epoch=5))
        before = _arms(target)
        for receipt in (
            target.push(a_push(2, epoch=4)),
            target.push(a_push(1, epoch=4, ttl_s=900.0)),
            target.withdraw(a_withdrawal(1, epoch=4)),
        ):
            assert receipt.outcome is Outcome.REFUSED
            assert receipt.detail.startswith("fenced")
        assert _arms(target) == before

    def test_a_withdrawal_fences_too(self, target: Target) -> None:
        """The fence rises with every order, not only with pushes."""
        target.withdraw(a_withdrawal(1, epoch=5))
        assert target.push(a_push(2, epoch=4)).outcome is Outcome.REFUSED

    def test_a_new_driver_takes_over(self, target: Target) -> None:
        """A higher epoch renews and withdraws what a lower one pushed."""
        target.push(a_push(1, epoch=1))
        assert target.push(a_push(1, epoch=2)).outcome is Outcome.REPEATED
        assert [live.epoch for live in target.observe()] == [2]
        assert target.withdraw(a_withdrawal(1, epoch=3)).outcome is Outcome.APPLIED

    def test_campaigns_do_not_fence_each_other(self, target: Target) -> None:
        """Epochs count within a campaign."""
        target.push(a_push(1, epoch=5))
        other = replace(a_push(2), campaign="another", key="0" * 64, placement=None)
        assert target.push(other).outcome is Outcome.APPLIED

    @pytest.mark.parametrize("name", ["../up", "a/b", "nul\0", "", ".hidden", "a\nb", "x" * 300])
    def test_f67_names_cannot_leave_their_place(self, target: Target, name: str) -> None:
        """A name is never a path; neither of a campaign nor of an arm."""
        for bad in (replace(a_push(1), arm=name), replace(a_push(1), campaign=name)):
            assert target.push(bad).outcome is Outcome.REFUSED
        assert target.adopt(replace(an_adoption(1), campaign=name)).outcome is Outcome.REFUSED
        assert target.observe() == []

    def test_nothing_is_adopted_at_first(self, target: Target) -> None:
        """The module serves what it was configured with, also while arms are live."""
        target.push(a_push(1))
        assert target.incumbent(CAMPAIGN) is None

    def test_what_is_adopted_is_the_incumbent_of_its_campaign(self, target: Target) -> None:
        """And of no other; the arms are not touched."""
        target.push(a_push(1))
        before = _arms(target)
        assert target.adopt(an_adoption(1)).outcome is Outcome.APPLIED
        assert target.incumbent(CAMPAIGN) == (1, an_adoption(1).artifact.sha256)
        assert target.incumbent("another") is None
        assert _arms(target) == before

    def test_a_repeated_adoption_changes_nothing(self, target: Target) -> None:
        """At-least-once delivery is harmless, also by the next driver."""
        target.adopt(an_adoption(1))
        assert target.adopt(an_adoption(1)).outcome is Outcome.REPEATED
        assert target.adopt(an_adoption(1, epoch=2)).outcome is Outcome.REPEATED
        assert target.incumbent(CAMPAIGN) == (1, an_adoption(1).artifact.sha256)

    def test_a_later_adoption_replaces_the_earlier(self, target: Target) -> None:
        """Numbers may be left out, and an artifact may come back under a later one."""
        for order in (an_adoption(1), an_adoption(4), replace(an_adoption(1), number=5)):
            assert target.adopt(order).outcome is Outcome.APPLIED
            assert target.incumbent(CAMPAIGN) == (order.number, order.artifact.sha256)

    def test_an_earlier_adoption_is_stale(self, target: Target) -> None:
        """One that was held up on its way must not undo a later one."""
        target.adopt(an_adoption(3))
        receipt = target.adopt(an_adoption(2))
        assert receipt.outcome is Outcome.REFUSED
        assert receipt.detail.startswith("stale")
        assert target.incumbent(CAMPAIGN) == (3, an_adoption(3).artifact.sha256)

    def test_one_number_is_one_artifact(self, target: Target) -> None:
        """Two drivers that disagree about a number are not both right."""
        target.adopt(an_adoption(1))
        receipt = target.adopt(an_adoption(1, body=b'{"other":1}'))
        assert receipt.outcome is Outcome.REFUSED
        assert receipt.detail.startswith("conflict")
        assert target.incumbent(CAMPAIGN) == (1, an_adoption(1).artifact.sha256)

    def test_adoptions_are_fenced_like_every_order(self, target: Target) -> None:
        """A driver that was replaced adopts nothing, and an adoption raises the fence too."""
        target.push(a_push(1, epoch=5))
        receipt = target.adopt(an_adoption(1, epoch=4))
        assert receipt.outcome is Outcome.REFUSED
        assert receipt.detail.startswith("fenced")
        assert target.incumbent(CAMPAIGN) is None
        target.adopt(an_adoption(1, epoch=6))
        assert target.push(a_push(2, epoch=5)).detail.startswith("fenced")
        assert target.adopt(an_adoption(1, epoch=5)).detail.startswith("fenced")

    def test_an_incumbent_survives_a_restart(
        self, target: Target, restart: Callable[[], Target] | None
    ) -> None:
        """Nobody sends it again: it is not leased, and its driver may be gone for good."""
        if restart is None:
            pytest.skip("no fixture `restart`: this module forgets what it was told")
        target.adopt(an_adoption(2, epoch=3))
        again = restart()
        assert again.incumbent(CAMPAIGN) == (2, an_adoption(2).artifact.sha256)
        assert again.adopt(an_adoption(1, epoch=3)).detail.startswith("stale")
        assert again.adopt(an_adoption(2, epoch=2)).detail.startswith("fenced")
        assert again.adopt(an_adoption(2, epoch=3)).outcome is Outcome.REPEATED
        assert again.adopt(an_adoption(3, epoch=3)).outcome is Outcome.APPLIED

    def test_what_the_module_refuses_is_not_adopted(
        self, target: Target, unacceptable: Artifact | None
    ) -> None:
        """It keeps the incumbent it has, and the number is still free."""
        if unacceptable is None:
            pytest.skip("no fixture `unacceptable`: this module judges when it serves")
        target.adopt(an_adoption(1))
        receipt = target.adopt(replace(an_adoption(2), artifact=unacceptable))
        assert receipt.outcome is Outcome.REFUSED
        assert receipt.detail
        assert target.incumbent(CAMPAIGN) == (1, an_adoption(1).artifact.sha256)
        assert target.adopt(an_adoption(2)).outcome is Outcome.APPLIED

    def test_closing_twice_is_harmless(self, target: Target) -> None:
        """Cleaning up happens more than once."""
        target.close()
        target.close()


def _arms(target: Target) -> list[tuple[int, int, str]]:
    return sorted((live.trial, live.epoch, live.sha256) for live in target.observe())
