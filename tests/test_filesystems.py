"""Directories that fail: full, read-only. Each in a mount namespace of its own, where the system
lets us make one.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import faults


def can_mount() -> bool:
    """Whether this system lets us mount something in a namespace of our own."""
    try:
        made = subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return False
    return made.returncode == 0


pytestmark = pytest.mark.skipif(not can_mount(), reason="needs unshare -rm and tmpfs")


def run_mounted(mount: str, program: str, **environment: str) -> str:
    """Run a client after a mount command, both in a namespace of their own; returns its output."""
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable,
         textwrap.dedent(program)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(faults.REPO), str(faults.REPO / "runtime"))),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=2 * faults.PATIENCE_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """Results that no longer fit fail their job with the reason of the system; when a job was
    deleted, there is room again.
    """
    program = """
        import lambdamr
        with lambdamr.Executor(workers=1, concurrency=1) as executor:
            fits = executor.map(bytes, [2 << 20] * 2, chunksize=1)
            assert [len(value) for value in fits.result(30)] == [2 << 20] * 2
            futures = executor.map(bytes, [2 << 20] * 8, chunksize=1)
            errors = [error for error in futures.exceptions(30) if error is not None]
            print(type(errors[-1]).__name__, "No space left" in str(errors[-1]))
            futures.delete()
            fits.delete()
            print(len(executor.submit(bytes, 2 << 20).result(30)))
    """
    mount = f"mount -t tmpfs -o size=8m none {tmp_path}"
    out = run_mounted(mount, program, LAMBDAMR_ROOT=str(tmp_path))
    assert out == f"JobFailed True\n{2 << 20}\n"


def test_a_submission_to_a_full_disk_is_named(tmp_path: Path) -> None:
    """Arguments that cannot be stored are StoreError at the call, with the reason of the system."""
    program = """
        import lambdamr
        with lambdamr.Executor(workers=1, concurrency=1) as executor:
            try:
                executor.map(len, [b"x" * (9 << 20)])
            except lambdamr.StoreError as error:
                print("No space left" in str(error))
            print(executor.submit(abs, -1).result(30))
    """
    mount = f"mount -t tmpfs -o size=8m none {tmp_path}"
    assert run_mounted(mount, program, LAMBDAMR_ROOT=str(tmp_path)) == "True\n1\n"


def test_a_full_temporary_folder_is_named(tmp_path: Path) -> None:
    """A worker whose temporary folder is full says so: nothing hangs, and small tasks go on."""
    temporary, root = tmp_path / "tmp", tmp_path / "root"
    temporary.mkdir()
    program = """
        import lambdamr
        with lambdamr.Executor(workers=1, concurrency=1) as executor:
            futures = executor.map(bytes, [10, 4 << 20, 10], chunksize=3)
            errors = {type(error).__name__: str(error) for error in futures.exceptions(30)}
            print(sorted(errors), "No space left" in errors.get("JobFailed", ""))
            print(executor.submit(abs, -1).result(30))
    """
    mount = f"mount -t tmpfs -o size=2m none {temporary}"
    out = run_mounted(mount, program, LAMBDAMR_ROOT=str(root), TMPDIR=str(temporary))
    assert out == "['JobFailed'] True\n1\n"


def test_a_read_only_directory_is_named(tmp_path: Path) -> None:
    """A directory that cannot be written is StoreError at the first call, with the way out; by
    attach() and clean() too.
    """
    program = """
        import lambdamr
        for call in (
            lambda: lambdamr.Executor().submit(abs, -1),
            lambda: lambdamr.attach("20260101-000000-0123456789ab"),
        ):
            try:
                call()
            except lambdamr.StoreError as error:
                print("Read-only file system" in str(error), "root=" in str(error))
        print(lambdamr.clean())
    """
    mount = f"mount -t tmpfs -o ro none {tmp_path}"
    out = run_mounted(mount, program, LAMBDAMR_ROOT=str(tmp_path))
    assert out == "True True\nTrue True\n[]\n"


def test_a_read_only_directory_keeps_its_results(tmp_path: Path) -> None:
    """A job on a file system that has become read-only is still there when it is writable again."""
    root = tmp_path / "root"
    first = faults.run_client(
        """
        import lambdamr
        with lambdamr.Executor(workers=1) as executor:
            futures = executor.map(abs, [-1, -2])
            futures.result(30)
            print(futures.job_id)
        """,
        str(root),
    ).strip()
    program = f"""
        import lambdamr
        try:
            lambdamr.delete({first!r})
        except (lambdamr.StoreError, OSError) as error:
            print("ead-only" in str(error))
    """
    mount = f"mount --bind {root} {root} && mount -o remount,ro,bind {root}"
    assert run_mounted(mount, program, LAMBDAMR_ROOT=str(root)) == "True\n"
    again = faults.run_client(
        f"import lambdamr; print(lambdamr.attach({first!r}).result(30))", str(root)
    )
    assert again == "[1, 2]\n"
