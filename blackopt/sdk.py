"""blackopt from Python: a campaign in ten lines, bare ask/tell in five."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from blackopt import plugins
from blackopt.campaign import CampaignSpec, from_mapping, load
from blackopt.errors import UsageError
from blackopt.ledger import Ledger
from blackopt.protocols import Believing, Clock, Evaluator
from blackopt.protocols import Optimizer as OptimizerProtocol
from blackopt.runner import manual
from blackopt.runner.assembly import Parts, create_ledger, drive, open_ledger
from blackopt.runner.loop import Turn
from blackopt.runner.notices import Notify, silent
from blackopt.runner.promoting import begin, take_back
from blackopt.runner.results import Results, results
from blackopt.runner.standing import Standing, standing
from blackopt.space import Space
from blackopt.types import Artifact, Belief, Candidate, Evaluation, Status, Vector


class Campaign:
    """One declared optimisation with its ledger; every call opens the ledger, does its work and closes it.

    Args:
        name: lower-case letters, digits and dashes; the ledger is ``<name>.db`` unless ``ledger`` is given.
        space: parameters as under ``policy: {use: parameters, space: ...}`` in a campaign file.
        evaluate: called with the named parameters; returns a value, ``(value, standard error)``, or raises.
            None for a campaign that is asked and told by hand.
        maximize, minimize: name of what ``evaluate`` returns; exactly one of them.
        trials: budget of the search.
        confirm: how often the recommendation is evaluated again at the end.
        optimizer: a name, or a mapping as in a campaign file.
        max_in_flight: evaluations asked for and not told; default: all that run at once.
        ledger: path of the ledger.

    Raises:
        DiagnosticsError: something above is impossible; all problems at once.
    """

    def __init__(
        self,
        *,
        name: str,
        space: Mapping[str, object],
        evaluate: Callable[[dict[str, Any]], object] | None = None,
        maximize: str | None = None,
        minimize: str | None = None,
        trials: int,
        confirm: int = 0,
        optimizer: str | Mapping[str, object] = "cma-es",
        max_in_flight: int = 1,
        ledger: str | os.PathLike[str] | None = None,
    ) -> None:
        goals = {"maximize": maximize, "minimize": minimize}
        document: dict[str, object] = {
            "version": 1,
            "name": name,
            "policy": {"use": "parameters", "space": dict(space)},
            "optimizer": {"use": optimizer} if isinstance(optimizer, str) else dict(optimizer),
            "objective": {goal: metric for goal, metric in goals.items() if metric is not None},
            "budget": {"trials": trials, "confirm": confirm, "max_in_flight": max_in_flight},
        }
        if ledger is not None:
            document["ledger"] = os.fspath(ledger)
        evaluator: Evaluator | None = None
        if evaluate is not None:
            document["evaluate"] = {"use": "python", "call": f"{evaluate.__module__}:{_identifier(evaluate)}"}
            connector = cast("Any", plugins.find("connectors", "python"))
            evaluator = connector.from_callable(evaluate)
        self._setup(from_mapping(document, base=Path.cwd()), evaluator=evaluator, clock=None)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, env: Mapping[str, str] | None = None, clock: Clock | None = None
    ) -> Campaign:
        """A campaign from its file.

        Raises:
            DiagnosticsError: the file is wrong; every problem with its line.
        """
        campaign = cls.__new__(cls)
        spec = load(Path(path), env=os.environ if env is None else env)
        campaign._setup(spec, evaluator=None, clock=clock)  # noqa: SLF001 - a second constructor
        return campaign

    def _setup(self, spec: CampaignSpec, *, evaluator: Evaluator | None, clock: Clock | None) -> None:
        self.spec, self._evaluator, self._clock = spec, evaluator, clock

    @property
    def ledger(self) -> Path:
        """Path of the ledger."""
        return self.spec.ledger

    def run(self, *, notify: Notify = silent, resume: bool = False) -> Results:
        """Start or go on until the budget is spent, and say what came out.

        Args:
            notify: called with each :class:`Notice`.
            resume: go on although a guardrail or a person had stopped it.

        Raises:
            LockHeld: another process drives this campaign.
            GuardrailStop: guardrails paused it, now or before.
            BlackoptError: anything else that a person must mend; the ledger is consistent.
        """
        with self._parts() as parts:
            with drive(parts, notify) as runner:
                runner.start(resume=resume)
                runner.run()
            with open_ledger(self.spec, read_only=True) as ledger:
                return results(parts, ledger)

    def turn(self, *, notify: Notify = silent, resume: bool = False) -> Turn:
        """Take every step that is due now, and return; for cron. Calling it again at once changes nothing."""
        with self._parts() as parts, drive(parts, notify) as runner:
            runner.start(resume=resume)
            return runner.turn()

    def promote(self, *, notify: Notify = silent, once: bool = False, resume: bool = False) -> Standing:
        """Test the recommendation on fresh units; if it is proven, ramp it up and make it the incumbent.

        Goes on where an earlier call stopped, however it stopped; :meth:`run` and :meth:`turn` do too.

        Args:
            notify: called with each :class:`Notice`.
            once: take only what is due now, and return; for cron.
            resume: go on although a guardrail or a person had stopped the campaign.

        Raises:
            BlackoptError: the search has not ended, or its recommendation was refused before.
            LockHeld: another process drives this campaign.
        """
        with self._parts() as parts:
            with drive(parts, notify, create=False) as runner:
                runner.start(resume=resume)
                begin(self.spec, runner.driver, runner.learner, parts.policy, at_us=parts.clock.now_us())
                runner.wake()
                if once:
                    runner.turn()
                else:
                    runner.run()
            return self._standing()

    def rollback(self, *, notify: Notify = silent) -> Standing | None:
        """Take the newest promotion back: its arms are withdrawn, the former incumbent is adopted again.

        One turn; where production does not answer, the state stays ``REVERTING`` and the next call, or the
        next turn, goes on. None where there is nothing to take back.

        Raises:
            LockHeld: another process drives this campaign.
        """
        with self._parts() as parts, drive(parts, notify, create=False) as runner:
            now_us = parts.clock.now_us()
            if not take_back(runner.driver, cause="taken back by a person", at_us=now_us):
                return None
            runner.lane.reconcile(now_us)
            runner.lane.turn(now_us)
        return self._standing()

    def _standing(self) -> Standing:
        with open_ledger(self.spec, read_only=True) as ledger:
            found = standing(self.spec, ledger)
        if found is None:
            raise RuntimeError("a promotion was begun, and the ledger has none")
        return found

    def results(self) -> Results:
        """What is known now; may be called while another process drives the campaign."""
        with self._parts() as parts, open_ledger(self.spec, read_only=True) as ledger:
            return results(parts, ledger)

    def render(self, vector: Vector) -> Artifact:
        """What production runs for a vector of the search, such as the recommendation of :meth:`results`.

        Args:
            vector: (n,) the optimizer's coordinates.
        """
        with self._parts() as parts:
            return parts.policy.render(vector)

    def ask(self, n: int = 1) -> list[manual.Asked]:
        """Draw candidates to be tried by hand; they are in the ledger before this returns."""
        if n < 1:
            raise UsageError(f"n must be at least 1, got {n}")
        manual.require_manual(self.spec)
        with self._parts() as parts:
            at_us = parts.clock.now_us()
            exists = self.spec.ledger.exists()
            with open_ledger(self.spec) if exists else create_ledger(self.spec, parts, at_us) as ledger:
                return manual.ask(parts, ledger, n)

    def tell(self, number: int, value: float | None, *, se: float | None = None, failed: str = "") -> None:
        """Report one candidate of :meth:`ask`.

        Args:
            number: of the trial.
            value: of the objective's metric; None if it failed.
            se: its standard error.
            failed: why there is no value.

        Raises:
            UsageError: no such trial, a value that is not finite, or a trial that was told otherwise before.
        """
        manual.require_manual(self.spec)
        with self._parts() as parts, open_ledger(self.spec) as ledger:
            manual.tell(parts, ledger, number, value, se=se, failed=failed)

    def _parts(self) -> Parts:
        return Parts(self.spec, evaluator=self._evaluator, clock=self._clock)


class Optimizer:
    """Bare ask/tell over named parameters: no ledger, no clock, nothing stored.

    Args:
        space: parameters, as for :class:`Campaign`.
        use: name of an optimizer.
        options: of that optimizer.

    Raises:
        UsageError: a space or an option that is wrong.
        ConfigurationError: there is no such optimizer.
    """

    def __init__(self, space: Mapping[str, Any], use: str = "cma-es", **options: object) -> None:
        if not isinstance(space, Mapping):
            raise UsageError(
                f"space: expected names and blocks, such as {{'x': {{'float': [0, 1]}}}}, got {space!r}"
            )
        self.space = Space.from_spec(space)
        cls = cast("type[OptimizerProtocol]", plugins.find("optimizers", use))
        try:
            checked = cls.Options.model_validate(options)
        except ValidationError as error:
            raise UsageError(_wrong_options(use, error)) from error
        self._optimizer = cls(self.space, self.space.start(), checked)

    def ask(self, n: int) -> list[Proposal]:
        """Draw n candidates; never waits for a tell."""
        return [
            Proposal(candidate, self.space.decode(candidate.vector)) for candidate in self._optimizer.ask(n)
        ]

    def tell(self, number: int, loss: float | None, *, se: float | None = None) -> None:
        """Report the loss (lower is better) of one candidate, in any order; None where it failed.

        Raises:
            UnknownCandidate, AlreadyTold: the number was never asked, or told before.
        """
        status = Status.OK if loss is not None else Status.FAILED
        self._optimizer.tell([Evaluation(number, loss, se=se, status=status)])

    def recommend(self) -> dict[str, object]:
        """The centre that the optimizer believes in."""
        return self.space.decode(self._optimizer.recommend())

    def belief(self) -> Belief | None:
        """By how much it thinks that better than the start, and how surely; None where it has no opinion."""
        return self._optimizer.belief() if isinstance(self._optimizer, Believing) else None


class Proposal:
    """A candidate with named parameters."""

    __slots__ = ("number", "params", "vector")

    def __init__(self, candidate: Candidate, params: dict[str, object]) -> None:
        self.number = candidate.number
        self.vector = candidate.vector
        self.params = params

    def __repr__(self) -> str:
        return f"Proposal(number={self.number}, params={self.params})"


def _wrong_options(use: str, error: ValidationError) -> str:
    """Every problem on one line, as ``population: Input should be greater than 1, got 0``."""
    problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
    return f"options of {use}: " + "; ".join(problems)


def _identifier(function: Callable[..., object]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)


__all__: Sequence[str] = ("Campaign", "Ledger", "Optimizer", "Proposal")
