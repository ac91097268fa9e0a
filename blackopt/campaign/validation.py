"""From pydantic's errors to located problems, without ever quoting a value that was interpolated."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from blackopt.campaign.findings import Findings
from blackopt.diagnostics import KeyPath, suggest

M = TypeVar("M", bound=BaseModel)

FROM_VALIDATORS = ("value_error", "assertion_error")


def validate(
    model: type[M],
    data: Any,
    path: KeyPath,
    findings: Findings,
    *,
    foreign: bool = False,
    beside: Collection[str] = (),
) -> M | None:
    """Validate JSON-like data strictly; None if it is wrong, with every problem recorded.

    Strict means that nothing is coerced: ``"16"`` is no integer and ``yes`` no boolean, while text still
    becomes a path, an enum or a secret, and a list a tuple.

    Args:
        foreign: the model is a plug-in's: what it says and what it raises is not ours, and may quote a
            secret.
        beside: keys that the model's own stand beside, to be suggested for an unknown one.
    """
    try:
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    except Exception as error:  # a plug-in's validator may raise anything
        if not foreign:
            raise
        findings.add(
            path, findings.redact(f"the plug-in failed on its options: {type(error).__name__}: {error}")
        )
        return None
    for detail in details:
        if detail["type"] == "extra_forbidden":
            _report_unknown(model, data, detail["loc"], path, findings, beside)
        else:
            _report(data, detail, path, findings, foreign=foreign)
    return None


def secret_paths(model: type[BaseModel], data: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Each text in the data that the model declares secret."""
    yield from _secrets(model, data, path)


def _secrets(annotation: Any, data: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(data, str):
        if any(kind in (SecretStr, SecretBytes) for kind in _alternatives(annotation)):
            yield path, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            for inner in _inside(annotation, key):
                yield from _secrets(inner, value, (*path, key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            for inner in _inside(annotation, i):
                yield from _secrets(inner, value, (*path, i))


def _report_unknown(
    model: type[BaseModel],
    data: Any,
    loc: tuple[int | str, ...],
    path: KeyPath,
    findings: Findings,
    beside: Collection[str],
) -> None:
    inner = _real_path(loc, data, missing=False)
    known = [name for holder in _annotations_at(model, inner[:-1]) for name in _field_names(holder)]
    if len(inner) == 1:
        known += beside
    findings.add((*path, *inner), "unknown key", suggest(str(inner[-1]), known) or _list_of(known), key=True)


def _report(data: Any, detail: ErrorDetails, path: KeyPath, findings: Findings, *, foreign: bool) -> None:
    inner = _real_path(detail["loc"], data, missing=detail["type"] == "missing")
    own = (*path, *inner)
    general = detail["type"] in FROM_VALIDATORS  # may follow from a value that could not be read
    if findings.holds_broken(own) if general else findings.is_broken(own):
        return
    message, hint = _words(detail, _value_at(data, inner))
    if foreign:
        message, hint = findings.redact(message), findings.redact(hint)
    findings.add(own, message, hint)


def _words(detail: ErrorDetails, value: Any) -> tuple[str, str]:
    kind, context = detail["type"], detail.get("ctx", {})
    hint = str(context.get("hint", ""))
    if kind == "missing":
        return "is required", hint
    if value is None:
        return "is empty", hint or "give it a value, or leave the key out"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should be", "must be").replace("Input should have", "must have")
    message = message.replace("String should", "must").replace("Field required", "is required")
    if kind == "bool_type" and isinstance(value, str) and value.lower() in ("yes", "no", "on", "off"):
        hint = f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        hint = f'quote it: "{json.dumps(value)}"'
    if kind in ("int_type", "float_type") and isinstance(value, str):
        hint = "a number, without quotes or separators"
    return message[:1].lower() + message[1:], hint


def _real_path(loc: tuple[Any, ...], data: Any, *, missing: bool) -> KeyPath:
    """pydantic's location without the names of unions and validators that it puts between the keys."""
    path: list[int | str] = []
    for n, part in enumerate(loc):
        if (isinstance(data, Mapping) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data = data[part]
        elif not (missing and n == len(loc) - 1):
            continue
        path.append(part)
    return tuple(path)


def _value_at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        if isinstance(value, dict) and part not in value:
            return ...  # a key that is missing; None would mean an empty value
        value = value[part]
    return value


# -- walking a model's annotations ---------------------------------------------------------------------


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types of a union, Optional or Annotated."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for argument in get_args(annotation):
            yield from _alternatives(argument)
    else:
        yield annotation


def _inside(annotation: Any, part: int | str) -> Iterator[Any]:
    """Annotations that a key or an index of an annotated value may have."""
    for kind in _alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, info in kind.model_fields.items():
                if part in (name, info.alias, info.validation_alias):
                    yield info.annotation
        elif arguments := get_args(kind):
            yield arguments[-1] if isinstance(part, str) or len(arguments) == 2 else arguments[0]


def _annotations_at(annotation: Any, path: KeyPath) -> list[Any]:
    found = [annotation]
    for part in path:
        found = [inner for outer in found for inner in _inside(outer, part)]
    return [kind for outer in found for kind in _alternatives(outer)]


def _field_names(kind: Any) -> list[str]:
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    return [info.alias or name for name, info in kind.model_fields.items()]


def _list_of(known: list[str]) -> str:
    return f"known are {', '.join(sorted(set(known)))}" if known else "there are no keys here"
