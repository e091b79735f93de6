"""Find out from access logs what was asked for, by whom, and what went wrong.

`python examples/log_analysis.py [PATH_OR_URI]`; without one it makes logs of its own, compressed.
"""

import argparse
import gzip
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lambdamr

LINE = re.compile(
    r"(?P<host>\S+) \S+ \S+ \[(?P<day>[^:]+):(?P<hour>\d\d)[^]]*\] "
    r'"(?P<method>\S+) (?P<path>\S+)[^"]*" (?P<status>\d{3}) (?P<bytes>\d+|-)'
)
"""The common log format of Apache and nginx."""


def mapper(line: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield counts under (what is counted, its value)."""
    entry = LINE.match(line)
    if entry is None:
        yield ("not a log line", ""), 1
        return
    yield ("requests by status", entry["status"]), 1
    yield ("requests by hour", entry["hour"]), 1
    yield ("bytes by path", entry["path"]), int(entry["bytes"].replace("-", "0"))
    if entry["status"] >= "500":
        yield ("errors by path", entry["path"]), 1


def write_logs(folder: Path, days: int = 4, requests: int = 2500) -> list[Path]:
    """Write a gzip file per day; the same ones every time."""
    draw = random.Random(1995)
    paths = ["/", "/books/emma", "/books/persuasion", "/search", "/cart"]
    logs = []
    for day in range(1, days + 1):
        logs.append(folder / f"access-{day:02d}.log.gz")
        with gzip.open(logs[-1], "wt") as file:
            for _ in range(requests):
                status = draw.choices((200, 304, 404, 500), (90, 5, 4, 1))[0]
                size = draw.randrange(200, 20_000) if status == 200 else "-"
                file.write(
                    f"10.0.{draw.randrange(4)}.{draw.randrange(256)} - - "
                    f"[{day:02d}/Mar/2026:{draw.randrange(24):02d}:17:03 +0000] "
                    f'"GET {draw.choice(paths)} HTTP/1.1" {status} {size}\n'
                )
    return logs


def analyse(executor: lambdamr.Executor, inputs: Any) -> dict[tuple[str, str], int]:
    """Return the counts; Any: what map_reduce takes as inputs."""
    return executor.map_reduce(mapper, inputs, lambdamr.reducers.sum).result()


def main() -> None:
    options = _parse_options()
    with lambdamr.Executor() as executor, tempfile.TemporaryDirectory() as folder:
        inputs = options.logs or [executor.upload(path) for path in write_logs(Path(folder))]
        counts = analyse(executor, inputs)
    for what in sorted({what for what, _ in counts}):
        found = {value: count for (kind, value), count in counts.items() if kind == what}
        print(f"\n{what}")
        for value, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:5]:
            print(f"{count:12,}  {value}")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Analyse access logs.")
    parser.add_argument("logs", nargs="*", help="paths, globs or URIs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
