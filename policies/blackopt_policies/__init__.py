"""Policies: one file a kind; they import only blackopt's public names."""
