"""Plug-ins by entry point: found by name, imported one at a time, checked before they are used.

First-party plug-ins come the same way as a third party's: a distribution declares

    [project.entry-points."blackopt.connectors"]
    http = "blackopt_connectors.http:HttpTarget"

and nothing of it is imported until a campaign says ``use: http``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from blackopt.errors import ConfigurationError
from blackopt.protocols import (
    Clock,
    Evaluator,
    Optimizer,
    OptimizerOptions,
    PluginOptions,
    Policy,
    Source,
    Target,
)

GROUPS: dict[str, tuple[type, ...]] = {
    "clocks": (Clock,),
    "connectors": (Target, Source, Evaluator),
    "optimizers": (Optimizer,),
    "policies": (Policy,),
}
"""Each group and the contracts of :mod:`blackopt.protocols` that its classes may meet."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What is known of a plug-in without importing it."""

    group: str
    name: str
    distribution: str
    version: str
    module: str
    attribute: str


def names(group: str) -> list[str]:
    """Sorted names of the installed plug-ins of a group (``optimizers``, ``policies``, ``connectors``,
    ``clocks``).

    Raises:
        ConfigurationError: no such group.
    """
    return sorted({entry.name for entry in _entries(group)})


def describe() -> list[PluginInfo]:
    """Every installed plug-in, sorted by group and name; imports none."""
    found = {_info(group, entry) for group in GROUPS for entry in _entries(group)}
    return sorted(found, key=lambda info: (info.group, info.name, info.distribution))


def find(group: str, name: str, *, role: type | None = None) -> type[Any]:
    """Import the class of one plug-in, and no other.

    Args:
        group: ``optimizers``, ``policies``, ``connectors`` or ``clocks``.
        name: as in ``use:``.
        role: the contract that it must meet (:class:`~blackopt.protocols.Target`, for example); any contract
            of the group where it is None.

    Raises:
        ConfigurationError: unknown, installed twice, cannot be imported, or does not meet the contract.
    """
    entry = _entry(group, name)
    plugin = _load(group, entry)
    roles = (role,) if role is not None else GROUPS[group]
    lacks = {contract.__name__: missing_members(plugin, contract) for contract in roles}
    if all(lacks.values()):
        contract, missing = min(lacks.items(), key=lambda item: len(item[1]))
        raise ConfigurationError(
            f"the {_singular(group)} `{name}` is not {_article(contract)} {contract}",
            where=entry.value,
            why=f"it has no {', '.join(missing)}",
            next_step=_others(group, role, name),
        )
    return plugin


def missing_members(plugin: object, contract: type) -> list[str]:
    """What a class lacks of a contract: methods, and class attributes such as ``Options`` of the right kind.

    Attributes that only an instance has (``space``, ``slots``) cannot be seen here.
    """
    if not isinstance(plugin, type):
        return ["class: the entry point names something else"]
    missing = []
    for member, value in vars(contract).items():
        method = callable(value) or isinstance(value, classmethod)
        if method and not member.startswith("_") and not callable(getattr(plugin, member, None)):
            missing.append(f"{member}()")
    for member, annotation in contract.__annotations__.items():
        # The contracts postpone annotations, so they are text here.
        if str(annotation).startswith("ClassVar[") and not _has_class_attribute(plugin, member, contract):
            missing.append(member)
    return missing


def _has_class_attribute(plugin: type, member: str, contract: type) -> bool:
    value = getattr(plugin, member, None)
    if not member.endswith("Options"):
        return isinstance(value, str)
    wanted = OptimizerOptions if contract is Optimizer else PluginOptions
    return isinstance(value, type) and issubclass(value, wanted)


def _entries(group: str) -> Iterable[EntryPoint]:
    if group not in GROUPS:
        raise ConfigurationError(
            f"no group of plug-ins is called `{group}`", next_step=f"one of {', '.join(GROUPS)}"
        )
    return entry_points(group=f"blackopt.{group}")


def _entry(group: str, name: str) -> EntryPoint:
    # The same distribution may be on sys.path twice; only different classes are a conflict.
    found = {entry.value: entry for entry in _entries(group) if entry.name == name}
    if not found:
        known = names(group)
        close = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1)
        raise ConfigurationError(
            f"no {_singular(group)} is called `{name}`",
            why=f"installed are {', '.join(known)}" if known else "none is installed",
            next_step=f"did you mean `{close[0]}`?" if close else "install the package that brings it",
        )
    if len(found) > 1:
        raise ConfigurationError(
            f"several packages bring a {_singular(group)} called `{name}`",
            where=", ".join(sorted(f"{_info(group, e).distribution}: {value}" for value, e in found.items())),
            next_step="uninstall all but one of them",
        )
    return next(iter(found.values()))


def _load(group: str, entry: EntryPoint) -> type[Any]:
    title = f"the {_singular(group)} `{entry.name}`"
    try:
        return entry.load()  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        absent = error.name or str(error)
        if absent == entry.module or entry.module.startswith(f"{absent}."):
            raise _broken(title, group, entry, f"there is no module {absent}") from error
        raise ConfigurationError(
            f"{title} needs `{absent}`, which is not installed",
            where=entry.value,
            next_step=_remedy(entry, absent),
        ) from error
    except AttributeError as error:
        raise _broken(title, group, entry, str(error)) from error
    except Exception as error:  # foreign code may raise anything while it is imported
        raise _broken(title, group, entry, f"{type(error).__name__}: {error}") from error


def _broken(title: str, group: str, entry: EntryPoint, why: str) -> ConfigurationError:
    info = _info(group, entry)
    return ConfigurationError(
        f"{title} cannot be imported",
        where=entry.value,
        why=why,
        next_step=f"reinstall or update {info.distribution or 'the package that brings it'}",
    )


def _remedy(entry: EntryPoint, module: str) -> str:
    """What to install: the extra of the plug-in's own distribution that brings the module, if one does."""
    top = module.split(".", maxsplit=1)[0]
    for requirement in (entry.dist.requires or []) if entry.dist else []:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if name and extra and entry.dist and _normal(name.group()) == _normal(top):
            return f"pip install '{entry.dist.name}[{extra.group(1)}]'"
    return f"install the package that provides the module `{top}`"


def _info(group: str, entry: EntryPoint) -> PluginInfo:
    name, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
    return PluginInfo(group, entry.name, name, version, entry.module, entry.attr)


def _others(group: str, role: type | None, name: str) -> str:
    others = ", ".join(other for other in names(group) if other != name)
    needed = f" that is {_article(role.__name__)} {role.__name__}" if role is not None else ""
    return f"use another {_singular(group)}{needed}" + (f" (installed are {others})" if others else "")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _singular(group: str) -> str:
    return {"policies": "policy"}.get(group, group.removesuffix("s"))


def _article(word: str) -> str:
    return "an" if word[:1] in "AEIOU" else "a"
