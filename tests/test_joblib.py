"""The joblib backend: what joblib and scikit-learn expect of one."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import joblib
import numpy
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import lambdamr
import lambdamr.joblib


@pytest.fixture
def parallel(executor: lambdamr.Executor) -> Iterator[None]:
    """Every `Parallel` in the test runs on two warm workers."""
    with joblib.parallel_config(backend="lambdamr", executor=executor):
        yield


def pid_of(_: Any) -> int:
    return os.getpid()


@pytest.mark.usefixtures("parallel")
def test_calls_run_in_workers_in_order() -> None:
    """Results are in input order, and not from this process."""
    assert joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(50)) == [
        n**2 for n in range(50)
    ]
    assert os.getpid() not in joblib.Parallel()(joblib.delayed(pid_of)(n) for n in range(4))


def test_the_name_is_registered_with_the_older_context_manager() -> None:
    """`joblib.parallel_backend("lambdamr")` takes the options of an executor."""
    with joblib.parallel_backend("lambdamr", workers=1):
        assert joblib.Parallel()(joblib.delayed(abs)(n) for n in (-1, -2)) == [1, 2]


@pytest.mark.usefixtures("parallel")
def test_a_call_that_raises_ends_the_parallel() -> None:
    """The user's exception comes back as itself, and the backend goes on."""
    with pytest.raises(ZeroDivisionError):
        joblib.Parallel()(joblib.delayed(divmod)(1, n) for n in (1, 0, 2))
    assert joblib.Parallel()(joblib.delayed(abs)(n) for n in (-1,)) == [1]


@pytest.mark.usefixtures("parallel")
def test_results_can_be_a_generator() -> None:
    """return_as="generator" yields in order."""
    squares = joblib.Parallel(return_as="generator")(joblib.delayed(pow)(n, 2) for n in range(9))
    assert list(squares) == [n**2 for n in range(9)]


@pytest.mark.usefixtures("parallel")
def test_a_parallel_inside_a_task_runs_there() -> None:
    """Nested calls need no workers of their own."""

    def total(n: int) -> int:
        return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-i) for i in range(n)))

    assert joblib.Parallel()(joblib.delayed(total)(n) for n in (3, 4)) == [3, 6]


def test_a_large_argument_is_stored_once(executor: lambdamr.Executor) -> None:
    """However many calls take an array, it is put once per call of Parallel."""
    data = numpy.arange(100_000.0)
    put: list[Any] = []

    class Counting(lambdamr.Executor):
        def put(self, obj: Any) -> lambdamr.Data:
            put.append(obj)
            return super().put(obj)

    with (
        Counting(workers=2) as counting,
        joblib.parallel_config(backend="lambdamr", executor=counting),
    ):
        sums = joblib.Parallel(batch_size=1)(
            joblib.delayed(lambda x, n: float(x.sum()) + n)(data, n) for n in range(6)
        )
    assert sums == [float(data.sum()) + n for n in range(6)]
    assert len(put) == 1


@pytest.mark.parametrize(("n_jobs", "expected"), [(None, 2), (-1, 2), (-2, 1), (1, 1), (7, 7)])
def test_jobs_are_workers(executor: lambdamr.Executor, n_jobs: int | None, expected: int) -> None:
    """As joblib counts: -1 is all, -2 all but one; what is asked for may be more than there is."""
    backend = lambdamr.joblib.LambdamrBackend(executor=executor)
    assert backend.effective_n_jobs(n_jobs) == expected


def test_no_jobs_have_no_meaning(executor: lambdamr.Executor) -> None:
    """0 is refused in joblib's own words."""
    with pytest.raises(ValueError, match="n_jobs == 0"):
        lambdamr.joblib.LambdamrBackend(executor=executor).effective_n_jobs(0)


@pytest.mark.usefixtures("parallel")
def test_a_grid_search_finds_what_it_finds_alone() -> None:
    """scikit-learn's GridSearchCV and a forest: the same scores as in this process."""
    features, classes = load_iris(return_X_y=True)
    grid = {"C": [0.1, 1, 10], "kernel": ["linear", "rbf"]}
    here = GridSearchCV(SVC(), grid, n_jobs=None).fit(features, classes)
    with joblib.parallel_config(backend="sequential"):
        alone = GridSearchCV(SVC(), grid).fit(features, classes)
        trees_alone = RandomForestClassifier(10, random_state=0).fit(features, classes)
    assert list(here.cv_results_["mean_test_score"]) == list(alone.cv_results_["mean_test_score"])
    trees = RandomForestClassifier(10, random_state=0, n_jobs=-1).fit(features, classes)
    assert list(trees.predict(features)) == list(trees_alone.predict(features))


IMPORTS = [
    "import joblib, lambdamr",
    "import lambdamr, joblib",
    "import lambdamr; from joblib import Parallel; import joblib",
    "import lambdamr; import sklearn.svm, joblib",
    "import lambdamr.joblib, joblib",
    "import lambdamr, importlib, joblib; importlib.reload(joblib)",
]


@pytest.mark.parametrize("imports", IMPORTS)
def test_the_backend_is_registered_by_imports(imports: str) -> None:
    """Whichever is imported first, and whoever imports joblib, it knows the backend."""
    program = f"{imports}; print('lambdamr' in joblib.parallel.BACKENDS)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"True\n"


def test_without_joblib_nothing_is_registered() -> None:
    """`import lambdamr` imports no joblib, and where there is none the usual error says so."""
    program = (
        "import sys, lambdamr\n"
        "assert 'joblib' not in sys.modules\n"
        "sys.path[:] = []\n"
        "try: import joblib\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"No module named 'joblib'\n"


def test_finders_of_old_are_passed_over() -> None:
    """One that is asked by `find_module`, as Python 3.11 allows, keeps nobody from joblib."""
    if sys.version_info >= (3, 12):
        pytest.skip("Python asks no such finder any more")
    program = """
        import sys

        class Old:
            def find_module(self, name, path=None):
                return None

        import lambdamr
        sys.meta_path.insert(0, Old())
        import joblib
        print(lambdamr.joblib.__name__)
    """
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr) == ("lambdamr.joblib\n", "")
