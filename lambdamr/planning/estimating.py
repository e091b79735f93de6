"""From counts to seconds and dollars: the same arithmetic before a job and after it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lambdamr.planning.counting import Count, Kind, Side, count_requests, tree_of
from lambdamr.planning.shapes import JobShape, StageShape
from lambdamr.planning.targets import Target
from lambdamr.planning.waiting import count_tombstones, count_waiting
from lambdamr.prices import Prices
from lambdamr_runtime.limits import CONCURRENCY, RAMP_PER_S, S3_READS_PER_S, S3_WRITES_PER_S


@dataclass(frozen=True, slots=True)
class Range:
    """A low and a high estimate; equal where the value is known."""

    low: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Range":
        return Range(self.low * factor, self.high * factor)


def known(value: float) -> Range:
    return Range(value, value)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a place is, apart from the tasks themselves; seconds, low and high."""

    start: Range
    """Until a fresh process begins its first event."""
    invoke: Range
    request: Range
    """A request to the store."""


SPEEDS = {
    "local": Speed(Range(0.06, 0.2), Range(0.0002, 0.001), Range(0.00006, 0.0005)),
    # A cold start of a zip function with a 13 ms store client; requests within a region.
    "aws": Speed(Range(0.25, 1.2), Range(0.02, 0.1), Range(0.01, 0.05)),
}

OUTCOME_BYTES = 512
"""An outcome without its results, about."""

COMPONENTS = ("Lambda GB-s", "Lambda requests", "PUT", "GET", "LIST", "storage")
"""What a bill has, in the order in which it is shown; COPY counts as PUT, HEAD as GET."""

_COMPONENT_OF = {
    Kind.INVOKE: "Lambda requests",
    Kind.PUT: "PUT",
    Kind.COPY: "PUT",
    Kind.GET: "GET",
    Kind.HEAD: "GET",
    Kind.LIST: "LIST",
}


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of the bill."""

    stage: str
    """"" of the job as a whole."""
    component: str
    """One of COMPONENTS."""
    quantity: Range
    """GB-s, requests or GB-months."""
    usd: Range


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long a stage takes."""

    waves: int
    """Rounds of chunks, one behind the other."""
    levels: int
    """Invocations behind each other until the last lane runs."""
    tasks_s: Range
    """All tasks together."""
    running_s: Range
    """All lanes together: what is billed on AWS."""
    wall_s: Range


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second on one prefix, at the most."""

    what: str
    per_s: float
    limit_per_s: int

    @property
    def share(self) -> float:
        """Of the limit."""
        return self.per_s / self.limit_per_s


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job takes, or took."""

    counts: tuple[Count, ...]
    """Requests that hang on nothing but the job."""
    timed: tuple[tuple[Count, ...], tuple[Count, ...]]
    """Requests that hang on time: low and high."""
    times: Mapping[str, StageTime]
    """By stage."""
    seconds: Range
    """From the launch to the end."""
    charges: tuple[Charge, ...]
    rates: tuple[Rate, ...]

    @property
    def usd(self) -> Range:
        return total(charge.usd for charge in self.charges)


def total(ranges: Iterable[Range]) -> Range:
    found = known(0.0)
    for each in ranges:
        found += each
    return found


def estimate(
    job: JobShape,
    target: Target,
    prices: Prices,
    tasks_s: Mapping[str, Range],
    *,
    seconds: float | None = None,
    stored_bytes: Range = Range(0, 0),
    keep_days: float = 0.0,
    more: tuple[Count, ...] = (),
) -> Estimate:
    """Return what a job takes.

    Args:  tasks_s: seconds of all tasks of a stage together, by name.
           seconds: from launch to end, where that is known.
           stored_bytes: beside what the client stores. keep_days: until it is removed.
           more: requests beside those of a fault-free run.
    """
    counts = [*count_requests(job), *more]
    times = {shape.name: _time(shape, counts, target, tasks_s[shape.name]) for shape in job.stages}
    wall = total(time.wall_s for time in times.values())
    timed: tuple[tuple[Count, ...], tuple[Count, ...]] = ((), ())
    if target.is_aws:
        timed = (_timed(job, times, lambda s: s.low), _timed(job, times, lambda s: s.high))
    charges: list[Charge] = []
    if target.is_aws:
        charges += _of_functions(times, target, prices)
        charges += _of_requests(counts, timed, prices)
        charges += _of_storage(job, stored_bytes, keep_days, prices)
    return Estimate(
        tuple(counts),
        timed,
        times,
        wall if seconds is None else known(seconds),
        tuple(charges),
        tuple(_rates(job, times)) if target.is_aws else (),
    )


