"""Jobs of an executor over a Cluster, every request of client and workers counted.

Executor ─▶ CountedBackend ─ counted store ─▶ memory store ◀─ noted by Cluster.log ─ Worker
"""

import threading
from collections import Counter
from collections.abc import Callable

import lambdamr
from lambdamr.backend import Listener
from lambdamr.planning.counting import Kind, Side
from lambdamr.planning.plan import Plan
from lambdamr_runtime import context
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.store import Store, open_store
from lambdamr_runtime.wire import Event, Manifest
from tests.cluster import ROOMY_MB, Cluster
from tests.faulty_stores import InterceptedStore, Request, T

KINDS = {
    "invoke": Kind.INVOKE,
    "put": Kind.PUT,
    "create": Kind.PUT,
    "copy": Kind.COPY,
    "get": Kind.GET,
    "head": Kind.HEAD,
    "list": Kind.LIST,
}
OWN_MODULES = ("tests", "counted", "test_counting", "test_planning")
"""Imported here already, so never shipped."""


class CountedBackend:
    """A Cluster as a backend whose store notes the client's requests; obeys Backend."""

    owner = ""
    hints = False
    helps = False

    def __init__(self, width: int, memory_mb: int = ROOMY_MB, root: str = "memory://") -> None:
        self.own: Counter[str] = Counter()
        """Requests of the cluster itself, which looks whether all goes well."""
        around = InterceptedStore(open_store(root), self._note_own)
        self.cluster = Cluster(width, store=around)
        self.store: Store = InterceptedStore(self.cluster.store, self._note)
        self.workers = self.width = width
        self.memory_mb = memory_mb
        self.found: Counter[str] = Counter()
        """Requests of the client that found or wrote what they were for, by kind."""
        self.missed: Counter[str] = Counter()
        """Those of its looks: listings, and what was not there yet."""
        self.launched: list[Event] = []
        self.listed: list[str] = []
        """What the client has listed."""
        self._manifests: dict[str, Manifest] = {}
        self._changed = threading.Condition()

    def _note_own(self, request: Request, act: Callable[[], T], /) -> T:
        """Count what goes through the cluster's store: at first, everything."""
        self.own[str(KINDS[request.verb])] += 1
        return act()

    def _note(self, request: Request, act: Callable[[], T], /) -> T:
        kind = KINDS[request.verb]
        is_look = kind in (Kind.LIST, Kind.HEAD)
        try:
            return act()
        except FileNotFoundError:
            is_look = True
            raise
        finally:
            is_look = is_look or self._is_chance(request.key)  # told once the job is launched
            counter = self.missed if is_look else self.found
            with self._changed:
                counter[str(kind)] += 1
                if kind is Kind.LIST:
                    self.listed.append(request.key)
                self._changed.notify_all()

    def _is_chance(self, key: str) -> bool:
        """Whether a look finds the report of a job that is over without it."""
        manifest = self._manifests.get(key.removesuffix("/report.json").rpartition("/")[2])
        return manifest is not None and not manifest.ends_with_report

    def connect(self, listener: Listener) -> None: ...

    def invoke(self, event: Event) -> None:
        self.launched.append(event)
        key = JobKeys(event.job).manifest
        manifest = Manifest.decode(self.cluster.store.get(key), key)
        self._manifests[event.job] = manifest
        self.cluster.know(manifest)
        self.cluster.invoke(event)

    def withdraw(self, job: str) -> bool:
        return False

    def has_begun(self, job: str) -> bool:
        return False

    def help(self, job: str) -> bool:
        return False

    def close(self) -> None: ...

    def run(self) -> None:
        """Run all that is launched."""
        try:
            self.cluster.run_all()
        finally:
            context.enter(None)

    def wait_for_looks(self, number: int) -> None:
        """Wait until the client has looked so often without news."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.missed[str(Kind.HEAD)] >= number, 20)

    def of_workers(self) -> dict[str, int]:
        """Return the requests of the workers by kind."""
        return dict(Counter(str(KINDS[each.verb]) for each in self.cluster.log.requests))

    def of_client(self) -> dict[str, int]:
        """Return the requests of the client by kind, without its looks."""
        found = Counter(self.found)
        found[str(Kind.INVOKE)] = len(self.launched)
        return {kind: number for kind, number in found.items() if number}

    def executor(self) -> lambdamr.Executor:
        return lambdamr.Executor(self, exclude_modules=OWN_MODULES)


def assert_counted(plan: Plan, backend: CountedBackend) -> None:
    """Every request that was made was planned, and none other."""
    assert plan.requests(Side.WORKERS) == backend.of_workers()
    assert plan.requests(Side.CLIENT) == backend.of_client()
