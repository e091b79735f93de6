"""`executor.reduce`: the stages of a tree of tasks over the values of futures."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lambdamr.submission import StageDraft
from lambdamr_runtime.wire import StageKind
from lambdamr_runtime.work import Call, Fold

if TYPE_CHECKING:
    from lambdamr.futures import Future
    from lambdamr.options import CallOptions


def fold_drafts(
    fn: Callable[[list[Any]], Any],
    values: "Sequence[Future]",
    arity: int,
    options: "CallOptions",
) -> list[StageDraft]:
    """Plan the levels of a reduction: the first calls fn on the futures, the others on what the
    level before has made, down to one task.
    """
    groups = [values[i : i + arity] for i in range(0, len(values), arity)]
    args: list[tuple[Any, dict[str, Any]]] = [((group,), {}) for group in groups]
    call, fold = Call(fn, options.retried), Fold(fn, arity, options.retried)
    limits = (options.timeout_of("reduce"), options.retries, 0)
    limit_mb = options.memory_of("reduce")
    drafts = [
        StageDraft("reduce-1", StageKind.CALL, call, len(args), 1, args, *limits, limit_mb=limit_mb)
    ]
    while drafts[-1].tasks > 1:
        tasks = -(-drafts[-1].tasks // arity)
        name = f"reduce-{len(drafts) + 1}"
        drafts.append(
            StageDraft(name, StageKind.FOLD, fold, tasks, 1, None, *limits, limit_mb=limit_mb)
        )
    return drafts
