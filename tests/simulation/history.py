"""One seed, one history: what it is about, its actors, and its end."""

from dataclasses import dataclass

from lambdamr_runtime import context, keys
from lambdamr_runtime.keys import JobKeys
from tests.simulation import world as worlds
from tests.simulation.checks import check
from tests.simulation.client import Bystander, Client, RemoteClient
from tests.simulation.cloud import Cloud, Rules
from tests.simulation.jobs import TEMPLATES, Mutable, Template, submission_of
from tests.simulation.world import World, require

LOOK_S = 5.0
MOST_SWEEPS = 12
"""A job that so many looks do not mend will never end."""

NAMES = [name for name, template in TEMPLATES.items() for _ in range(template.weight)]


@dataclass(frozen=True, slots=True)
class Case:
    """What a history is about; what is not given is drawn from the seed."""

    template: str = ""
    """The kind of job."""
    quiet: bool = False
    """Nothing goes wrong."""
    cancels: bool = False
    """The client cancels the job."""


class History:
    """A job under faults."""

    def __init__(
        self,
        seed: int,
        rules: Rules | None = None,
        mutable: Mutable | None = None,
        case: Case | None = None,
    ) -> None:
        case = case or Case()
        self.seed = seed
        rules = rules or Rules()
        self.world = World(seed, rules.store, quiet=case.quiet)
        worlds.enter(self.world)
        random = self.world.random
        self.name = random.choice(NAMES)
        if case.template:
            self.name = case.template
        self.template: Template = TEMPLATES[self.name]
        is_pool = random.random() < 0.3
        self.cloud = Cloud(self.world, rules, is_pool=is_pool)
        self.width = random.choice(self.template.widths)
        self.submission = submission_of(self.name, width=self.width, mutable=mutable or Mutable())
        self.job = self.submission.manifest.job
        self.cancel_after_s: float | None = None
        if not case.quiet and (random.random() < 0.12 or case.cancels):
            self.cancel_after_s = random.choice((0.1, 1.0, 3.0, 10.0)) * random.random() * 2
        self.disturbed = not case.quiet and random.random() < 0.1
        """Whether somebody sweeps while the job runs."""
        self.clients = [self._new_client()]
        self.sweeps = 0

    def _new_client(self) -> Client:
        kind = Client if self.cloud.is_pool else RemoteClient
        return kind(self.cloud, self.width)

    @property
    def client(self) -> Client:
        """The last one."""
        return self.clients[-1]

    def run(self) -> None:
        """Run to the end, and check.

        Raises:  AssertionError, or what an actor raised: a defect.
        """
        world = self.world
        first = self.client
        world.scheduler.spawn(
            first.process, lambda: first.submit(self.submission, self.cancel_after_s)
        )
        watcher = Bystander(self.cloud)
        world.scheduler.spawn(watcher.process, lambda: self._watch(watcher))
        try:
            world.scheduler.run()
            check(self)
        finally:
            worlds.enter(None)
            context.enter(None)
            keys.draw_from()

    def _watch(self, bystander: Bystander) -> None:
        """See that the job ends: at a standstill, have it mended if that is excused."""
        scheduler = self.world.scheduler
        while not self._is_over():
            scheduler.pause(LOOK_S)
            if self._is_client_gone():
                self._return()
            elif self.disturbed and self.world.random.random() < 0.3 and self._is_stored():
                bystander.sweep(self.submission.manifest)
            elif self._stands_still():
                scheduler.pause(2 * LOOK_S)
                if self._stands_still():
                    require(self.is_excused, "the job does not end: nothing runs or is to come")
                    self._mend(bystander)

    def _is_over(self) -> bool:
        client = self.client
        if client.process.dead:
            return False
        if not self._is_stored():
            return client.error is not None
        return client.values is not None and self._has_end()

    @property
    def is_excused(self) -> bool:
        """Whether the job may need somebody who looks at it."""
        return bool(self.world.log.lost) or len(self.clients) > 1

    def _return(self) -> None:
        """The user comes back after the end of the client."""
        if not self._is_stored():
            self.world.scheduler.pause(30.0)  # what it wrote at last may be under way
        self.cloud.closed = False
        client = self._new_client()
        self.clients.append(client)
        self.world.scheduler.spawn(client.process, lambda: client.attach(self.job))
        self.world.scheduler.pause(LOOK_S)

    def _mend(self, bystander: Bystander) -> None:
        self.sweeps += 1
        require(self.sweeps < MOST_SWEEPS, f"{self.sweeps} sweeps do not mend the job")
        bystander.sweep(self.submission.manifest)

    def _is_stored(self) -> bool:
        return JobKeys(self.job).manifest in self.world.objects.data

    def _is_client_gone(self) -> bool:
        return self.client.process.dead or self.client.error is not None

    def _stands_still(self) -> bool:
        """Whether nothing runs or is to come, and the job has no end."""
        is_still = not self.cloud.pending and not self._is_client_gone()
        return is_still and self._is_stored() and not self._has_end()

    def _has_end(self) -> bool:
        keys = JobKeys(self.job)
        return keys.report in self.world.objects.data or keys.cancelled in self.world.objects.data

    def trace(self) -> list[str]:
        """Return what happened, a line each."""
        begin = self.world.log.requests[0][0] if self.world.log.requests else 0.0
        return [
            f"{at_s - begin:10.3f}  {process:<14} {verb:<12} {key}"
            for at_s, process, verb, key in self.world.log.requests
        ]
