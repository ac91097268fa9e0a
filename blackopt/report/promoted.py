"""The way of a recommendation to the incumbent: each state with its time and its cause."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from blackopt.ledger import Ledger
from blackopt.ledger.rows import PromotionState
from blackopt.report.beside import Show
from blackopt.report.tables import Column, table
from blackopt.runner.outbox import WORDS
from blackopt.runner.standing import Standing


def promoted(ledger: Ledger, found: Standing | None, show: Show) -> str:
    """A section on the newest promotion; "" where there was none.

    Args:
        ledger: whose events tell of it.
        found: where it stands.
        show: writes an effect.
    """
    if found is None:
        return ""
    rows: list[list[str]] = []
    said = ""
    for event in ledger.events():
        about = event.data.get("number" if event.kind == "promotion" else "promotion")
        if event.kind in ("promotion", "incumbent") and about == found.number:
            state = PromotionState(str(event.data["state"]))
            at = datetime.fromtimestamp(event.at_us / 1e6, UTC)
            cause = str(event.data.get("cause", ""))
            rows.append([f"{at:%Y-%m-%d %H:%M}", WORDS[state], "" if cause == said else escape(cause)])
            said = cause
    lines = [f"{found.looks} of at most {found.of_looks} looks; {found.steps} of {found.of_steps} ramp steps"]
    if found.decision is not None:
        lines.append(f"z {found.decision.z:.2f} where {found.decision.bound:.2f} was needed")
        lines += [f"guardrail {g.metric}: {g.text}" for g in found.decision.guardrails]
    paragraphs = "".join(f"<p>{escape(line)}</p>" for line in lines)
    if found.holdback is not None:
        paragraphs += (
            f"<p>The former incumbent, on the holdback beside the new one: {show(found.holdback)}</p>"
        )
    columns = [Column("since"), Column("state"), Column("why", wide=True)]
    return f"<h2>Promotion {found.number}</h2>{paragraphs}{table(columns, rows)}"
