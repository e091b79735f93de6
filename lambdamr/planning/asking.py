"""`executor.plan`: a call of `map` or `map_reduce`, packed as it would be, and its plan."""

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any

from lambdamr.config import Config, load_config
from lambdamr.executor import Executor
from lambdamr.planning.plan import Plan, plan_of
from lambdamr.planning.rehearsal import RehearsalEngine, rehearse
from lambdamr.planning.targets import AWS, LOCAL, Target, assumed_target, target_of
from lambdamr.prices import DEFAULT_REGION, Prices, prices_of
from lambdamr_runtime.limits import LANES_PER_WORKER, PLANNED_MEMORY_MB
from lambdamr_runtime.reducers import Reducer
from lambdamr_runtime.store import local_path

if TYPE_CHECKING:
    from lambdamr.backend import Backend
    from lambdamr.submission import Submission

Where = tuple[str | None, str | None, Mapping[str, float] | None]
"""on, region and prices of `executor.plan` and `job.cost`."""

TaskSeconds = float | tuple[float, float] | None


def plan_call(
    executor: Executor, fn: Any, args: tuple[Any, ...], options: dict[str, Any],
    task_s: TaskSeconds, where: Where,
) -> Plan:  # fmt: skip
    """Return the plan of a call; see Executor.plan."""
    engine = executor.engine()
    target, prices = place(engine.backend, where)
    rehearsal = rehearse(engine.backend, target)
    twin = executor.rehearsed(rehearsal)
    if "arity" in options:
        twin.reduce(fn, *args, **options)
    elif _is_map_reduce(args[1:], options):
        twin.map_reduce(fn, *args, **options)
    else:
        twin.map(fn, *args, **options)
    if not rehearsal.submissions:
        raise ValueError("There is nothing to plan: the iterable has no items.")
    return planned(rehearsal, rehearsal.submissions[-1], prices, engine.known, task_s)


def place(backend: "Backend", where: Where) -> tuple[Target, Prices]:
    """Return where a job is planned or priced for, and what is charged there.

    Raises:  ValueError: an unknown place, region or price.
    """
    on, region, changes = where
    config = load_config()
    target = target_of(backend, on, config)
    if target.is_aws and region is not None:
        target = replace(target, region=region)
    return target, prices_at(target, config, changes)


def place_of_root(root: str, where: Where) -> tuple[Target, Prices, bool]:
    """Return where jobs under a root are priced for, what is charged there, and whether that is
    where they ran: on this machine under a directory, on AWS elsewhere.

    Raises:  as place.
    """
    from lambdamr.local import usable_cores

    on, region, changes = where
    config = load_config()
    home = LOCAL if local_path(root) is not None else AWS
    if (on or home) == AWS:
        target = assumed_target(config)
        target = replace(target, region=region) if region else target
    else:
        workers = config.workers or usable_cores()
        memory_mb = config.memory_mb or PLANNED_MEMORY_MB
        target = Target(LOCAL, workers, workers * LANES_PER_WORKER, memory_mb)
    return target, prices_at(target, config, changes), (on or home) == home


def prices_at(target: Target, config: Config, changes: Mapping[str, float] | None) -> Prices:
    """Return the prices at a target: of the table, the configuration, and as given, in this order.

    Raises:  ValueError: an unknown region or price.
    """
    return prices_of(target.region or DEFAULT_REGION, {**config.prices, **(changes or {})})


def planned(
    rehearsal: RehearsalEngine,
    submission: "Submission",
    prices: Prices,
    known_keys: set[str],
    task_s: TaskSeconds = None,
) -> Plan:
    """Return the plan of one rehearsed job."""
    return plan_of(
        submission,
        rehearsal.target,
        prices,
        root=rehearsal.backend.store.root,
        known_keys=known_keys,
        task_s=task_s,
        keep_days=load_config().keep_days,
    )


def _is_map_reduce(more: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    """Whether a call is one of map_reduce: by its third argument, or by an option that only it has.

    A class may be iterable, as an Enum is; as the third argument it is taken for a reducer.
    """
    own = set(signature(Executor.map_reduce).parameters) - set(signature(Executor.map).parameters)
    if own.intersection(options):
        return True
    return len(more) == 1 and (more[0] is None or callable(more[0]) or isinstance(more[0], Reducer))
