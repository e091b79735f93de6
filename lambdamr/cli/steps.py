"""How steps of a deployment are shown."""

from collections.abc import Sequence

from lambdamr.deploy.models import Change
from lambdamr.deploy.planner import Action, Step

_SIGNS = {Action.CREATE: "+", Action.UPDATE: "~", Action.KEEP: " ", Action.DELETE: "-"}
_UNSAID = frozenset({"environment", "policy", "trust", "deployment", "code_sha", "layer_sha"})
"""Fields whose values are long, or may be secret."""


def describe(steps: Sequence[Step]) -> str:
    """Return a plan for people."""
    return "\n".join(line for step in steps for line in _lines(step))


def line_of(step: Step) -> str:
    """Return one step on one line."""
    sign, resource = _SIGNS[step.action], step.resource
    return f"  {sign} {step.action:<7} {resource.kind:<9}  {resource.label}"


def _lines(step: Step) -> list[str]:
    return [line_of(step), *(f"{' ' * 23}{_change(change)}" for change in step.changes)]


def _change(change: Change) -> str:
    if change.field in _UNSAID:
        return change.field
    return f"{change.field}: {_value(change.present)} → {_value(change.wanted)}"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_value(item) for item in value) or "none"
    return str(value) if value != "" else "none"


def step_record(step: Step) -> dict[str, object]:
    """Return a step for programs."""
    return {
        "action": str(step.action),
        "kind": step.resource.kind,
        "name": step.resource.label,
        "changes": [change.field for change in step.changes],
    }
