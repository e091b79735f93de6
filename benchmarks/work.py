"""The task that every system runs: by name importable in every worker, and nothing to do."""


def noop(task: int) -> int:
    return task
