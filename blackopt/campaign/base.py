"""What the sections of a campaign are built from: strict models, and how names are spelled."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a kind of name is spelled, as a pattern and in words."""

    pattern: str
    rule: str

    def __call__(self, name: str) -> str:
        """The name.

        Raises:
            PydanticCustomError: it is spelled otherwise.
        """
        if re.fullmatch(self.pattern, name) is None:
            raise PydanticCustomError("spelling", "is not such a name", {"hint": self.rule})
        return name


CAMPAIGN_NAME = Spelling(
    r"[a-z0-9][a-z0-9-]{0,62}", "lower-case letters, digits and dashes, at most 63, such as email-offer"
)
METRIC_NAME = Spelling(
    r"[A-Za-z][A-Za-z0-9_.-]{0,62}", "a letter, then letters, digits, _ . -, at most 63 in all"
)
UNIT_NAME = Spelling(r"[A-Za-z][A-Za-z0-9_-]{0,62}", "a letter, then letters, digits, _ -, at most 63 in all")


def _pattern(spelling: Spelling) -> Any:
    return Field(json_schema_extra={"pattern": f"^{spelling.pattern}$"})


CampaignName = Annotated[str, AfterValidator(CAMPAIGN_NAME), _pattern(CAMPAIGN_NAME)]
MetricName = Annotated[str, AfterValidator(METRIC_NAME), _pattern(METRIC_NAME)]
UnitName = Annotated[str, AfterValidator(UNIT_NAME), _pattern(UNIT_NAME)]


def derived(schema: dict[str, Any]) -> None:
    """The field's default depends on other keys, so the JSON Schema names none."""
    schema.pop("default", None)


class Section(BaseModel):
    """Base of the core's sections: unknown keys are errors, nothing is coerced, nothing changes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )
