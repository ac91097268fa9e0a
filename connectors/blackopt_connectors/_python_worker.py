"""Child of the Python evaluator: loads one function, then answers one JSON line with one JSON line.

It imports nothing of blackopt, so that its start costs what the function's own imports cost. What the
function prints goes to stderr. When the parent is gone, however it went, stdin ends and so does this
process, also inside a call.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import reduce
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import IO, Any

LOADING = "BLACKOPT_WORKER_LOADING"
"""Set while the caller's script is loaded, so that a script without a main guard is recognised."""


def load(call: str, main: str | None) -> Callable[[Any], object]:
    """The function that ``module:name`` (or ``module.name``) means; ``main`` is the script that ``__main__``
    was.
    """
    module, colon, name = call.partition(":")
    if not colon:
        module, _, name = call.rpartition(".")
    if main is not None:
        import runpy

        os.environ[LOADING] = "1"
        found: Any = runpy.run_path(main, run_name="__blackopt_worker__")
        del os.environ[LOADING]
        first, *rest = name.split(".")
        function = reduce(getattr, rest, found[first])
    else:
        function = reduce(getattr, name.split("."), import_module(module))
    if not callable(function):
        raise TypeError(f"{call} is {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def describe(error: BaseException) -> str:
    """Type, message and place of an error, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}{place}"


def plain(value: object) -> object:
    """A result as JSON knows it: numbers of any library become floats, pairs lists, mappings objects."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Real):
        try:
            return float(value)
        except OverflowError:
            return float("-inf") if value < 0 else float("inf")
    return {"unusable": type(value).__name__}


def evaluate(function: Callable[[Any], object], params: Any) -> dict[str, object]:
    """``{"result": ...}``, or ``{"error": ...}`` where the function raised."""
    try:
        return {"result": plain(function(params))}
    except Exception as error:  # noqa: BLE001  # what a user's function raises is its answer
        return {"error": describe(error)}


def _listen(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


def _answer(answers: IO[bytes], answer: dict[str, object]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the function prints must not be read as an answer
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    setup = requests.get()
    sys.path[:] = setup["path"]
    try:
        function = load(setup["call"], setup["main"])
    except (Exception, SystemExit) as error:  # noqa: BLE001  # an import may raise anything
        _answer(answers, {"error": describe(error)})
        return
    _answer(answers, {"result": None})
    while True:
        _answer(answers, evaluate(function, requests.get()["params"]))


if __name__ == "__main__":
    main()
