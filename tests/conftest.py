"""Fixtures of all tests: a directory for jobs, and executors over it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import lambdamr
from lambdamr_runtime import context
from tests.emulator import ministack  # noqa: F401 - a fixture
from tests.gates import Gate

# A machine that pauses is no defect: hypothesis fails an example that takes more than 0.2 s, and
# one whose inputs take more than 1 s to make. What hangs, faulthandler_timeout shows.
settings.register_profile("lambdamr", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lambdamr")


@pytest.fixture(scope="session", autouse=True)
def _isolated_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads the user's configuration or writes to the user's jobs."""
    saved = dict(os.environ)
    os.environ["LAMBDAMR_ROOT"] = str(tmp_path_factory.mktemp("jobs"))
    os.environ["LAMBDAMR_PROGRESS"] = "0"
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))
    yield
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture(autouse=True)
def _no_worker() -> Iterator[None]:
    """This process is a client again, whatever simulated workers a test has run in it."""
    yield
    context.enter(None)


@pytest.fixture(scope="session")
def executor() -> Iterator[lambdamr.Executor]:
    """Two warm workers for tests that leave them as they are."""
    with lambdamr.Executor(workers=2) as executor:
        yield executor


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A directory for the jobs of one test."""
    return str(tmp_path / "root")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder for signs of the tasks."""
    made = tmp_path / "signs"
    made.mkdir()
    return str(made)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lambdamr.Executor]:
    """Two workers for tests that may kill their children; two lanes of a job."""
    root = str(tmp_path_factory.mktemp("root"))
    with lambdamr.Executor(workers=2, concurrency=2, root=root) as executor:
        yield executor


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lambdamr.Executor]:
    """One worker: chunks run one after the other; a task that holds keeps the others pending."""
    root = str(tmp_path_factory.mktemp("root"))
    with lambdamr.Executor(workers=1, concurrency=1, root=root) as executor:
        yield executor


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """One gate; tasks that are still held go when the test ends."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.close()
