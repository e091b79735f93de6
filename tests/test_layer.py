"""What a worker needs: the packages of the layer, and at a cold start only two of them."""

import ast
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "runtime" / "lambdamr_runtime"

ON_REQUEST = {"dill"}
"""Imported only where the user names it, who then has to add it."""

PLATFORM = {"boto3", "botocore"}
"""In Lambda's own Python: what a worker launches is signed by it, and parts are joined."""


NEEDED = {"typing_extensions"}
"""Of no use to the runtime itself: what its packages ask for."""


def layer() -> set[str]:
    """Return the packages of the layer; each is imported by its own name."""
    lines = (ROOT / "layer" / "requirements.txt").read_text().splitlines()
    return {line.partition("==")[0] for line in lines if line and not line.startswith("#")}


def imported() -> set[str]:
    """Return the top-level modules that the runtime's source imports, types aside."""
    names: set[str] = set()
    for path in RUNTIME.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"lambdamr_runtime", "_typeshed"}


def test_the_layer_has_what_the_runtime_imports() -> None:
    """The runtime imports the layer's packages, all of them and no others: never the client."""
    assert imported() - ON_REQUEST - PLATFORM == layer() - NEEDED


def test_the_layer_is_pinned() -> None:
    """Two builds of the layer hold the same code."""
    lines = (ROOT / "layer" / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines if line and not line.startswith("#"))


def test_a_cold_start_loads_no_heavy_modules() -> None:
    """What few tasks need, or a dearer way to what is needed: 10 ms of a cold start together."""
    heavy = {"shutil", "tempfile", "random", "socket", "hashlib", "ssl", "urllib.request", "bz2"}
    program = (
        "import sys, json; import lambdamr_runtime.handler\nprint(json.dumps(sorted(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT / "runtime"
    )
    assert not heavy & set(json.loads(run.stdout))


def test_a_cold_start_loads_two_packages() -> None:
    """Importing the handler, where there is no client, loads the standard library, obstore and
    cloudpickle alone.
    """
    program = (
        "import sys, json; sys.modules['lambdamr'] = None; before = set(sys.modules)\n"
        "import lambdamr_runtime.handler\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(run.stdout)) - set(sys.stdlib_module_names)
    assert loaded == {"lambdamr_runtime", "obstore", "cloudpickle"}
