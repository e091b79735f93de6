"""What reports tell of attempts, memory, receipts and stragglers, and how they are kept."""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lambdamr
from lambdamr.timing import MARGIN, SIZES_MB, SpanKind, StageTiming, spans_of
from tests import faults
from tests.gates import PATIENCE_S


def fail_on_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def timing(**given: float) -> StageTiming:
    """Return a timing with these figures, and nothing else to tell."""
    fields = {"peak_mb": 0.0, "memory_mb": 1769, **given}
    return StageTiming(0.0, 0.0, 0, 0.0, 0.0, stragglers=(), **fields)  # type: ignore[arg-type]


# --- memory ---------------------------------------------------------------------------------------
@given(st.floats(1, 12_000), st.sampled_from([128, 512, 1769, 10_240]))
def test_advised_memory_leaves_room(peak_mb: float, memory_mb: int) -> None:
    """What is advised holds the peak with room to spare, is less than what there was, and the
    smallest such size.
    """
    advised = timing(peak_mb=peak_mb, memory_mb=memory_mb).advised_mb
    enough = [size for size in SIZES_MB if size >= MARGIN * peak_mb and size < memory_mb]
    assert advised == (enough[0] if enough else 0)


def test_nothing_is_advised_without_a_peak() -> None:
    """Where no memory was measured nothing is said."""
    assert timing().advised_mb == 0


# --- maps -----------------------------------------------------------------------------------------
def test_report_of_a_map(executor: lambdamr.Executor) -> None:
    """A map has a report of its tasks; with failures it is partial."""
    futures = executor.map(fail_on_odd, range(5), return_exceptions=True)
    report = futures.report()
    assert (report.job_id, report.status, report.reason) == (futures.job_id, "done", "")
    assert (report.stages["map"].tasks, report.stages["map"].failed) == (5, 2)
    assert report.partial
    assert report.receipts == ()
    text = str(report)
    assert "5 tasks" in text
    assert "2 failed" in text
    assert "partial: 2 tasks failed" in text
    assert report.timing["map"].peak_mb > 5
    assert "MB of 1,769 used" in text
    assert 0 < report.timing["map"].seconds <= report.seconds + 0.1


def test_memory_is_that_of_the_worker_or_of_the_call(root: str) -> None:
    """The report says of how much it was used."""
    with lambdamr.Executor(workers=1, memory_mb=300, root=root) as executor:
        assert "MB of 300 used" in str(executor.map(abs, [1]).report())
        assert "MB of 200 used" in str(executor.map(abs, [1], memory_mb=200).report())


def test_retries_are_counted_by_kind(root: str, tmp_path: Path) -> None:
    """`retries=` counts calls that raised; deaths of processes are counted beside them."""

    with lambdamr.Executor(workers=1, root=root) as executor:
        folder = str(tmp_path)
        flaky = partial(faults.fail_then_pass, folder)
        raised = executor.map(flaky, range(3), [0, 1, 2], retries=5, chunksize=1).report()
        died = executor.map(
            partial(faults.die_at, folder, bad=7, how="exit", times=2), range(6, 9), chunksize=3
        )
        report = died.report()
    assert (raised.stages["map"].retries, raised.stages["map"].deaths) == (3, 0)
    assert "retries: 3 of the user's; processes lost: 0" in str(raised)
    assert (report.stages["map"].retries, report.stages["map"].deaths) == (0, 2)
    assert "retries: 0 of the user's; processes lost: 2" in str(report)


def test_a_cold_start_is_told_from_a_wait(root: str) -> None:
    """The first event of a new worker waited for its process; later ones did not."""
    with lambdamr.Executor(workers=1, root=root) as executor:
        first = executor.map(abs, [1], chunksize=1).report().timing["map"]
        second = executor.map(abs, [1], chunksize=1).report().timing["map"]
    assert first.cold_starts == 1
    assert first.cold_s > 0.01
    assert (second.cold_starts, second.cold_s) == (0, 0.0)


def test_stragglers_of_a_map_are_named(root: str, tmp_path: Path) -> None:
    """The report names the task that others waited for."""

    def task(item: int) -> None:
        if item == 3:
            time.sleep(1.2)

    with lambdamr.Executor(workers=1, root=root) as executor:
        report = executor.map(task, range(8), chunksize=1).report()
    assert [each.task for each in report.timing["map"].stragglers] == [3]
    assert "stragglers: task 3 (1." in str(report)


def test_report_of_futures_of_several_jobs(executor: lambdamr.Executor) -> None:
    """Each job's stage is told by itself."""
    first, second = executor.map(abs, range(3)), executor.map(abs, range(2))
    report = lambdamr.Futures([*first, *second]).report()
    assert {name.partition("/")[2] for name in report.stages} == {"map"}
    assert [totals.tasks for totals in report.stages.values()] == [3, 2]
    assert report.job_id == f"{first.job_id}, {second.job_id}"


