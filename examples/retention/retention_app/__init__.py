"""A simulated consumer app: an onboarding pipeline, users with hidden tastes, and their raw event log."""
