"""Options within options: a plug-in that leads others has their options among its own, each judged by the
model of the plug-in that it belongs to, with the path that it was written at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from blackopt import plugins
from blackopt.diagnostics import suggest
from blackopt.errors import ConfigurationError
from blackopt.protocols import PluginOptions


def nested_options(
    group: str, use: str, written: Mapping[str, Any], *, as_json: bool
) -> tuple[type[Any], PluginOptions]:
    """The plug-in of a group that ``use`` names, and its options.

    Args:
        group: such as ``optimizers``.
        use: name of one.
        written: its options.
        as_json: they come from JSON, and are judged strictly, as those of a campaign are.

    Raises:
        ValidationError: there is no such plug-in, or it has no such options; raised within a validator, it
            becomes part of the outer model's, each problem at its place.
    """
    try:
        cls: type[Any] = plugins.find(group, use)
    except ConfigurationError as error:
        says = f"{error.what}: {error.why}" if error.why else error.what
        raise at_key("use", use, says, error.next_step) from error
    model: type[PluginOptions] = cls.Options
    try:
        if as_json:
            return cls, model.model_validate_json(json.dumps(written), strict=True)
        return cls, model.model_validate(dict(written))
    except ValidationError as error:
        raise _translated(error, model) from error


def at_key(key: str, value: object, says: str, hint: str, *, kind: str = "nested") -> ValidationError:
    """A problem of one key of the model whose validator raises it, and of the value there."""
    problem = PydanticCustomError(cast("Any", kind), "{says}", {"says": says, "hint": hint})
    return ValidationError.from_exception_data(
        "options", [InitErrorDetails(type=problem, loc=(key,), input=value)]
    )


def _translated(error: ValidationError, model: type[PluginOptions]) -> ValidationError:
    """The same problems, in a form that may be raised within another model's validator: an unknown key is
    compared with the nested model's own, which nobody outside knows."""
    problems = []
    for detail in error.errors(include_url=False):
        kind, says = detail["type"], detail["msg"].removeprefix("Value error, ")
        hint = str(detail.get("ctx", {}).get("hint", ""))
        if kind == "extra_forbidden" and len(detail["loc"]) == 1:
            known = sorted(model.model_fields)
            kind, says = "unknown_key", "unknown key"
            hint = suggest(str(detail["loc"][-1]), known) or f"known are {', '.join(known)}"
        problem = PydanticCustomError(cast("Any", kind), "{says}", {"says": says, "hint": hint})
        problems.append(InitErrorDetails(type=problem, loc=detail["loc"], input=detail["input"]))
    return ValidationError.from_exception_data(error.title, problems)
