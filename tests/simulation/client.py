"""A simulated client: the real Engine and Poller, which may die, and come back by attaching."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from typing import Any

from lambdamr.attaching import follow
from lambdamr.aws.watching import Net, last_sign_s
from lambdamr.backend import Listener
from lambdamr.engine import Engine
from lambdamr.job import Job
from lambdamr.polling import quiet_s
from lambdamr.submission import Submission
from lambdamr.tracked import TrackedJob
from lambdamr.tracking import Poller
from lambdamr_runtime.errors import InvocationFailed, LambdamrError, StoreError
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.wire import Event, Manifest, StageKind
from tests.simulation.cloud import Cloud, swept
from tests.simulation.faults import Fate
from tests.simulation.scheduler import Process, VirtualMachine
from tests.simulation.store import SimulatedStore
from tests.simulation.world import Mortal


class Client(Mortal):
    """One process of the user's; obeys Backend."""

    owner = ""
    memory_mb = 1024
    helps = False

    def __init__(self, cloud: Cloud, width: int) -> None:
        world = cloud.world
        self.width = self.workers = width
        self._cloud = cloud
        self._world = world
        self.hints = cloud.is_pool
        self.process = Process(f"client-{next(world.numbers)}")
        self.machine = VirtualMachine(world.scheduler, self.process)
        self.store: Any = cloud.rules.store(world.objects, world.requester(self.process, self))
        self.job: TrackedJob | None = None
        self.values: list[Any] | None = None
        """Values, or exceptions, of the last stage's tasks; None: it has not got so far."""
        self.result: Any = None
        """Of a map_reduce: what Job.result gives or raises."""
        self.items: list[tuple[Any, Any]] = []
        self.outputs: list[str] = []
        self.error: BaseException | None = None
        """What the launch raised."""
        self.launching = False
        """It launches; or it died while it did, perhaps cancelling what could not be launched."""
        self.cancelled = False

    # --- programs -------------------------------------------------------------------------------
    def submit(self, submission: Submission, cancel_after_s: float | None) -> None:
        """Start a job, perhaps cancel it, and wait for its end."""
        engine = Engine(self, self.machine)
        if cancel_after_s is not None:
            self._world.scheduler.spawn(self.process, self._cancel, cancel_after_s)
        self.launching = True
        try:
            self.job = engine.start(submission)
        except (LambdamrError, OSError) as error:
            self.error = error
            return
        self.launching = False
        self._collect()

    def attach(self, job_id: str) -> None:
        """Come back to a job, as `lambdamr.attach` does."""
        key = JobKeys(job_id).manifest
        poller = Poller(self, self.machine)
        try:
            manifest = Manifest.decode(self._world.plain.get(key), key)
            job = TrackedJob(manifest, self, poller)
            follow(job)
        except (LambdamrError, OSError) as error:
            self.error = error
            return
        self.job = job
        self._collect()

    def _collect(self) -> None:
        job = self.job
        assert job is not None
        job.wait(None)
        values = [_outcome_of(future) for future in job.stages[-1].futures]
        if job.manifest.stages[0].kind is StageKind.MAP:
            self._read(Job(job, None))
        self.values = values

    def _read(self, whole: Job) -> None:
        """Read the output; where the store refuses that, again."""
        while True:
            try:
                self.items = list(whole.items())
                self.outputs = whole.outputs
                self.result = self.items
            except StoreError:
                self.result = StoreError("what made the job fail")
                if whole._state() == "done":  # what made it fail comes back at every try
                    continue
            except (Exception, CancelledError) as error:
                self.result = error
            return

    def _cancel(self) -> None:
        """Cancel the job, or some of its tasks."""
        job, random = self.job, self._world.random
        if job is None:
            return
        try:
            if random.random() < 0.6 or len(job.stages) > 1:
                self.cancelled = self.cancelled or not job.is_over
                job.poller.cancel_job(job)
            else:
                futures = job.stages[0].futures
                for future in random.sample(futures, random.randint(1, len(futures))):
                    self.cancelled = True
                    future.cancel()
        except LambdamrError:  # the store refused it: the user sees that, and may try again
            return

    # --- Backend --------------------------------------------------------------------------------
    def connect(self, listener: Listener) -> None:
        if self.hints:
            self._cloud.listener = listener

    def invoke(self, event: Event) -> None:
        self._world.log.swept += event.repair
        self._cloud.launch(event, self.process, self)

    def withdraw(self, job: str) -> bool:
        return self._cloud.withdraw(job)

    def has_begun(self, job: str) -> bool:
        return False

    def help(self, job: str) -> bool:
        return False

    def close(self) -> None: ...

    # --- Mortal ---------------------------------------------------------------------------------
    def fate(self, verb: str, writes: bool) -> Fate:
        return self._world.nature.client_fate(verb, writes)

    def stall(self, seconds: float, *, given_up: bool = False) -> None:
        self.process.stalled_until = self._world.scheduler.now_s + seconds

    def die(self) -> None:
        if self._cloud.is_pool:
            self._cloud.listener = None
            self._cloud.close()
        self._world.scheduler.kill(self.process)


class RemoteClient(Client):
    """A client of functions in a cloud; obeys RemoteBackend."""

    def invoke_all(self, events: Sequence[Event]) -> None:
        self._cloud.launch_all(events, self.process, self)

    def check(self, submission: Submission, exclude: Sequence[str]) -> None: ...
    def check_access(self, reads: Iterable[str], writes: Iterable[str]) -> None: ...

    def watch(self, job: TrackedJob, is_new: bool) -> Callable[[], None]:
        now_s = self.machine.time()
        since_s = now_s if is_new else last_sign_s(self.store, job.manifest)
        patience_s = quiet_s(self._cloud.lifetime_s)
        return Net(job, self.invoke, self.machine.time, patience_s, since_s)


class Bystander(Mortal):
    """Somebody who looks at a job, and so mends it."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.process = Process("bystander")
        self._store: SimulatedStore = cloud.rules.store(
            cloud.world.objects, cloud.world.requester(self.process, self)
        )

    def sweep(self, manifest: Manifest) -> None:
        """Have a job mended; where that fails, the next look may."""
        try:
            swept(
                self._cloud,
                manifest,
                self._store,
                lambda event: self._cloud.launch(event, self.process, self),
            )
        except InvocationFailed:
            return

    def fate(self, verb: str, writes: bool) -> Fate:
        return Fate.FINE


def _outcome_of(future: Any) -> Any:
    if future.cancelled():
        return CancelledError()
    error = future.exception(0)
    return future.result(0) if error is None else error
