"""What waiting for an hour costs, counted: the poller itself, on a clock that its pauses turn."""

import bisect
import queue
from collections import Counter
from collections.abc import Callable
from typing import Any

from lambdamr.machine import News, ThisMachine
from lambdamr.planning.waiting import waiting_cost
from lambdamr.polling import pages
from lambdamr.prices import prices_of
from lambdamr.tracking import Poller
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.keys import JobKeys, last_number, new_execution_id
from lambdamr_runtime.serialize import plain_dumps
from lambdamr_runtime.store import Store, StoredObject, open_store
from lambdamr_runtime.wire import Frame, FrameKind, Manifest, Outcome, encode_frames
from tests.cluster import Cluster
from tests.faulty_stores import InterceptedStore, Request, T
from tests.test_protocol import followed, map_drafts

TASKS = 10_000
LANES = 800
"""What an account of 1,000 places leaves a stage."""
HOUR_S = 3600.0
DOLLARS = 0.05


class Hour(ThisMachine):
    """A machine whose pauses take no time: they turn its clock. One thread is all it has."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s

    def start(self, run: Callable[[], None], name: str) -> None:
        self.run = run

    def news(self) -> News:
        return Pauses(self)


class Pauses(queue.SimpleQueue[Any]):
    """Nobody else puts anything: whoever waits gets on by so many seconds."""

    def __init__(self, machine: Hour) -> None:
        super().__init__()
        self._machine = machine

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if self.empty() and timeout is not None:
            self._machine.now_s += timeout
        return super().get_nowait()


class Filling:
    """A store in which the tasks of a job end one after the other, evenly in an hour.

    What is listed and read of outcomes is made here: 2.6 million entries are listed. All else is
    asked of a store beneath; every request is counted, of listings each page.
    """

    def __init__(self, manifest: Manifest, machine: Hour, beneath: Store) -> None:
        self.requests: Counter[str] = Counter()
        self.root = beneath.root
        run = StageRun.of(manifest, 0)
        self._machine = machine
        self._beneath = beneath
        self._chunks: dict[str, list[int]] = {}
        """What comes to lie under a prefix, in the order in which it does, and ..."""
        self._entries: dict[str, list[StoredObject]] = {}
        """... as it is listed."""
        for chunk in range(TASKS):
            group = run.plan.group_of(chunk)
            entry = StoredObject(run.keys.outcome(group, chunk), 100, "", 0.0)
            for prefix in (run.keys.all_outcomes, run.keys.outcomes(group)):
                self._chunks.setdefault(prefix, []).append(chunk)
                self._entries.setdefault(prefix, []).append(entry)

    def list(self, prefix: str) -> list[StoredObject]:
        there = bisect.bisect_left(self._chunks[prefix], self._ended())
        self.requests["list"] += pages(there)
        return self._entries[prefix][:there]

    def around(self, request: Request, act: Callable[[], T], /) -> T:
        """Count a request of the client."""
        self.requests[request.verb] += 1
        return act()

    def get(self, key: str) -> bytes:
        self.requests["get"] += 1
        if "/outcomes/" not in key:
            return self._beneath.get(key)
        chunk = last_number(key)
        assert chunk < self._ended()
        frames = encode_frames([Frame(FrameKind.VALUE, plain_dumps(chunk), tries=1)])
        execution = new_execution_id()
        outcome = Outcome(chunk, execution, 0, 1, 0, 0.0, 0.0, 0.0, "worker", frames)
        return execution.encode() + b"\n" + outcome.encode()

    def _ended(self) -> int:
        return min(TASKS, int(TASKS * self._machine.now_s / HOUR_S))

    def __getattr__(self, name: str) -> Any:
        return getattr(InterceptedStore(self._beneath, self.around), name)


def test_waiting_for_an_hour_costs_less_than_five_cents() -> None:
    """10,000 tasks that end evenly: every listing, page by page, and every read is paid."""
    machine = Hour()
    cluster = Cluster(LANES)
    manifest = cluster.prepare(*map_drafts(tasks=TASKS, chunksize=1)).manifest
    beneath = open_store("memory://")
    beneath.put(JobKeys(manifest.job).manifest, b"it is there")
    store: Any = Filling(manifest, machine, beneath)
    cluster.store = store
    job = followed(manifest, cluster, Poller(cluster, machine))
    machine.run()
    assert [future.result(0) for future in job.stages[0].futures] == list(range(TASKS))
    assert HOUR_S <= machine.now_s < HOUR_S + 20
    prices = prices_of("us-east-1")
    paid = {"list": prices.put, "get": prices.get, "head": prices.get}
    assert set(store.requests) == set(paid), "the client writes nothing"
    cost = sum(number * paid[verb] for verb, number in store.requests.items())
    assert cost < DOLLARS
    modelled = waiting_cost(job.stages[0].run.plan, HOUR_S, prices)
    assert 0.5 * modelled < cost <= modelled * 1.02, "what a plan says of it"
