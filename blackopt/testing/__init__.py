"""Conformance suites for plug-ins, and a clock and a production to test campaigns with."""
