"""``campaign.yaml``: one declared optimisation, checked as a whole before anything is pushed."""

from blackopt.campaign.document import changes
from blackopt.campaign.loader import from_mapping, load, parse
from blackopt.campaign.published import json_schema
from blackopt.campaign.schema import (
    Budget,
    CampaignSpec,
    Document,
    Form,
    GuardrailSpec,
    MeasureSection,
    MetricSpec,
    Objective,
    OptimizerSection,
    PluginSection,
    Schedule,
    TrafficSpec,
)

__all__ = [
    "Budget",
    "CampaignSpec",
    "Document",
    "Form",
    "GuardrailSpec",
    "MeasureSection",
    "MetricSpec",
    "Objective",
    "OptimizerSection",
    "PluginSection",
    "Schedule",
    "TrafficSpec",
    "changes",
    "from_mapping",
    "json_schema",
    "load",
    "parse",
]
