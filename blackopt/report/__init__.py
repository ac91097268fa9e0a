"""The campaign as one HTML file: no script, no network, nothing but what the ledger says."""

from __future__ import annotations

from blackopt.report.page import write_report

__all__ = ["write_report"]