def _time(shape: StageShape, counts: list[Count], target: Target, tasks_s: Range) -> StageTime:
    plan, speed = shape.plan, SPEEDS[target.where]
    if not plan.tasks:
        return StageTime(0, 0, known(0), known(0), known(0))
    tree = tree_of(plan.lanes)
    at_once = min(plan.lanes, target.workers)
    waves = -(-plan.chunks // at_once)
    requests = sum(
        count.number
        for count in counts
        if count.stage == shape.name and count.side is Side.WORKERS and count.kind != Kind.INVOKE
    )
    asking_s = speed.request.times(requests)
    starts = at_once if target.is_aws else 0
    running_s = tasks_s + asking_s + speed.start.times(starts)
    ramp_s = max(0, plan.lanes - CONCURRENCY) / RAMP_PER_S if target.is_aws else 0.0
    launch_s = (speed.start + speed.invoke).times(tree.levels) + known(ramp_s)
    # The longest lane: whole waves of the average chunk.
    wall_s = launch_s + tasks_s.times(waves / plan.chunks) + asking_s.times(1 / at_once)
    return StageTime(waves, tree.levels, tasks_s, running_s, wall_s)


def _timed(
    job: JobShape, times: Mapping[str, StageTime], end: Callable[[Range], float]
) -> tuple[Count, ...]:
    waited = count_waiting(job, {name: end(time.wall_s) for name, time in times.items()})
    looked = [count_tombstones(name, end(time.running_s)) for name, time in times.items()]
    return tuple(count for count in (*waited, *looked) if count.number)


def _of_functions(
    times: Mapping[str, StageTime], target: Target, prices: Prices
) -> Iterator[Charge]:
    for name, time in times.items():
        gb_s = time.running_s.times(target.memory_mb / 1024)
        price = prices.gb_s(target.architecture)
        yield Charge(name, "Lambda GB-s", gb_s, gb_s.times(price))


def _of_requests(
    counts: Iterable[Count], timed: tuple[tuple[Count, ...], ...], prices: Prices
) -> Iterator[Charge]:
    found: dict[tuple[str, str], Range] = {}
    for count, quantity in (
        *((count, known(count.number)) for count in counts),
        *((count, Range(count.number, 0)) for count in timed[0]),
        *((count, Range(0, count.number)) for count in timed[1]),
    ):
        key = count.stage, _COMPONENT_OF[count.kind]
        found[key] = found.get(key, known(0)) + quantity
    price = {"Lambda requests": prices.invocation, "GET": prices.get}
    for (stage, component), quantity in found.items():
        usd = quantity.times(price.get(component, prices.put))
        yield Charge(stage, component, quantity, usd)


def _of_storage(
    job: JobShape, stored_bytes: Range, keep_days: float, prices: Prices
) -> Iterator[Charge]:
    chunks = sum(shape.plan.chunks for shape in job.stages)
    ours = job.manifest_bytes + job.stored_bytes + chunks * OUTCOME_BYTES
    months = (stored_bytes + known(ours)).times(keep_days / 30 / 1e9)
    yield Charge("", "storage", months, months.times(prices.storage_gb_month))


def _rates(job: JobShape, times: Mapping[str, StageTime]) -> Iterator[Rate]:
    """Yield how fast one prefix is written and read at the most: when tasks are as quick as can be.

    Outcomes of a stage lie under one prefix, shuffle objects under sixteen.
    """
    for shape in job.stages:
        seconds = max(times[shape.name].wall_s.low, 1.0)
        chunks = shape.plan.chunks
        yield Rate(f"{shape.name}: outcomes written", chunks / seconds, S3_WRITES_PER_S)
        if shape.slices:
            yield Rate(
                f"{shape.name}: shuffle slices read", shape.slices / 16 / seconds, S3_READS_PER_S
            )
