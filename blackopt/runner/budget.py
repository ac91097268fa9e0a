"""What is left of a campaign's budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blackopt.campaign import Budget
from blackopt.ledger import Ledger
from blackopt.ledger.rows import TrialState
from blackopt.types import Role


def trials_asked(counts: Mapping[str, int]) -> int:
    """How many trials there are, in whatever state."""
    return sum(counts[state] for state in TrialState)


@dataclass(frozen=True, slots=True)
class Left:
    """What may still be asked.

    Attributes:
        search: trials of the search.
        confirm: measurements of the recommendation; they start anew when the search was extended after them.
        in_flight: trials asked and not told.
        searching: those of them that the optimizer asked for.
        room: how many more may be in flight.
        next_number: of the next trial.
    """

    search: int
    confirm: int
    in_flight: int
    searching: int
    room: int
    next_number: int

    @classmethod
    def of(cls, ledger: Ledger, budget: Budget) -> Left:
        """Read it from the ledger."""
        counts = ledger.counts()
        total = trials_asked(counts)
        in_flight = total - counts[TrialState.TOLD]
        others = [t for role in Role if role is not Role.SEARCH for t in ledger.trials(role=role)]
        searched = total - len(others)
        # Those after the last trial of the search: numbers are gapless, so it stands where they do not.
        numbers = {trial.number for trial in others}
        last = next((n for n in range(total - 1, -1, -1) if n not in numbers), -1)
        confirmed = sum(trial.role is Role.CONFIRM and trial.number > last for trial in others)
        aside = sum(trial.state is not TrialState.TOLD for trial in others)
        return cls(
            search=max(0, budget.trials - searched),
            confirm=max(0, budget.confirm - confirmed),
            in_flight=in_flight,
            searching=in_flight - aside,
            room=max(0, budget.max_in_flight - in_flight),
            next_number=total,
        )

    @property
    def nothing(self) -> bool:
        """Everything was asked and told."""
        return self.search == 0 and self.confirm == 0 and self.in_flight == 0
