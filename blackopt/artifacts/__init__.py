"""Artifacts for large models: whole, as what changed, or as a key of 24 bytes; and where they are kept.

docs/artifacts.md says which when, and gives the bytes for implementers in any language.
"""
