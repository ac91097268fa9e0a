"""The Python evaluator, in this process and in real worker processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from blackopt.errors import ConfigurationError, UsageError
from blackopt.testing.evaluators import QUERY, EvaluatorConformance, an_order, collect
from blackopt.types import Artifact, NoReading, Push, Reading
from blackopt_connectors.python import PythonEvaluator, PythonOptions

OBJECTIVE = """
import json
import os
import signal
import sys
import threading
from pathlib import Path

HERE = Path(__file__).parent


def square(params):
    print("noise on stdout")
    if params["x"] == 13:
        raise RuntimeError("an unlucky number")
    return params["x"] ** 2


def dies(params):
    with open(HERE / "starts", "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(params):
    if not (HERE / "died").exists():
        (HERE / "died").touch()
        sys.stderr.write("out of luck")
        sys.stderr.flush()
        os._exit(7)
    return 1.0


def hangs(params):
    (HERE / f"pid-{os.getpid()}").touch()
    threading.Event().wait()


def result(params):
    return eval(params["result"])


not_a_function = 3
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "objective_of_test.py").write_text(OBJECTIVE)
    return tmp_path


@pytest.fixture
def start(base: Path) -> Iterator[Any]:
    running: list[PythonEvaluator] = []

    def start_one(name: str, **options: Any) -> PythonEvaluator:
        fields = {"call": f"objective_of_test:{name}", "workers": 1, **options}
        running.append(PythonEvaluator(PythonOptions.model_validate(fields), base=base))
        return running[-1]

    yield start_one
    for one in running:
        one.close()


def square(params: dict[str, float]) -> float:
    if params["x"] == 13:
        raise RuntimeError("an unlucky number")
    return params["x"] ** 2


class TestWorkers(EvaluatorConformance):
    @pytest.fixture
    def evaluator(self, base: Path) -> PythonEvaluator:
        return PythonEvaluator(PythonOptions(call="objective_of_test:square", workers=2), base=base)


class TestInThisProcess(EvaluatorConformance):
    @pytest.fixture
    def evaluator(self) -> PythonEvaluator:
        return PythonEvaluator.from_callable(square)


def give(evaluator: PythonEvaluator, expression: str) -> None:
    artifact = Artifact(f'{{"result": "{expression}"}}'.encode())
    evaluator.push(Push("k", "conformance", 1, "t1", 1, 0.0, artifact))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1.5", {"loss": {"value": 1.5}}),
        ("(1.5, 0.5)", {"loss": {"value": 1.5, "se": 0.5}}),
        ("dict(value=1, se=0.5)", {"loss": {"value": 1.0, "se": 0.5}}),
        ("dict(value=1, se=None)", {"loss": {"value": 1.0}}),
        ("dict(loss=1, cost=(2, 0.1), other=9)", {"loss": {"value": 1.0}, "cost": {"value": 2.0, "se": 0.1}}),
        ("__import__('numpy').float32(0.5)", {"loss": {"value": 0.5}}),
        ("__import__('numpy').array(2)", {"loss": {"value": 2.0}}),
        ("10**400", {"loss": {"value": math.inf}}),
    ],
)
@pytest.mark.parametrize("inline", [True, False])
def test_what_a_function_may_return(
    start: Any, expression: str, expected: dict[str, Any], inline: bool
) -> None:
    evaluator = PythonEvaluator.from_callable(lambda p: eval(p["result"])) if inline else start("result")
    give(evaluator, expression)
    items = collect(evaluator, len(expected), replace(QUERY, metrics=("loss", "cost")))
    assert {item.metric: dict(item.stats) for item in items if isinstance(item, Reading)} == expected


@pytest.mark.parametrize("expression", ["float('nan')", "dict(value=float('nan'))"])
def test_f48_nan_is_passed_on(start: Any, expression: str) -> None:
    evaluator = start("result")
    give(evaluator, expression)
    (item,) = collect(evaluator, 1)
    assert isinstance(item, Reading)
    assert math.isnan(item.stats["value"])


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("None", "NoneType"),
        ("True", "bool"),
        ("'text'", "str"),
        ("(1, 2, 3)", "3 numbers"),
        ("dict(cost=1)", "no metric loss; it has cost"),
        ("dict(loss=dict(mean=1))", "expected value"),
        ("{}", "no metric loss; it has nothing"),
        ("object()", "unusable"),
        ("1j", "unusable"),
    ],
)
def test_an_unusable_result_is_named(start: Any, expression: str, said: str) -> None:
    evaluator = start("result")
    give(evaluator, expression)
    (item,) = collect(evaluator, 1)
    assert isinstance(item, NoReading)
    assert said in item.cause


def test_a_cause_has_type_message_and_place(start: Any) -> None:
    evaluator = start("square")
    evaluator.push(an_order(1, 13))
    (item,) = collect(evaluator, 1)
    assert isinstance(item, NoReading)
    assert item.cause.startswith("RuntimeError: an unlucky number (objective_of_test.py:")


