"""Calls of an executor that are packed and planned, but neither stored nor launched.

executor.plan(…) ──────┐
lambdamr plan SCRIPT ──┴▶ RehearsalEngine ─ start ─▶ Submission, noted ─▶ Plan
                               └ whoever waits for a result meets PlanEnds
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from lambdamr.backend import Backend, Listener
from lambdamr.engine import Engine
from lambdamr.planning.targets import Target
from lambdamr.submission import Submission
from lambdamr.tracked import TrackedJob
from lambdamr.tracking import Poller
from lambdamr_runtime.keys import FUNCTIONS
from lambdamr_runtime.store import Store, StoredObject, Upload
from lambdamr_runtime.wire import Event


class PlanEnds(BaseException):
    """A result was asked for that only a run has. No Exception: a script must not handle it."""


class UnwrittenStore:
    """A store that is read, and never written: what is put there is only noted by its size."""

    def __init__(self, inner: Store) -> None:
        self.root = inner.root
        self._inner = inner
        self.put_bytes = 0
        self.puts = 0

    def get(self, key: str) -> bytes:
        return self._inner.get(key)

    def get_range(self, key: str, start: int, length: int, etag: str = "") -> bytes:
        return self._inner.get_range(key, start, length, etag)

    def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview:
        return self._inner.view_range(key, start, length, etag)

    def put(self, key: str, data: bytes) -> None:  # noqa: ARG002 - the protocol's
        self.puts += 1
        self.put_bytes += len(data)

    def put_stream(self, key: str, parts: Iterable[bytes]) -> int:
        size = sum(map(len, parts))
        self.put(key, bytes(0))
        self.put_bytes += size
        return size

    def upload(self, key: str) -> Upload:
        raise PlanEnds(f"An upload of {key} is part of a run.")

    def copy(self, source: str, target: str) -> None:
        raise PlanEnds(f"A copy of {source} to {target} is part of a run.")

    def create(self, key: str, data: bytes, execution: str) -> bool:  # noqa: ARG002 - the protocol's
        self.put(key, data)
        return True

    def exists(self, key: str) -> bool:
        return self._inner.exists(key)

    def head(self, key: str) -> StoredObject:
        return self._inner.head(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return self._inner.list(prefix)

    def delete(self, keys: Sequence[str]) -> None: ...


class RehearsalBackend:
    """A backend that runs nothing; obeys Backend."""

    hints = True
    helps = True  # so that whoever waits asks for help first, and meets PlanEnds

    def __init__(self, store: Store, target: Target) -> None:
        self.store: Store = UnwrittenStore(store)
        self.owner = ""
        self.target = target
        self.workers = target.workers
        self.width = target.width
        self.memory_mb = target.memory_mb

    def connect(self, listener: Listener) -> None: ...

    def invoke(self, event: Event) -> None:
        raise PlanEnds(f"The event {event} is part of a run.")

    def withdraw(self, job: str) -> bool:  # noqa: ARG002 - the protocol's
        return True

    def has_begun(self, job: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    def help(self, job: str) -> bool:  # noqa: ARG002 - the protocol's
        raise PlanEnds("The result of a planned job was asked for.")

    def close(self) -> None: ...


class _Rehearsed(Poller):
    """Follows nothing; see RehearsalBackend.helps."""

    def add(self, job: TrackedJob) -> None: ...

    def help(self, job: str = "") -> None:
        self._backend.help(job)


class RehearsalEngine(Engine):
    """Notes the jobs that are submitted."""

    def __init__(self, backend: RehearsalBackend) -> None:
        super().__init__(backend)
        self.target = backend.target
        self.poller = _Rehearsed(backend)
        self.submissions: list[Submission] = []
        self.noted: Callable[[RehearsalEngine], None] = lambda _: None
        """Called behind each submission."""

    def stored_before(self, index: int) -> set[str]:
        """Return the function objects that earlier jobs of the client have stored."""
        earlier = self.submissions[:index]
        return {key for each in earlier for key, _ in each.objects if key.startswith(FUNCTIONS)}

    def start(self, submission: Submission) -> TrackedJob:
        self.submissions.append(submission)
        self.noted(self)
        job = TrackedJob(submission.manifest, self.backend, self.poller)
        job.modules = submission.modules
        return job


def rehearse(backend: Backend, target: Target) -> RehearsalEngine:
    """Return an engine that plans what *backend* would run, as if it were at *target*."""
    return RehearsalEngine(RehearsalBackend(backend.store, target))
