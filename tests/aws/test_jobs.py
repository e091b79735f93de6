"""Jobs in the cloud: the built zip under AWS's runtime client."""

import lambdamr
from tests.aws import tasks


def test_map(executor: lambdamr.Executor) -> None:
    """A map gives values in input order."""
    assert executor.map(tasks.double, range(10)).result(timeout=30) == list(range(0, 20, 2))
