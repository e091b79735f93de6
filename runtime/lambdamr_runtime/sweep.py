"""The last net: any look at a job can mend it."""

from collections.abc import Callable

from lambdamr_runtime.barrier import end_empty, end_overdue, finish_cancelled
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.keys import JobKeys, last_number
from lambdamr_runtime.store import Store
from lambdamr_runtime.wire import Event, Manifest


def sweep(store: Store, manifest: Manifest, invoke: Callable[[Event], None], now_s: float) -> int:
    """Re-invoke, as repairs, the lanes of an unfinished job that have no end.

    Repairs look for outcomes before they run anything, so a sweep of a job that is being worked
    on repeats at most the chunks that run at the moment.

    Returns:  how many events were launched; 0 for a job that has ended.
    """
    keys = JobKeys(manifest.job)
    if store.exists(keys.report):
        return 0
    if store.exists(keys.cancelled):
        finish_cancelled(store, keys)
        return 0
    if end_overdue(store, manifest, now_s):
        return 0
    if not any(stage.tasks for stage in manifest.stages):
        end_empty(store, manifest, now_s)
        return 0
    run = current_stage(store, manifest)
    events = [
        Event(manifest.job, run.index, lane, lane + 1, repair=True, sent_s=now_s)
        for lane in _open_lanes(store, run)
    ]
    for event in events:
        invoke(event)
    return len(events)


def current_stage(store: Store, manifest: Manifest) -> StageRun:
    """Return the first stage with tasks whose successor has not been launched, or the last one."""
    for index in range(len(manifest.stages) - 1):
        run = StageRun.of(manifest, index)
        if run.stage.tasks and not store.exists(run.keys.next):
            return run
    return StageRun.of(manifest, len(manifest.stages) - 1)


def _open_lanes(store: Store, run: StageRun) -> list[int]:
    """Return the lanes with a chunk to run, and one of each group whose barrier is unfinished."""
    closed = {last_number(entry.key) for entry in store.list(run.keys.groups)}
    lanes: list[int] = []
    for group in range(run.plan.groups):
        listed = store.list(run.keys.outcomes(group))
        found = {last_number(entry.key) for entry in listed}
        unfinished = [
            lane
            for lane in run.plan.lanes_of(group)
            if not found.issuperset(run.plan.chunks_of(lane))
        ]
        if not unfinished and group not in closed:
            unfinished = [run.plan.lanes_of(group).start]
        lanes += unfinished
    return lanes or [0]
