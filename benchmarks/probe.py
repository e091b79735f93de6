"""One measurement in a process of its own: `python -m benchmarks.probe QUESTION ARGUMENT ...`.

The answer is the last line on stdout, as JSON.
"""

import time

STARTED = time.perf_counter()

import sys  # noqa: E402  # the clock starts before any import of ours

WORKERS = 2


def rates(module: str, tasks: int, rounds: int) -> list[float]:
    """Return tasks per second of a warm system, one figure per round."""
    from benchmarks.systems import open_system

    figures = []
    with open_system(module, WORKERS) as run:
        run(tasks)
        for _ in range(rounds):
            started = time.perf_counter()
            run(tasks)
            figures.append(tasks / (time.perf_counter() - started))
    return figures


def first_result(module: str) -> list[float]:
    """Return the seconds from the start of this program to the first result."""
    from benchmarks.systems import open_system

    with open_system(module, WORKERS) as run:
        run(1)
        return [time.perf_counter() - STARTED]


def outstanding(tasks: int) -> list[float]:
    """Return this process's peak memory in MB (10**6 bytes) when `map` has returned."""
    import resource

    import lambdamr
    from benchmarks.work import noop

    executor = lambdamr.Executor(workers=WORKERS, progress=False)
    futures = executor.map(noop, range(tasks), chunksize=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if len(futures) != tasks:
        raise RuntimeError(f"{len(futures)} futures for {tasks} tasks")
    executor.shutdown(wait=False, cancel_futures=True)
    unit = 1 if sys.platform == "darwin" else 1024
    return [peak * unit / 1e6]


def main() -> None:
    match sys.argv[1:]:
        case ["rates", module, tasks, rounds]:
            figures = rates(module, int(tasks), int(rounds))
        case ["first_result", module]:
            figures = first_result(module)
        case ["outstanding", tasks]:
            figures = outstanding(int(tasks))
        case other:
            sys.exit(f"no such measurement: {' '.join(other)}")
    print(f"\n{figures}", flush=True)


if __name__ == "__main__":
    main()
