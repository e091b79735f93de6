"""What of a function's memory the process for tasks may take."""

from lambdamr_runtime.limits import GROWTH_MB, GROWTH_SHARE, RUNTIME_MEMORY_MB


def task_memory_mb(function_mb: int) -> int:
    """Return the limit of the process for tasks.

    The rest is others', and what a process may grow by before its watchdog looks again: it has to
    be stopped by us, who can tell of it, before AWS stops the whole sandbox.
    """
    return function_mb - RUNTIME_MEMORY_MB - min(GROWTH_MB, int(function_mb * GROWTH_SHARE))
