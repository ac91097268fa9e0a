"""``campaign.yaml``: one declared optimisation, checked as a whole before anything is pushed."""

from blackopt.campaign.document import changes
from blackopt.campaign.loader import from_mapping, load, parse, refused
from blackopt.campaign.published import json_schema
from blackopt.campaign.quiet import Quiet
from blackopt.campaign.schema import Anchor, Budget, Explore, Form, Objective, Schedule, Surrogate
from blackopt.campaign.specs import (
    CampaignSpec,
    Document,
    GuardrailSpec,
    MeasureSection,
    MetricSpec,
    OptimizerSection,
    PluginSection,
    PromotionSpec,
    TrafficSpec,
)

__all__ = [
    "Anchor",
    "Budget",
    "CampaignSpec",
    "Document",
    "Explore",
    "Form",
    "GuardrailSpec",
    "MeasureSection",
    "MetricSpec",
    "Objective",
    "OptimizerSection",
    "PluginSection",
    "PromotionSpec",
    "Quiet",
    "Schedule",
    "Surrogate",
    "TrafficSpec",
    "changes",
    "from_mapping",
    "json_schema",
    "load",
    "parse",
    "refused",
]
