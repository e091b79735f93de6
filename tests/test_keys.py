"""Key names: unique, each under the prefix it is listed by, job ids in the order of time."""

import inspect
import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdamr_runtime import keys
from lambdamr_runtime.keys import (
    JobKeys,
    StageKeys,
    data_key,
    function_key,
    last_number,
    new_execution_id,
    new_job_id,
)

JOB = new_job_id(1_790_000_000.0)
EXECUTIONS = ("0123456789abcdef", "fedcba9876543210")


def every_key() -> list[str]:
    """Return every kind of key, with several jobs, stages, numbers and executions."""
    found = [function_key("ab"), data_key("ab")]
    for job in ("20260101-000000-aa", "20260101-000000-a"):
        job_keys = JobKeys(job)
        found += [job_keys.manifest, job_keys.cancelled, job_keys.report]
        for number, execution in product((0, 1, 10, 11), EXECUTIONS):
            found.append(job_keys.part(number, execution))
        for stage in ("map", "reduce", "map-1"):
            found += stage_keys(job_keys.stage(stage))
    return found


def stage_keys(stage: StageKeys) -> list[str]:
    found = [stage.args, stage.done, stage.next]
    for number in (0, 1, 10, 11):
        found += [stage.group(number), stage.failed(number)]
        for execution in EXECUTIONS:
            found += [stage.results(number, execution), stage.shuffle(number, execution)]
        for other in (0, 1, 10, 11):
            found += [stage.outcome(number, other), stage.launched(number, other)]
            found += [stage.attempt(number, other, execution) for execution in EXECUTIONS]
    return found


def test_every_key_is_unique() -> None:
    """No two objects share a name, whatever their jobs, stages, numbers and executions are."""
    found = every_key()
    assert len(set(found)) == len(found)


def test_no_key_is_a_folder_of_another() -> None:
    """A directory store can hold all keys at once: none is the parent folder of another one."""
    found = set(every_key())
    parents = {key[:i] for key in found for i, letter in enumerate(key) if letter == "/"}
    assert found.isdisjoint(parents)


def test_what_belongs_to_a_job_lies_under_its_prefixes() -> None:
    """All of a job is under `jobs/{job}/` and its sixteen shuffle prefixes, and nothing else is."""
    ours, others = JobKeys("20260101-000000-aa"), JobKeys("20260101-000000-a")
    mine = [ours.manifest, ours.cancelled, ours.report, ours.part(3, EXECUTIONS[0])]
    mine += stage_keys(ours.stage("map"))
    prefixes = (ours.prefix, *ours.shuffle_prefixes)
    assert len(prefixes) == 17
    assert all(key.startswith(prefixes) for key in mine)
    assert not any(key.startswith(prefixes) for key in stage_keys(others.stage("map")))


def test_what_is_listed_lies_under_what_is_listed() -> None:
    """Outcomes, groups, failure marks and attempts are under the prefixes by which they are
    listed, and under no other number's.
    """
    stage = JobKeys(JOB).stage("map")
    assert stage.outcome(1, 7).startswith(stage.outcomes(1))
    assert not stage.outcome(10, 7).startswith(stage.outcomes(1))
    assert stage.group(4).startswith(stage.groups)
    assert stage.failed(4).startswith(stage.failures)
    assert stage.attempt(1, 0, EXECUTIONS[0]).startswith(stage.attempts(1))
    assert not stage.attempt(10, 0, EXECUTIONS[0]).startswith(stage.attempts(1))


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_last_number_is_the_chunk_or_the_group(group: int, number: int) -> None:
    """What a listing tells is read back from the key."""
    stage = JobKeys(JOB).stage("map-12")
    assert last_number(stage.outcome(group, number)) == number
    assert last_number(stage.group(number)) == number
    assert last_number(stage.failed(number)) == number


@given(st.floats(0, 4e9, allow_nan=False), st.floats(1, 1e9, allow_nan=False, allow_infinity=False))
def test_job_ids_sort_by_time(now_s: float, later_s: float) -> None:
    """The id of a job made at least a second later sorts behind."""
    assert new_job_id(now_s) < new_job_id(now_s + later_s)


def test_job_ids_of_one_second_differ() -> None:
    """Many jobs of one second have ids of their own, fit for a folder's and a URL's name."""
    made = {new_job_id(1_790_000_000.0) for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{12}", job) for job in made)


def test_execution_ids_are_drawn() -> None:
    """Execution ids are 16 hex digits, never the same twice, and derived from nothing."""
    made = {new_execution_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{16}", execution) for execution in made)
    assert not inspect.signature(new_execution_id).parameters


def test_what_is_written_before_an_outcome_names_its_execution() -> None:
    """Two executions of one chunk never write the same results, shuffle object or part."""
    job = JobKeys(JOB)
    stage = job.stage("map")
    for name in (stage.results, stage.shuffle, job.part):
        one, other = (name(5, execution) for execution in EXECUTIONS)
        assert one.endswith(EXECUTIONS[0])
        assert one != other


def test_shuffle_objects_are_spread() -> None:
    """The shuffle objects of a job use all sixteen prefixes, none for much more than its share."""
    stage = JobKeys(JOB).stage("map")
    digits = [stage.shuffle(task, EXECUTIONS[0]).split("/")[1] for task in range(1600)]
    counts = {digit: digits.count(digit) for digit in set(digits)}
    assert sorted(counts) == list("0123456789abcdef")
    assert max(counts.values()) < 200


@pytest.mark.parametrize("name", ["function_key", "data_key"])
def test_shared_objects_lie_outside_of_jobs(name: str) -> None:
    """Functions and data are named by their sha alone: every job finds the same object."""
    key = getattr(keys, name)("cafe")
    assert key.endswith("/cafe")
    assert not key.startswith(keys.JOBS)
