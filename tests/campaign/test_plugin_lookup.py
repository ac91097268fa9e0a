"""Plug-ins by entry point: one at a time, checked, and every way to fail explained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from blackopt import plugins
from blackopt.errors import ConfigurationError
from blackopt.protocols import Evaluator, Source, Target

pytestmark = pytest.mark.usefixtures("throwaway")


def failure_of(group: str, name: str, role: type | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        plugins.find(group, name, role=role)
    return caught.value


def test_names_are_sorted_and_import_nothing() -> None:
    found = plugins.names("connectors")
    assert found == sorted(found)
    assert {"http", "sql", "t-web", "t-bomb"} <= set(found)
    assert "throwaway_plugins" not in sys.modules


def test_describe_imports_nothing() -> None:
    infos = {(info.group, info.name): info for info in plugins.describe()}
    info = infos["connectors", "t-bomb"]
    assert (info.distribution, info.version, info.module, info.attribute) == (
        "throwaway",
        "1.2.3",
        "throwaway_bomb",
        "Bomb",
    )
    assert infos["optimizers", "openai-es"].distribution == "blackopt"
    assert not {"throwaway_bomb", "throwaway_plugins"} & sys.modules.keys()


def test_find_imports_one_plugin_only() -> None:
    code = "import sys; from blackopt import plugins; plugins.find('clocks', 'system'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "blackopt.clock" in loaded
    assert not {name for name in loaded if name.startswith(("blackopt_", "blackopt.optimizers", "requests"))}


@pytest.mark.parametrize(
    ("name", "role"),
    [("t-web", Target), ("t-db", Source), ("t-call", Evaluator), ("t-web", None), ("t-call", None)],
)
def test_a_connector_meets_the_contract_it_is_used_for(name: str, role: type | None) -> None:
    plugin = plugins.find("connectors", name, role=role)
    assert plugin.__module__ == "throwaway_plugins"


def test_every_first_party_plugin_meets_its_contract() -> None:
    first_party = [info for info in plugins.describe() if info.distribution == "blackopt"]
    assert len(first_party) >= 14
    for info in first_party:
        assert plugins.find(info.group, info.name).__name__ == info.attribute


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    error = failure_of("policies", "t_liner")
    assert error.what == "no policy is called `t_liner`"
    assert "linear" in error.why
    assert error.next_step == "did you mean `t-linear`?"
    assert failure_of("policies", "zzzzzz").next_step == "install the package that brings it"
    assert failure_of("samplers", "x").what == "no group of plug-ins is called `samplers`"


@pytest.mark.parametrize(
    ("name", "what", "why", "next_step"),
    [
        ("t-heavy", "the connector `t-heavy` needs `deep_absent`, which is not installed", "",
         "pip install 'throwaway[deep]'"),
        ("t-heavier", "the connector `t-heavier` needs `unknown_absent`, which is not installed", "",
         "install the package that provides the module `unknown_absent`"),
        ("t-gone", "the connector `t-gone` cannot be imported", "there is no module throwaway_gone",
         "reinstall or update throwaway"),
        ("t-nothing", "the connector `t-nothing` cannot be imported", "has no attribute 'Nothing2'",
         "reinstall or update throwaway"),
        ("t-bomb", "the connector `t-bomb` cannot be imported", "RuntimeError: out of order",
         "reinstall or update throwaway"),
        ("t-function", "the connector `t-function` is not a Target",
         "it has no class: the entry point names something else", "use another connector (installed are "),
        ("t-halfway", "the connector `t-halfway` is not a Source", "it has no close(), MetricOptions",
         "use another connector"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_says_why_and_what_to_do(name: str, what: str, why: str, next_step: str) -> None:
    error = failure_of("connectors", name)
    assert error.what == what
    assert why in error.why
    assert error.next_step.startswith(next_step)
    assert error.exit_code == 2


def test_an_evaluator_is_no_target() -> None:
    error = failure_of("connectors", "t-call", Target)
    assert error.what == "the connector `t-call` is not a Target"
    assert error.why == "it has no withdraw(), adopt(), observe(), incumbent()"


def test_a_name_that_two_packages_bring_is_refused(install: Callable[..., None]) -> None:
    metadata = "Metadata-Version: 2.1\nName: other\nVersion: 1\n"
    install("other", metadata, "[blackopt.policies]\nt-linear = elsewhere:Policy\n", {})
    error = failure_of("policies", "t-linear")
    assert error.what == "several packages bring a policy called `t-linear`"
    assert error.where == "other: elsewhere:Policy, throwaway: throwaway_plugins:Policy"


def test_the_same_plugin_twice_on_the_path_is_one(install: Callable[..., None]) -> None:
    metadata = "Metadata-Version: 2.1\nName: again\nVersion: 1\n"
    install("again", metadata, "[blackopt.policies]\nt-linear = throwaway_plugins:Policy\n", {})
    assert plugins.find("policies", "t-linear").__name__ == "Policy"
    assert plugins.names("policies").count("t-linear") == 1


def test_options_of_the_wrong_kind_are_missing(install: Callable[..., None]) -> None:
    source = (
        "from throwaway_plugins import *\nclass Bad(Optimizer):\n    Options = Nothing\n    version = 3\n"
    )
    metadata = "Metadata-Version: 2.1\nName: bad\nVersion: 1\n"
    install("bad", metadata, "[blackopt.optimizers]\nt-bad = throwaway_bad:Bad\n", {"throwaway_bad": source})
    assert failure_of("optimizers", "t-bad").why == "it has no Options, version"
