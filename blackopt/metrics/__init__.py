"""What readings mean: estimates, effects against the control, maturity, guardrails. Pure functions."""
