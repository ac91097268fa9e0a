"""A simulated feed: ten modules in a row, people who come back or do not, and the log of it."""
