"""AWS as a newcomer sees it, on an emulator: `make demo-aws`.

Deploys, counts the words of a novel on functions, looks, and removes everything again. The emulator
listens on this machine only and has an environment of its own; no account is needed, nothing is
left.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import lambdamr
from tests.emulator import REPOSITORY, Ministack, running

NOVEL = REPOSITORY / "examples" / "data" / "pride_and_prejudice.txt"
PLACES = "4"
"""Functions at a time: each is two processes of this machine."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="lambdamr-demo-") as name:
        folder = Path(name)
        print("An emulator of AWS starts on this machine; on AWS itself this line falls away.\n")
        with running(folder) as emulator:
            return _show(emulator, folder)


def _show(emulator: Ministack, folder: Path) -> int:
    ours = {
        "XDG_CONFIG_HOME": str(folder / "config"),
        "LAMBDAMR_WORKERS": PLACES,
        "PYTHONUNBUFFERED": "1",
    }
    # This process uploads the novel, as a client of the emulator too.
    os.environ.update({**emulator.environment(), **ours})
    _run("lambdamr", "deploy-runtime", "--yes")
    with lambdamr.Executor() as executor:
        novel = executor.upload(NOVEL)
    _run("python", str(REPOSITORY / "examples" / "word_count.py"), novel)
    _run("lambdamr", "status")
    _run("lambdamr", "undeploy", "--delete-data", "--yes")
    left = emulator.client("s3").list_buckets()["Buckets"]
    functions = emulator.client("lambda").list_functions()["Functions"]
    print(f"Left in the account: {len(left)} buckets, {len(functions)} functions.")
    return 0 if not (left or functions) else 1


def _run(program: str, *arguments: str) -> None:
    """Run a command line as the user types it, in this Python's environment."""
    print(f"$ {shlex.join((program, *arguments))}", flush=True)
    path = sys.executable if program == "python" else str(Path(sys.executable).parent / program)
    subprocess.run([path, *arguments], check=True)
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