def test_f07_a_killed_worker_costs_its_evaluation_and_no_other(start: Any, base: Path) -> None:
    evaluator = start("dies")
    for trial in (1, 2):
        evaluator.push(an_order(trial, 1.0))
    items = collect(evaluator, 2)
    assert all(isinstance(item, NoReading) and "signal 9" in item.cause for item in items)
    assert (base / "starts").read_text() == "xxxx"


def test_an_evaluation_whose_worker_died_is_run_once_more(start: Any) -> None:
    evaluator = start("dies_once")
    evaluator.push(an_order(1, 1.0))
    (item,) = collect(evaluator, 1)
    assert isinstance(item, Reading)
    assert item.stats == {"value": 1.0}


def test_a_timeout_ends_the_worker_and_the_next_one_works(start: Any, base: Path) -> None:
    evaluator = start("hangs", timeout="100ms")
    evaluator.push(an_order(1, 1.0))
    (item,) = collect(evaluator, 1)
    assert isinstance(item, NoReading)
    assert item.cause == "no result within 0.1 s"
    (mark,) = base.glob("pid-*")
    assert not psutil.pid_exists(int(mark.name.removeprefix("pid-")))


def test_closing_ends_what_runs(start: Any, base: Path) -> None:
    evaluator = start("hangs")
    evaluator.push(an_order(1, 1.0))
    while not list(base.glob("pid-*")):
        list(evaluator.read(QUERY))
    evaluator.close()
    (mark,) = base.glob("pid-*")
    assert not psutil.pid_exists(int(mark.name.removeprefix("pid-")))
    with pytest.raises(UsageError, match="closed"):
        evaluator.push(an_order(2, 1.0))


def test_nothing_outlives_a_killed_parent(base: Path) -> None:
    """SIGKILL leaves no chance to clean up: the worker notices by itself."""
    script = textwrap.dedent(
        """
        import sys, pathlib
        from blackopt.testing.evaluators import an_order, collect
        from blackopt_connectors.python import PythonEvaluator, PythonOptions
        options = PythonOptions(call="objective_of_test:hangs", workers=1)
        evaluator = PythonEvaluator(options, base=pathlib.Path(sys.argv[1]))
        evaluator.push(an_order(1, 1.0))
        collect(evaluator, 1)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(base)])
    try:
        while not (marks := list(base.glob("pid-*"))):
            assert parent.poll() is None
        worker = psutil.Process(int(marks[0].name.removeprefix("pid-")))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    worker.wait(timeout=30)


@pytest.mark.parametrize("name", ["missing", "not_a_function"])
def test_a_function_that_cannot_be_used_is_a_configuration_error(start: Any, name: str) -> None:
    evaluator = start(name)
    with pytest.raises(ConfigurationError, match=f"objective_of_test:{name} cannot be used"):
        evaluator.check()
    evaluator.push(an_order(1, 1.0))
    with pytest.raises(ConfigurationError):
        collect(evaluator, 1)


def test_a_module_that_exits_while_it_is_imported_is_named(base: Path) -> None:
    (base / "quits_of_test.py").write_text("import os; os._exit(3)\n")
    evaluator = PythonEvaluator(PythonOptions(call="quits_of_test:f", workers=1), base=base)
    with pytest.raises(ConfigurationError) as caught:
        evaluator.check()
    assert "exit status 3" in caught.value.why
    evaluator.close()


@pytest.mark.parametrize("call", ["", "module", "a:b:c", "a b:c", ":f", "a:", "os;x:f"])
def test_a_call_is_a_dotted_path(call: str) -> None:
    with pytest.raises(ValidationError):
        PythonOptions(call=call)


def test_a_dotted_call_without_colon_works(base: Path) -> None:
    evaluator = PythonEvaluator(PythonOptions(call="objective_of_test.square", workers=1), base=base)
    assert evaluator.check() == "objective_of_test.square: 1 workers"
    evaluator.close()


def test_f11_workers_hold_no_descriptor_of_this_process(start: Any, base: Path) -> None:
    """A forked copy would hold the ledger open, and its locks."""
    with (base / "ledger.db").open("w") as ledger:
        os.set_inheritable(ledger.fileno(), True)
        evaluator = start("hangs")
        evaluator.push(an_order(1, 1.0))
        while not (marks := list(base.glob("pid-*"))):
            list(evaluator.read(QUERY))
        worker = psutil.Process(int(marks[0].name.removeprefix("pid-")))
        assert str(base / "ledger.db") not in [file.path for file in worker.open_files()]


def test_a_function_for_workers_must_be_importable() -> None:
    with pytest.raises(UsageError, match="import"):
        PythonEvaluator.from_callable(lambda params: 1.0, workers=2)


SCRIPT = """
from blackopt.testing.evaluators import an_order, collect
from blackopt_connectors.python import PythonEvaluator

def double(params):
    return 2 * params["x"]

def run():
    evaluator = PythonEvaluator.from_callable(double, workers=2)
    evaluator.push(an_order(1, 4.0))
    (item,) = collect(evaluator, 1)
    evaluator.close()
    print(item)

"""


def test_a_function_of_a_script_runs_in_workers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT + 'if __name__ == "__main__":\n    run()\n')
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "'value': 8.0" in done.stdout


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT + "run()\n")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "__main__" in done.stderr
