"""How jobs, futures and reports look in a notebook."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future as _BaseFuture
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from lambdamr import html
from lambdamr.shown import shown_input
from lambdamr.timing import is_billed
from lambdamr_runtime.errors import RemoteTraceback

if TYPE_CHECKING:
    from lambdamr.futures import Future, Futures
    from lambdamr.reports import JobReport
    from lambdamr.tracked import TrackedJob, TrackedStage

SHOWN_FAILURES = 5
"""So many failed tasks are shown with their input."""

LONGEST_LINE = 240
"""Characters of an error's message that are shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stage, or what futures of several jobs add up to."""

    name: str
    total: int
    ended: int
    failed: int
    """Of those ended; cancelled ones too."""


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A failed task."""

    name: str
    given: str
    """Its input."""
    error: str
    """The last line of its traceback."""
    place: str
    """Where the user's code raised it; "" where that is not known."""


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of a job, or of futures."""

    title: str
    state: str
    seconds: float
    """Since the submission, or until the end."""
    rows: tuple[Row, ...]
    failures: tuple[FailedTask, ...] = ()
    cost: str = ""
    """US dollars; "" of a job that costs nothing."""
    note: str = ""

    @property
    def per_second(self) -> float:
        """Tasks ended per second so far."""
        return sum(row.ended for row in self.rows) / self.seconds if self.seconds > 0 else 0.0


def job_view(job: "TrackedJob", note: str = "") -> View:
    """Return what is shown of a job now."""
    rows = tuple(
        Row(stage.run.stage.name, len(stage.futures), stage.resolved, stage.failed)
        for stage in job.stages
    )
    failures = tuple(_failures(job.stages))
    title = f"lambdamr job {job.manifest.job}"
    return View(title, _state(job), _age(job), rows, failures, _dollars(job), note)


def futures_view(futures: "Futures") -> View:
    """Return what is shown of futures: their job if they are all of it, else their sum."""
    stages = futures.stages
    if len(stages) == 1 and stages[0].is_covered_by(futures):
        return job_view(stages[0].job)
    counts = futures.counts()
    bad = counts["failed"] + counts["cancelled"]
    row = Row("tasks", len(futures), counts["done"] + bad, bad)
    jobs = {stage.job_id: stage.job for stage in stages}
    title = f"lambdamr: futures of {', '.join(jobs) or 'no job'}"
    state = "running" if counts["pending"] else "done"
    seconds = max((_age(job) for job in jobs.values()), default=0.0)
    failed = [future for future in futures if _error(future) is not None][:SHOWN_FAILURES]
    return View(title, state, seconds, (row,), tuple(map(_failure, failed)))


def view_html(view: View) -> str:
    """Return the HTML of a view."""
    ended = view.state != "running"
    notes = [view.state, f"{view.seconds:.1f} s"]
    if view.per_second and view.seconds >= 0.05:
        notes.append(f"{view.per_second:,.0f} tasks/s" if view.per_second >= 10 else
                     f"{view.per_second:.1f} tasks/s")  # fmt: skip
    notes += [view.cost, view.note]
    rows = html.table(_row(row, ended) for row in view.rows)
    failed = sum(row.failed for row in view.rows)
    body = ""
    if view.failures:
        shown = html.table(_failure_row(failure) for failure in view.failures)
        more = failed - len(view.failures)
        first = f"The first {len(view.failures)} failures" if more > 0 else "Failures"
        body = html.details(first, shown)
    return html.card(html.heading(view.title, notes), rows, body)


def view_text(view: View) -> str:
    """Return the same in one line, for frontends without HTML."""
    rows = ", ".join(
        f"{row.name} {row.ended:,}/{row.total:,}{f' ({row.failed:,} failed)' if row.failed else ''}"
        for row in view.rows
    )
    return f"{view.title} {view.state} after {view.seconds:.1f} s: {rows}"


def report_html(report: "JobReport") -> str:
    """Return the HTML of a report."""
    rows = []
    for name, totals in report.stages.items():
        said = html.lines(report.details(name))
        rows.append(
            (html.code(name), f"{totals.tasks:,} tasks<br>{totals.task_seconds:,.2f} s", said)
        )
    notes = (report.status, f"{report.seconds:.2f} s", report.reason)
    return html.card(
        html.heading(f"lambdamr job {report.job_id}", notes),
        html.table(rows),
        html.lines(report.conclusions()),
    )


def _row(row: Row, ended: bool) -> Sequence[str]:
    total = max(1, row.total)
    good = row.ended - row.failed
    failed = f"{row.failed:,} failed" if row.failed else ""
    left = row.total - row.ended
    return (
        html.code(row.name),
        html.bar(good / total, row.failed / total),
        f"{row.ended:,} / {row.total:,}",
        html.red(failed) if failed else "",
        f"{left:,} not run" if ended and left else "",
    )


def _failure_row(failure: FailedTask) -> Sequence[str]:
    place = f"<br>{html.code(failure.place)}" if failure.place else ""
    return html.plain(failure.name), html.code(failure.given), html.red(failure.error) + place


def _state(job: "TrackedJob") -> str:
    if not job.is_over:
        return "running"
    return job.end.status if job.end is not None else "done"


def _dollars(job: "TrackedJob") -> str:
    """Return what a job in the cloud has cost; "" on this machine."""
    if not is_billed(job):
        return ""
    from lambdamr.planning.cost import cost_of
    from lambdamr.planning.showing import dollars
    from lambdamr.prices import UnknownPrices

    try:
        spent = dollars(cost_of(job).usd)
    except UnknownPrices:  # job.cost() says which prices to give
        return "cost unknown: no prices of its region"
    return spent + ("" if job.is_over else " so far")


def _age(job: "TrackedJob") -> float:
    if not job.is_over:
        return max(0.0, time() - job.manifest.created_s)
    ends = [ran.ended_s for stage in job.stages for ran in stage.chunk_stats()]
    if job.end is not None and job.end.ended_s:
        ends = [job.end.ended_s]
    return max(0.0, max(ends, default=job.manifest.created_s) - job.manifest.created_s)


def _failures(stages: "Iterable[TrackedStage]") -> Iterable[FailedTask]:
    """Yield the first failed tasks; those of a job that were not run say nothing new."""
    left = SHOWN_FAILURES
    for stage in stages:
        if not stage.failed:
            continue
        for future in stage.futures:
            if left and future.stats is not None and _error(future) is not None:
                left -= 1
                yield _failure(future)


def _error(future: "Future") -> BaseException | None:
    if not future.done() or future.cancelled():
        return None
    return _BaseFuture.exception(future)


def _failure(future: "Future") -> FailedTask:
    known = _shown.get(future)
    if known is None:
        error = _error(future)
        known = _shown[future] = FailedTask(
            f"{future.stage.run.stage.name} task {future.task:,}",
            shown_input(future.stage, future.task),
            _last_line(error),
            _place(error),
        )
    return known


_shown: "WeakKeyDictionary[Future, FailedTask]" = WeakKeyDictionary()
"""What was made of a failed task: its input is read from the store once."""


def _last_line(error: BaseException | None) -> str:
    message = next(iter(str(error).splitlines()), "")
    text = f"{type(error).__qualname__}: {message}" if message else type(error).__qualname__
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}…"


def _place(error: BaseException | None) -> str:
    cause = error.__cause__ if error is not None else None
    if not isinstance(cause, RemoteTraceback):
        return ""
    places = [line.strip() for line in cause.text.splitlines() if line.startswith("  File ")]
    # A function that travelled by value has no file to name.
    return places[-1].removeprefix('File "<dynamic-code>", ') if places else ""