def test_report_of_no_futures(executor: lambdamr.Executor) -> None:
    """There is nothing to tell, and that is told."""
    report = executor.map(abs, []).report()
    assert (report.job_id, report.stages, report.status) == ("", {}, "done")


def test_report_of_a_cancelled_map(executor: lambdamr.Executor) -> None:
    """It says so, with what had ended before."""
    held = executor.map(lambda _: faults.sleep_long(), range(40), chunksize=1)
    held.cancel()
    report = held.report()
    assert report.status == "cancelled"
    assert report.stages["map"].failed == 40


# --- map_reduce -----------------------------------------------------------------------------------
@pytest.fixture
def count(executor: lambdamr.Executor, tmp_path: Path) -> Callable[..., lambdamr.Job]:
    """Return a function that counts the words of a small file."""
    path = tmp_path / "text"
    path.write_text("a b\nb c\n" * 50)

    def count(**options: object) -> lambdamr.Job:
        return executor.map_reduce(
            lambda line: [(word, 1) for word in line.split()],
            lambdamr.lines(path, split_bytes=100), lambdamr.reducers.sum, **options,  # type: ignore[arg-type]
        )  # fmt: skip

    return count


def test_receipts_of_a_job(count: Callable[..., lambdamr.Job], tmp_path: Path) -> None:
    """What was compared is told with its numbers: input bytes, pairs, and the output's."""
    report = count(output=str(tmp_path / "out"), format="text").report()
    assert [receipt.what for receipt in report.receipts] == [
        "bytes of input", "pairs", "pairs of output", "bytes of output",
    ]  # fmt: skip
    assert all(receipt.balances for receipt in report.receipts)
    assert report.receipts[0].made == 400
    assert "receipts: 400 bytes of input, " in str(report)
    assert str(report).count("all balance") == 1


def test_report_as_plain_data(count: Callable[..., lambdamr.Job]) -> None:
    """to_dict() is what JSON can hold, totals and timings by stage."""
    report = count().report()
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["status"] == "done"
    assert data["stages"]["map"]["records"] == 100
    assert data["timing"]["reduce"]["memory_mb"] == 1769
    assert data["partial"] is False


def test_report_as_a_file(count: Callable[..., lambdamr.Job], tmp_path: Path) -> None:
    """to_html() writes one document that refers to nothing else, and says what the text says."""
    report = count().report()
    report.to_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert report.job_id in text
    assert "read 400 bytes, 100 records" in text
    assert "all balance" in text
    assert not {"<script", "http:", "https:", "<link"} & set(text.split())


def test_report_of_a_failed_job(executor: lambdamr.Executor) -> None:
    """A failed job has a report of what had run; nothing claims that receipts balance."""
    job = executor.map_reduce(lambda n: [(n, fail_on_odd(n))], [1], lambdamr.reducers.sum)
    assert isinstance(job.map_futures.exceptions(PATIENCE_S)[0], ValueError)
    report = job.report()
    assert report.status == "failed"
    assert report.stages["map"].failed == 1
    assert report.stages["reduce"].records == 0
    assert report.receipts == ()
    assert not report.partial
    assert "1 tasks of stage 'map' failed" in str(report)


# --- spans ----------------------------------------------------------------------------------------
def test_spans_cover_what_chunks_did(count: Callable[..., lambdamr.Job]) -> None:
    """Each chunk has its pieces one behind the other, in its own lane, and they add up to its
    time; reduce tasks begin after map tasks.
    """
    job = count(reducers=2)
    job.wait(PATIENCE_S)
    tracked = job.map_futures.stages[0].job
    spans = spans_of(tracked)
    for stage in tracked.stages:
        for chunk, ran in stage.ran.items():
            own = [s for s in spans if (s.stage, s.chunk) == (stage.run.stage.name, chunk)]
            waits = {SpanKind.QUEUED, SpanKind.COLD}
            assert sum(s.seconds for s in own if s.kind not in waits) == pytest.approx(ran.seconds)
            assert all(s.lane == chunk % stage.run.plan.lanes for s in own)
            ends = [s.begin_s + s.seconds for s in own]
            assert [s.begin_s for s in own[1:]] == pytest.approx(ends[:-1])
    begun = {s.stage: min(each.begin_s for each in spans if each.stage == s.stage) for s in spans}
    assert list(begun) == ["map", "reduce"]
    assert begun["map"] < begun["reduce"]


def test_a_death_is_a_span(root: str, tmp_path: Path) -> None:
    """An attempt that died is shown with the time its last task had."""
    with lambdamr.Executor(workers=1, root=root) as executor:
        futures = executor.map(
            partial(faults.die_at, str(tmp_path), bad=1, how="kill", times=1), range(2), chunksize=1
        )
        futures.result(PATIENCE_S)
        spans = spans_of(futures.stages[0].job)
    died = [span for span in spans if span.kind is SpanKind.DIED]
    assert [span.chunk for span in died] == [1]
    assert 0 <= died[0].seconds < PATIENCE_S
    assert 0 < died[0].begin_s < PATIENCE_S
    assert os.listdir(tmp_path)
