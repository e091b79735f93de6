"""From what is wanted and what is there to the steps between. Pure; nothing here speaks to AWS."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from lambdamr.deploy.models import Bucket, Change, Profile, Record, Resource, changes
from lambdamr.deploy.state import State


class Action(enum.StrEnum):
    """What is done with a resource."""

    CREATE = "create"
    UPDATE = "update"
    KEEP = "keep"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Step:
    """One resource, and what is done with it."""

    action: Action
    resource: Resource
    """As it will be; as it is where it is deleted."""
    present: Resource | None = None
    """As it is, None where there is none."""
    changes: tuple[Change, ...] = ()
    """What an update changes."""


def plan_deploy(wanted: Sequence[Resource], state: State) -> tuple[Step, ...]:
    """Return the steps that make what is wanted out of what there is.

    Every wanted resource has one step, in the given order; KEEP where nothing is to be done. What
    is there and no longer wanted (an old layer, a role after --role) goes afterwards, when nothing
    uses it any more; a bucket never does, since it holds data.
    """
    present = {(it.kind, it.label): it for it in state}
    steps = [_step(present.get((it.kind, it.label)), it) for it in wanted]
    kept = {(it.kind, it.label) for it in wanted}
    steps += [
        Step(Action.DELETE, it, it)
        for key, it in present.items()
        if key not in kept and not isinstance(it, Bucket)
    ]
    return tuple(_records_last(steps))


def _step(present: Resource | None, wanted: Resource) -> Step:
    if present is None:
        return Step(Action.CREATE, wanted)
    differences = changes(present, wanted)
    return Step(Action.UPDATE if differences else Action.KEEP, wanted, present, differences)


def _records_last(steps: Sequence[Step]) -> list[Step]:
    """Clients believe the records: they are written when all else is done."""
    return sorted(steps, key=lambda step: isinstance(step.resource, Record | Profile))


def plan_undeploy(state: State, delete_data: bool, data_left: bool) -> tuple[Step, ...]:
    """Return the steps that remove what there is, in the reverse order of making it.

    The bucket goes when its data may go, or when nothing is in it. The profile goes last: it is how
    this machine finds what is left of a removal that was cut off.

    Args:    data_left: whether anything but the record lies under the root.
    """
    steps = []
    for resource in reversed(tuple(state)):
        keeps_data = isinstance(resource, Bucket) and data_left and not delete_data
        action = Action.KEEP if keeps_data else Action.DELETE
        steps.append(Step(action, resource, resource))
    order = {Record: 1, Bucket: 2, Profile: 3}
    return tuple(sorted(steps, key=lambda step: order.get(type(step.resource), 0)))


def changed(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps that do something."""
    return tuple(step for step in steps if step.action is not Action.KEEP)
