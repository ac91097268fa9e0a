"""The process evaluator with real commands."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from blackopt.errors import ConfigurationError, UsageError
from blackopt.testing.evaluators import QUERY, EvaluatorConformance, an_order, collect
from blackopt.types import Artifact, NoReading, Reading
from blackopt_connectors.process import ProcessEvaluator, ProcessOptions

PYTHON = [sys.executable, "-S", "-E", "-c"]

SQUARE = """
import json, sys
order = json.load(sys.stdin)
x = order["params"]["x"]
if x == 13:
    sys.exit("an unlucky number")
print(json.dumps({"value": x * x}))
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    running: list[ProcessEvaluator] = []

    def start_one(*command: str, **options: Any) -> ProcessEvaluator:
        fields = {"command": command, "workers": 2, **options}
        running.append(ProcessEvaluator(ProcessOptions.model_validate(fields), base=tmp_path))
        return running[-1]

    yield start_one
    for one in running:
        one.close()


class TestConformance(EvaluatorConformance):
    @pytest.fixture
    def evaluator(self, tmp_path: Path) -> ProcessEvaluator:
        return ProcessEvaluator(ProcessOptions(command=(*PYTHON, SQUARE), workers=2), base=tmp_path)


def cause_of(evaluator: ProcessEvaluator) -> str:
    evaluator.push(an_order(1, 1.0))
    (item,) = collect(evaluator, 1)
    assert isinstance(item, NoReading), item
    return item.cause


def test_the_command_reads_the_order_and_stands_beside_the_campaign(start: Any, tmp_path: Path) -> None:
    start("sh", "-c", "cat > order.json; echo '{\"value\": 1}'").push(an_order(7, 0.5))
    evaluator = start("sh", "-c", 'cat > order.json; echo \'{"value": 1, "se": 0.5}\'')
    evaluator.push(an_order(7, 0.5))
    (item,) = collect(evaluator, 1)
    assert isinstance(item, Reading)
    assert item.stats == {"value": 1.0, "se": 0.5}
    assert (tmp_path / "order.json").read_text() == '{"trial": 7, "arm": "t7", "params": {"x": 0.5}}'


def test_several_metrics(start: Any) -> None:
    evaluator = start("echo", '{"metrics": {"loss": 1, "cost": [2, 0.5]}}')
    evaluator.push(an_order(1, 1.0))
    items = collect(evaluator, 2, replace(QUERY, metrics=("loss", "cost")))
    found = {item.metric: item.stats for item in items if isinstance(item, Reading)}
    assert found == {"loss": {"value": 1.0}, "cost": {"value": 2.0, "se": 0.5}}


def test_f48_nan_is_passed_on(start: Any) -> None:
    evaluator = start("echo", '{"value": NaN}')
    evaluator.push(an_order(1, 1.0))
    (item,) = collect(evaluator, 1)
    assert isinstance(item, Reading)
    assert math.isnan(item.stats["value"])


def test_no_shell_sees_the_command(start: Any, tmp_path: Path) -> None:
    assert "not JSON" in cause_of(start("echo", "$(touch evil)", ";", "touch", "evil"))
    assert not (tmp_path / "evil").exists()


def test_an_exit_status_is_named_with_the_end_of_stderr(start: Any) -> None:
    long = "x" * 100_000
    cause = cause_of(
        start(*PYTHON, f"import sys; sys.stderr.write('{long[:50_000]}\\x1b[31m\\nthe end'); sys.exit(3)")
    )
    assert cause.startswith("exit status 3; stderr: ")
    assert cause.endswith("[31m the end")
    assert len(cause) < 600
    assert "\x1b" not in cause


def test_a_signal_is_named(start: Any) -> None:
    assert cause_of(start("sh", "-c", "kill -9 $$")) == "killed by signal 9"


@pytest.mark.parametrize("output", ["", "done", '{"value": 1', '{"value": 1}{"value": 2}', "[" * 100_000])
def test_f36_garbage_is_named(start: Any, tmp_path: Path, output: str) -> None:
    (tmp_path / "output").write_text(output)
    assert "not JSON" in cause_of(start("cat", "output"))


@pytest.mark.parametrize(
    "output", ['{"value": "1"}', '{"value": true}', '{"loss2": 1}', "null", '{"metrics": {}}']
)
def test_an_unusable_result_is_named(start: Any, output: str) -> None:
    assert cause_of(start("echo", output)).startswith("unusable result: ")


def test_f35_endless_output_is_cut(start: Any) -> None:
    assert "more than 1048576 bytes" in cause_of(start("cat", "/dev/zero"))


def test_a_command_that_does_not_read_its_input_is_fine(start: Any) -> None:
    evaluator = start("echo", '{"value": 1}')
    big = Artifact(b'{"x": "' + b"x" * 1_000_000 + b'"}')
    evaluator.push(replace(an_order(1, 1.0), artifact=big))
    (item,) = collect(evaluator, 1)
    assert isinstance(item, Reading)


def children_named(path: Path) -> list[int]:
    return [int(text) for text in path.read_text().split()] if path.exists() else []


FAMILY = "sleep 600 & echo $! $$ > pids.new; mv pids.new pids; wait"


def test_a_timeout_kills_the_whole_family(start: Any, tmp_path: Path) -> None:
    assert cause_of(start("sh", "-c", FAMILY, timeout="150ms")) == "no result within 0.15 s"
    pids = children_named(tmp_path / "pids")
    assert len(pids) == 2
    assert all(ends(pid) for pid in pids)


def test_closing_kills_the_whole_family(start: Any, tmp_path: Path) -> None:
    evaluator = start("sh", "-c", FAMILY)
    evaluator.push(an_order(1, 1.0))
    while not children_named(tmp_path / "pids"):
        list(evaluator.read(QUERY))
    evaluator.close()
    assert all(ends(pid) for pid in children_named(tmp_path / "pids"))
    with pytest.raises(UsageError, match="closed"):
        evaluator.push(an_order(2, 1.0))


def test_a_grandchild_that_keeps_the_pipe_does_not_hold_the_result_up(start: Any, tmp_path: Path) -> None:
    evaluator = start("sh", "-c", "sleep 600 & echo '{\"value\": 4}'")
    evaluator.push(an_order(1, 1.0))
    (item,) = collect(evaluator, 1)
    assert isinstance(item, Reading)
    assert item.stats == {"value": 4.0}


def ends(pid: int) -> bool:
    """Whether it dies within ten seconds; a killed orphan may stay a zombie until init waits for it."""
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("program", ["no-such-program-of-test", "./missing.sh", "sub/missing"])
def test_a_missing_program_is_a_configuration_error(start: Any, program: str) -> None:
    evaluator = start(program)
    with pytest.raises(ConfigurationError, match="cannot be started") as caught:
        evaluator.check()
    assert caught.value.where == f"command: {program}"
    evaluator.push(an_order(1, 1.0))
    with pytest.raises(ConfigurationError):
        collect(evaluator, 1)


def test_a_program_beside_the_campaign(start: Any, tmp_path: Path) -> None:
    (tmp_path / "own.sh").write_text("#!/bin/sh\necho '{\"value\": 2}'\n")
    (tmp_path / "own.sh").chmod(0o755)
    evaluator = start("./own.sh")
    assert evaluator.check() == "./own.sh: 2 at once"
    evaluator.push(an_order(1, 1.0))
    (item,) = collect(evaluator, 1)
    assert isinstance(item, Reading)


def test_a_command_is_a_list() -> None:
    for command in ("echo hi", (), 3):
        with pytest.raises(ValidationError):
            ProcessOptions.model_validate({"command": command})
