"""Queries 1a, 1b and 2a of the AMPLab Big Data Benchmark, over tables that this program makes.

    1a, 1b  SELECT pageURL, pageRank FROM rankings WHERE pageRank > 1000 (> 100)
    2a      SELECT SUBSTR(sourceIP, 1, 8), SUM(adRevenue) FROM uservisits GROUP BY 1

`python examples/big_data_benchmark.py --rows 1000000 --verify`; to verify, `pip install duckdb`.
Schema: https://amplab.cs.berkeley.edu/benchmark/ (Pavlo et al., SIGMOD 2009). Files are CSV without
a header.
"""

import argparse
import gzip
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import lambdamr

RANKINGS = ("pageURL", "pageRank", "avgDuration")
USER_VISITS = (
    "sourceIP", "destURL", "visitDate", "adRevenue", "userAgent", "countryCode", "languageCode",
    "searchWord", "duration",
)  # fmt: skip

PREFIX_CHARS = 8
"""X of SUBSTR(sourceIP, 1, X): 8, 10 and 12 are queries 2a, 2b and 2c."""


def rankings_of(task: int, rows: int) -> Iterator[str]:
    """Yield rows of Rankings; a few pages have most of the rank."""
    draw = random.Random(task)
    for row in range(rows):
        rank = int(draw.paretovariate(0.7))
        yield f"url{task:04d}{row:08d},{min(rank, 100_000)},{draw.randrange(1, 100)}\n"


def user_visits_of(task: int, rows: int) -> Iterator[str]:
    """Yield rows of UserVisits."""
    draw = random.Random(-1 - task)
    agents = ("Mozilla/5.0", "Opera/9.80", "Lynx/2.8")
    countries = (("USA", "en-us"), ("DEU", "de-de"), ("JPN", "ja-jp"))
    first = date(1990, 1, 1)
    for _ in range(rows):
        source = ".".join(str(draw.randrange(256)) for _ in range(4))
        url = f"url{task:04d}{draw.randrange(rows):08d}"
        day = first + timedelta(days=draw.randrange(12_000))
        country, language = draw.choice(countries)
        yield (
            f"{source},{url},{day},{draw.random():.4f},{draw.choice(agents)},{country},{language},"
            f"word{draw.randrange(1000)},{draw.randrange(1, 11)}\n"
        )


def write_table(
    folder: Path, name: str, rows: int, files: int, compressed: bool = False
) -> list[Path]:
    """Write a table as CSV files, `.gz` where compressed; the same ones every time."""
    rows_of = {"rankings": rankings_of, "uservisits": user_visits_of}[name]
    paths = []
    for task in range(files):
        share = rows * (task + 1) // files - rows * task // files
        paths.append(folder / f"{name}-{task:04d}.csv{'.gz' if compressed else ''}")
        opened: Any = gzip.open if compressed else open
        with opened(paths[-1], "wt") as file:
            file.writelines(rows_of(task, share))
    return paths


def table(uris: Sequence[str], names: Sequence[str], columns: Sequence[str]) -> Any:
    return lambdamr.csv(
        *uris, header=list(names), columns=list(columns), tuples=True, quoted_newlines=False
    )


def scan(executor: lambdamr.Executor, rankings: Sequence[str], above: int) -> lambdamr.Job:
    """Queries 1a and 1b: pages and ranks above a rank, in no order that matters."""

    def mapper(row: tuple[str, str]) -> Iterator[tuple[str, int]]:
        url, rank = row
        if int(rank) > above:
            yield url, int(rank)

    return executor.map_reduce(mapper, table(rankings, RANKINGS, ("pageURL", "pageRank")), None)


def revenue(executor: lambdamr.Executor, visits: Sequence[str], chars: int) -> lambdamr.Job:
    """Query 2: ad revenue by the first characters of the address."""

    def mapper(row: tuple[str, str]) -> Iterator[tuple[str, float]]:
        source, amount = row
        yield source[:chars], float(amount)

    columns = ("sourceIP", "adRevenue")
    return executor.map_reduce(mapper, table(visits, USER_VISITS, columns), lambdamr.reducers.sum)


def verify(folder: Path, found: dict[str, dict[str, float]]) -> None:
    """Compare with DuckDB's answers.

    Raises:  SystemExit: they differ.
    """
    import duckdb  # only who asks for it needs it

    def rows_of(name: str, names: Sequence[str]) -> str:
        return f"read_csv('{folder}/{name}-*', header = false, names = {list(names)})"

    rankings, visits = rows_of("rankings", RANKINGS), rows_of("uservisits", USER_VISITS)
    prefix = f"SUBSTR(sourceIP, 1, {PREFIX_CHARS})"
    queries = {
        "1a": f"SELECT pageURL, pageRank FROM {rankings} WHERE pageRank > 1000",
        "1b": f"SELECT pageURL, pageRank FROM {rankings} WHERE pageRank > 100",
        "2a": f"SELECT {prefix}, SUM(adRevenue) FROM {visits} GROUP BY 1",
    }
    for name, query in queries.items():
        expected: dict[str, float] = dict(duckdb.execute(query).fetchall())
        mine = found[name]
        same = mine.keys() == expected.keys() and all(
            math.isclose(mine[key], expected[key], rel_tol=1e-9) for key in expected
        )
        if not same:
            raise SystemExit(f"query {name}: {len(mine)} rows, DuckDB has {len(expected)} others")
        print(f"query {name}: the same {len(expected):,} rows as DuckDB's")


def main() -> None:
    options = _parse_options()
    with lambdamr.Executor() as executor, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, files = options.rows, options.files
        rankings = write_table(folder, "rankings", rows, files, options.gzip)
        visits = write_table(folder, "uservisits", rows, files, options.gzip)
        ranking_uris = [executor.upload(path) for path in rankings]
        visit_uris = [executor.upload(path) for path in visits]
        found = {}
        jobs: dict[str, Callable[[], lambdamr.Job]] = {
            "1a": lambda: scan(executor, ranking_uris, 1000),
            "1b": lambda: scan(executor, ranking_uris, 100),
            "2a": lambda: revenue(executor, visit_uris, PREFIX_CHARS),
        }
        for query, launch in jobs.items():
            begun = time.monotonic()
            found[query] = launch().result()
            seconds = time.monotonic() - begun
            print(f"query {query}: {len(found[query]):,} rows in {seconds:.2f} s")
        if options.verify:
            verify(folder, found)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run queries of the AMPLab Big Data Benchmark.")
    parser.add_argument("--rows", type=int, default=100_000, metavar="N", help="rows of each table")
    parser.add_argument("--files", type=int, default=4, metavar="N", help="files of each table")
    parser.add_argument("--gzip", action="store_true", help="compress them")
    parser.add_argument("--verify", action="store_true", help="compare with DuckDB")
    return parser.parse_args()


if __name__ == "__main__":
    main()
