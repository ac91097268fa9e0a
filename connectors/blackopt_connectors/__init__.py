"""Connectors: one file each; they import only blackopt's public names."""
