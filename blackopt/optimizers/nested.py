"""Options within options: an optimizer that leads others has their options among its own, each judged by the
model of the optimizer that it belongs to, with the path that it was written at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from blackopt import plugins
from blackopt.diagnostics import suggest
from blackopt.errors import ConfigurationError
from blackopt.protocols import Optimizer, OptimizerOptions


def nested_options(
    use: str, written: Mapping[str, Any], *, as_json: bool
) -> tuple[type[Optimizer], OptimizerOptions]:
    """The optimizer that ``use`` names, and its options.

    Args:
        use: name of an optimizer.
        written: its options.
        as_json: they come from JSON, and are judged strictly, as those of a campaign are.

    Raises:
        ValidationError: there is no such optimizer, or it has no such options; raised within a validator, it
            becomes part of the outer model's, each problem at its place.
    """
    try:
        cls = cast("type[Optimizer]", plugins.find("optimizers", use))
    except ConfigurationError as error:
        says = f"{error.what}: {error.why}" if error.why else error.what
        raise at_key("use", use, says, error.next_step) from error
    try:
        if as_json:
            return cls, cls.Options.model_validate_json(json.dumps(written), strict=True)
        return cls, cls.Options.model_validate(dict(written))
    except ValidationError as error:
        raise _translated(error, cls.Options) from error


def at_key(key: str, value: object, says: str, hint: str, *, kind: str = "nested") -> ValidationError:
    """A problem of one key of the model whose validator raises it, and of the value there."""
    problem = PydanticCustomError(cast("Any", kind), "{says}", {"says": says, "hint": hint})
    return ValidationError.from_exception_data(
        "options", [InitErrorDetails(type=problem, loc=(key,), input=value)]
    )


def _translated(error: ValidationError, model: type[OptimizerOptions]) -> ValidationError:
    """The same problems, in a form that may be raised within another model's validator: an unknown key is
    compared with the nested model's own, which nobody outside knows."""
    problems = []
    for detail in error.errors(include_url=False):
        kind, says, hint = detail["type"], detail["msg"], str(detail.get("ctx", {}).get("hint", ""))
        if kind == "extra_forbidden":
            known = sorted(model.model_fields)
            kind, says = "unknown_key", "unknown key"
            hint = suggest(str(detail["loc"][-1]), known) or f"known are {', '.join(known)}"
        problem = PydanticCustomError(cast("Any", kind), "{says}", {"says": says, "hint": hint})
        problems.append(InitErrorDetails(type=problem, loc=detail["loc"], input=detail["input"]))
    return ValidationError.from_exception_data(error.title, problems)
