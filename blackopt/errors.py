"""Every error that blackopt raises on purpose, sorted by what the runner must do next.

BlackoptError
├── ConfigurationError      stop before anything is pushed          exit 2
│   ├── DiagnosticsError    several problems of one file at once    exit 2
│   └── WrongColumns        a source returns other columns than its metric needs
├── RetriableError          nothing is lost; try again later        exit 75
│   ├── OutcomeUnknown      a request was sent and not answered: send it again with the same key
│   └── LockHeld            another process drives this campaign
├── TrialError              withdraw this trial and go on
│   └── ArtifactError       an artifact is damaged, missing, or of another format or base
├── GuardrailStop           a person must look                      exit 3
└── FatalError              stop; a person must mend something      exit 1
    ├── LedgerError         the ledger refuses, or cannot be trusted
    └── Fenced              a newer driver took over this campaign
UsageError(ValueError)      a call was wrong: raised to the caller of the SDK, and never caught
"""

from __future__ import annotations

from collections.abc import Sequence


class BlackoptError(Exception):
    """An error with what a person needs: what happened, where, why, what is safe, and the next command.

    Args:
        what: what happened, one sentence without a full stop.
        where: file, address, table or trial that it concerns.
        why: the cause, as far as it is known.
        safe: what has not been lost or changed.
        next_step: what to do or run next.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: str = "", why: str = "", safe: str = "", next_step: str = ""
    ) -> None:
        self.what, self.where, self.why, self.safe, self.next_step = what, where, why, safe, next_step
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        for label, text in (
            ("where", self.where),
            ("why", self.why),
            ("safe", self.safe),
            ("next", self.next_step),
        ):
            if text:
                lines.append(f"  {label + ':':<7}{text}")
        return "\n".join(lines)


class ConfigurationError(BlackoptError):
    """The campaign, its environment or its plug-ins are wrong; nothing has been pushed."""

    exit_code = 2


class DiagnosticsError(ConfigurationError):
    """Several problems of one file, found in one pass; ``problems`` holds them, ``str()`` prints them all."""

    def __init__(self, what: str, problems: Sequence[object], *, next_step: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__(what, next_step=next_step)

    def __str__(self) -> str:
        return "\n".join([*(str(problem) for problem in self.problems), super().__str__()])


class WrongColumns(ConfigurationError):
    """What a source returns for a metric has not the columns that the metric needs, or others besides."""

    def __init__(
        self, what: str, *, where: str = "", why: str = "", safe: str = "", next_step: str = ""
    ) -> None:
        super().__init__(f"WrongColumns: {what}", where=where, why=why, safe=safe, next_step=next_step)


class RetriableError(BlackoptError):
    """Temporary: the same step may succeed later, and nothing has been lost.

    Args:
        retry_after_s: what the other side asked for (HTTP Retry-After), if it did.
    """

    exit_code = 75

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        why: str = "",
        safe: str = "",
        next_step: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(what, where=where, why=why, safe=safe, next_step=next_step)
        self.retry_after_s = retry_after_s


class OutcomeUnknown(RetriableError):
    """A request may or may not have been applied: recorded as unknown, and sent again with the same key."""


class LockHeld(RetriableError):
    """Another process drives this campaign; it is named in ``where``."""


class TrialError(BlackoptError):
    """This trial cannot go on; the campaign can."""


class ArtifactError(TrialError):
    """An artifact is damaged, missing, or of another format or base; nothing was made of it."""


class GuardrailStop(BlackoptError):
    """Guardrails stopped the campaign; it stays paused until a person resumes it."""

    exit_code = 3


class FatalError(BlackoptError):
    """Nothing more can be done safely by this process."""


class LedgerError(FatalError):
    """The ledger refused a write, is damaged, or belongs to another campaign or version."""


class Fenced(FatalError):
    """A newer driver holds a higher epoch; this process must not write or push any more."""


class UsageError(ValueError):
    """A call of the SDK with impossible arguments: names the argument, what was expected and what came."""


class UnknownCandidate(UsageError):
    """``tell`` named a candidate that ``ask`` never returned."""


class AlreadyTold(UsageError):
    """``tell`` named a candidate for the second time."""
