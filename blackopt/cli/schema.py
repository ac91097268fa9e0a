"""``blackopt schema``: the JSON Schema of campaign.yaml."""

from __future__ import annotations

from blackopt.campaign import json_schema
from blackopt.cli.output import as_json


def schema() -> None:
    """Print it, with the installed plug-ins' options."""
    as_json(json_schema())
