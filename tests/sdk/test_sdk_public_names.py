"""The public face: what `import blackopt` gives, that it costs nothing, and that the README's code runs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import blackopt

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)

# What a fragment of the README takes for granted.
PRELUDE = {
    "from blackopt.serving import Arms": """
from pathlib import Path
from blackopt.types import Artifact
artifact, secret, customer_id = Artifact(b'{"price": 2.0}'), "hush", "c-1"
state_file = Path("arms.state")
method, path, headers, raw_body = "GET", "/blackopt/live", {}, b""
""",
    "from blackopt.serving import Sampler": """
from pathlib import Path
import numpy as np
class Ranker:
    def __init__(self, tensors):
        self.tensors = tensors
    def act(self, features):
        return self.tensors["weights"] @ features
Path("arms").mkdir(exist_ok=True)
weights, user_id, features = {"weights": np.zeros((3, 2), np.float32)}, "user 17", np.ones(2)
""",
}


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_public_names_are_sorted_and_importable() -> None:
    assert blackopt.__all__ == sorted(blackopt.__all__)
    assert set(blackopt.__all__) == {
        "BlackoptError", "Campaign", "Ledger", "Notice", "Optimizer", "Results", "Space", "__version__",
    }  # fmt: skip
    assert dir(blackopt) == blackopt.__all__
    for name in blackopt.__all__:
        assert getattr(blackopt, name) is not None


def test_star_import_gives_exactly_the_public_names(tmp_path: Path) -> None:
    code = "from blackopt import *\nprint(sorted(n for n in globals() if not n.startswith('__')))"
    names = [name for name in blackopt.__all__ if not name.startswith("__")]
    assert python(code, tmp_path).stdout.strip() == str(names)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Study'"):
        blackopt.Study  # noqa: B018


def test_importing_the_package_imports_nothing_else(tmp_path: Path) -> None:
    heavy = "{'numpy', 'pydantic', 'sqlite3', 'blackopt.sdk'}"
    code = f"import sys, blackopt\nprint(sorted({heavy} & set(sys.modules)))"
    assert python(code, tmp_path).stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in blackopt.__all__ if name != "__version__"])
def test_every_public_name_and_method_is_documented(name: str) -> None:
    thing = getattr(blackopt, name)
    assert inspect.getdoc(thing)
    for attribute, member in vars(thing).items():
        if not attribute.startswith("_") and (callable(member) or isinstance(member, property | classmethod)):
            assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"


def test_the_readme_has_python() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_the_readmes_python_runs_as_it_stands(block: str, tmp_path: Path) -> None:
    prelude = "".join(text for marker, text in PRELUDE.items() if marker in block)
    first = python(prelude + block, tmp_path)
    assert first.returncode == 0, first.stderr
    again = python(prelude + block, tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
