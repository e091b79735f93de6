"""How fast the engine is: map_reduce against hand-written programs, in one run on one machine.

    python -m benchmarks.engine [--only NAME] [--mb 256] [--rounds 5] [--large] [--json FILE]

A reference is the program that somebody would write by hand: two processes, each with a dictionary
over half of the file, and a merge in the parent; or DuckDB. Reference and lambdamr take turns, and
a ratio is that of two medians. The exit status is 1 if a target is missed.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import lambdamr
from lambdamr import reducers

WORKERS = 2
KIB = 1 << 10
MIB = 1 << 20
NOVEL = Path(__file__).resolve().parent.parent / "examples/data/pride_and_prejudice.txt"
KEYS_PER_MB = 2_110
"""540,000 keys in 256 MB."""

LARGE_WORKER_MB = 256
LARGE_PAIRS = 20_000_000
LARGE_KEYS = 4_000_000
HOT_VALUES = 1_000_000
HOT_VALUE_BYTES = 1_000
LARGE_TASKS = 16
DISTINCT_KEYS = 20_000_000
DISTINCT_VALUE_BYTES = 80
"""With a key of 20 digits, 2 GB."""

GROUP_BY_KEY = 2.95
REDUCE_BY_KEY = 1.41
"""What Spark's RDDs take of the same pairs, over one dictionary in one process: 65 and 31 s over
22 s, seen on one machine."""

BLOCK_BYTES = 512 * KIB
"""Of blocks whose words are counted, by hand and by lambdamr: both are fastest with these."""
FRAME_BLOCK_BYTES = 32 * MIB
"""Of blocks that are read as tables: their keys are grouped a block at a time."""


@dataclass(slots=True)
class Result:
    """One line of the table."""

    title: str
    unit: str
    target: str
    bound: float
    """What `figure` must not be above."""
    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    """Of the hand-written program; empty where the bound is absolute."""
    note: str = ""

    @property
    def figure(self) -> float:
        """The ratio of the medians, or the median itself."""
        mine = statistics.median(self.ours)
        return mine / statistics.median(self.reference) if self.reference else mine

    @property
    def ok(self) -> bool:
        return self.figure <= self.bound


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how much is measured."""

    folder: Path
    mb: int
    rounds: int
    executor: lambdamr.Executor

    def words(self) -> Path:
        """Return a text of that many MB."""
        path = self.folder / "words.txt"
        if not path.exists():
            novel = NOVEL.read_bytes()
            path.write_bytes(novel * (self.mb * MIB // len(novel) + 1))
        return path

    def rows(self) -> Path:
        """Return a CSV of that many MB: nine columns of visits, the first is the key."""
        path = self.folder / "rows.csv"
        if not path.exists():
            chosen = random.Random(1)
            with path.open("w") as file:
                while file.tell() < self.mb * MIB:
                    file.write("".join(_row(chosen, self.mb) for _ in range(1000)))
        return path


def _row(chosen: random.Random, mb: int) -> str:
    """Return a row of 156 bytes: address, page, date, revenue, agent, country and so on."""
    key = chosen.randrange(mb * KEYS_PER_MB)
    return (
        f"10.{key >> 16}.{key >> 8 & 255}.{key & 255},{chosen.getrandbits(200):050x},"
        f"2026-01-{chosen.randrange(28) + 1:02d},{chosen.random() * 100:.4f},"
        f"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Firefox/145.0,DEU,de-DE,"
        f"{chosen.getrandbits(40):010x},{chosen.randrange(10)}\n"
    )


# --- the programs of the user ---------------------------------------------------------------------
def count_words(line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word, 1


def sum_column(line: str) -> Iterator[tuple[str, float]]:
    fields = line.split(",")
    yield fields[0], float(fields[3])


def count_block(block: bytes) -> Counter[bytes]:
    return Counter(block.split())


def sum_block(block: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the sums of a block as one table per partition of the users."""
    for table in _summed_table(_table(block)).partition_by("part"):
        yield table["part"][0], table.drop("part")


def join_tables(_: int, tables: Iterator[Any]) -> Any:
    import polars

    return polars.concat(list(tables)).group_by("user").agg(polars.col("amount").sum())


def _table(block: bytes) -> Any:
    import polars

    table = polars.read_csv(block, has_header=False, columns=[0, 3])
    table.columns = ["user", "amount"]
    return table


def _summed_table(table: Any) -> Any:
    import polars

    sums = table.group_by("user").agg(polars.col("amount").sum())
    return sums.with_columns(part=polars.col("user").hash(0) % WORKERS)


def nothing(_: str) -> Iterator[Any]:
    return
    yield


def generate(task: int) -> Iterator[tuple[int, int]]:
    number = task * 7919 + 1
    for value in range(LARGE_PAIRS // LARGE_TASKS):
        number = (number * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        yield number % LARGE_KEYS, value


def generate_distinct(task: int) -> Iterator[tuple[str, bytes]]:
    for value in range(task, DISTINCT_KEYS, LARGE_TASKS):
        key = value * 7_368_787 % DISTINCT_KEYS  # coprime: each key once, in no order
        yield f"{key:020d}", b"%080d" % value


def generate_hot(task: int) -> Iterator[tuple[str, bytes]]:
    for value in range(HOT_VALUES // LARGE_TASKS):
        yield "hot", b"%d/%d" % (task, value) + b"x" * HOT_VALUE_BYTES


def total(_: Any, values: Iterator[int]) -> int:
    return sum(values)


def total_bytes(_: Any, values: Iterator[bytes]) -> int:
    return sum(map(len, values))


# --- the same by hand -----------------------------------------------------------------------------
def _lines(path: str, lo: int, hi: int) -> Iterator[str]:
    """Yield the lines that begin in [lo, hi)."""
    with open(path, "rb") as file:
        if lo:
            file.seek(lo - 1)
            file.readline()
        at = file.tell()
        while at < hi:
            lines = file.readlines(min(1 << 16, hi - at))
            at = file.tell()
            for line in lines:
                yield line.decode()


def _counted(part: tuple[str, int, int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in _lines(*part):
        counts.update(line.split())
    return counts


def _counted_blocks(part: tuple[str, int, int]) -> Counter[bytes]:
    path, lo, hi = part
    counts: Counter[bytes] = Counter()
    with open(path, "rb") as file:
        if lo:
            file.seek(lo - 1)
            file.readline()
        while file.tell() < hi:
            block = file.read(min(BLOCK_BYTES, hi - file.tell())) + file.readline()
            counts.update(block.split())
    return counts


def _by_duckdb(path: Path) -> dict[str, float]:
    """Return the sums that DuckDB finds, in a table as its programs leave it."""
    import duckdb

    with duckdb.connect(config={"threads": WORKERS}) as connection:
        found = connection.execute(
            "SELECT column0 AS user, sum(column3) AS amount FROM read_csv(?, header = false)"
            " GROUP BY ALL",
            [str(path)],
        ).fetchnumpy()
    return {"keys": len(found["user"]), "sum": float(found["amount"].sum())}


def _one_dictionary(_: object) -> int:
    """Group the generated pairs in one process that has all the memory it wants."""
    groups: dict[int, list[int]] = {}
    for task in range(LARGE_TASKS):
        for key, value in generate(task):
            groups.setdefault(key, []).append(value)
    return len({key: sum(values) for key, values in groups.items()})


def _summed(part: tuple[str, int, int]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for line in _lines(*part):
        fields = line.split(",")
        key = fields[0]
        sums[key] = sums.get(key, 0.0) + float(fields[3])
    return sums


def _by_hand(work: Callable[[tuple[str, int, int]], Any], path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    cuts = [size * part // WORKERS for part in range(WORKERS + 1)]
    parts = [(str(path), lo, hi) for lo, hi in pairwise(cuts)]
    with multiprocessing.Pool(WORKERS) as pool:
        first, *others = pool.map(work, parts, 1)
    for other in others:
        for key, value in other.items():
            first[key] = first.get(key, 0) + value
    return dict(first)


# --- what is measured -----------------------------------------------------------------------------
def word_count(setting: Setting) -> Result:
    """A pair per word, reducers.sum, against two processes with a Counter each."""
    result = Result(f"word count, {setting.mb} MB", "s", "<= 1.3 x hand-written", 1.3)
    _take_turns(setting, result, count_words, setting.words(), _counted)
    return result


def sum_by_key(setting: Setting) -> Result:
    """One column of nine by the key in another, against two processes with a dictionary each."""
    result = Result(f"sum by key, {setting.mb} MB CSV", "s", "<= 1.4 x hand-written", 1.4)
    _take_turns(setting, result, sum_column, setting.rows(), _summed)
    return result


def count_blocks(setting: Setting) -> Result:
    """A Counter per block of whole lines, against two processes that count such blocks."""
    result = Result(f"word count by blocks, {setting.mb} MB", "s", "<= 1.1 x hand-written", 1.1)
    source = lambdamr.blocks(str(setting.words()), block_bytes=BLOCK_BYTES)
    _take_turns(setting, result, count_block, setting.words(), _counted_blocks, source)
    return result


def sum_tables(setting: Setting) -> Result:
    """The sum by key with polars in the mapper, against DuckDB; the result of both is tables."""
    result = Result(f"sum by key with polars, {setting.mb} MB CSV", "s", "<= 2 x DuckDB", 2.0)
    missing = [name for name in ("duckdb", "polars") if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"sum-tables needs {' and '.join(missing)}: pip install duckdb polars")
    path = setting.rows()
    source = lambdamr.blocks(str(path), block_bytes=FRAME_BLOCK_BYTES)
    for _ in range(setting.rounds):
        began = time.perf_counter()
        expected = _by_duckdb(path)
        between = time.perf_counter()
        job = setting.executor.map_reduce(sum_block, source, join_tables)
        tables = list(job.result().values())
        ended = time.perf_counter()
        result.reference.append(between - began)
        result.ours.append(ended - between)
        found = sum(float(table["amount"].sum()) for table in tables)
        if sum(map(len, tables)) != expected["keys"] or abs(found / expected["sum"] - 1) > 1e-9:
            raise SystemExit(f"{result.title}: {sum(map(len, tables))} keys, DuckDB {expected}")
    return result


def per_record(setting: Setting) -> Result:
    """What a record costs beside reading it: a mapper that yields nothing, and a bare loop."""
    result = Result("framework per record", "us", "<= 0.25 us", 0.25)
    source = lambdamr.lines(str(setting.words()), split_bytes=setting.mb * MIB * 2)
    for _ in range(setting.rounds):
        (future,) = setting.executor.map(_bare_and_engine, [source])
        result.ours.append(future.result())
    return result


def _bare_and_engine(source: Any) -> float:
    """Return the microseconds per record that Map takes over a loop that calls the mapper."""
    from itertools import chain, islice

    from lambdamr_runtime.pairs import mapped
    from lambdamr_runtime.store import open_store

    def seconds(consume: Callable[[Any], object]) -> tuple[float, int]:
        count = 0
        began = time.perf_counter()
        for split in chain.from_iterable(source.tasks(1, 10_000)):
            stream = source.reader.read(split, open_store(split.root))
            consume(chain.from_iterable(stream.batches()))
            count += stream.records
        return time.perf_counter() - began, count

    def bare(records: Any) -> None:
        for _ in records:
            pass

    def engine(records: Any) -> None:
        stream = mapped(nothing, records)
        while list(islice(stream, 512)):
            pass

    loop, count = seconds(bare)
    ours, _ = seconds(engine)
    return (ours - loop) / count * 1e6


def small_job(setting: Setting) -> Result:
    """What a job costs that has next to nothing to do: planning, launches, barrier, report."""
    result = Result("map_reduce of 8 items", "ms", "<= 100 ms", 100.0)
    for _ in range(4 * setting.rounds):
        began = time.perf_counter()
        setting.executor.map_reduce(lambda n: [(n, n)], range(8), reducers.sum).result()
        result.ours.append((time.perf_counter() - began) * 1000)
    return result


def group_plain(setting: Setting) -> Result:
    """20 million pairs, 4 million keys, a plain reducer, workers of 256 MB."""
    result = _large(setting, "group 20 M pairs, plain", 65.0, generate, total)
    return _beside_one_dictionary(result, GROUP_BY_KEY)


def group_sum(setting: Setting) -> Result:
    """The same with reducers.sum."""
    result = _large(setting, "group 20 M pairs, sum", 31.0, generate, reducers.sum)
    return _beside_one_dictionary(result, REDUCE_BY_KEY)


def _beside_one_dictionary(result: Result, bound: float) -> Result:
    began = time.perf_counter()
    with multiprocessing.Pool(1) as pool:
        pool.map(_one_dictionary, [None])
    result.reference.append(time.perf_counter() - began)
    result.bound = bound
    result.target = f"<= {bound} x one dict"
    return result


def group_distinct(setting: Setting) -> Result:
    """2 GB of pairs by 20 million keys, each of which comes once."""
    return _large(setting, "group 2 GB by 20 M keys", 300.0, generate_distinct, total_bytes)


def hot_key(setting: Setting) -> Result:
    """One key with 1 GB of values, streamed."""
    return _large(setting, "one key of 1 GB", 60.0, generate_hot, total_bytes)


def _large(setting: Setting, title: str, bound: float, mapper: Any, reducer: Any) -> Result:
    result = Result(f"{title}, {LARGE_WORKER_MB} MB", "s", f"<= {bound:.0f} s", bound)
    with lambdamr.Executor(
        workers=WORKERS,
        memory_mb=LARGE_WORKER_MB,
        progress=False,
        root=str(setting.folder / "large"),
    ) as executor:
        began = time.perf_counter()
        job = executor.map_reduce(mapper, range(LARGE_TASKS), reducer, reducers=4)
        pairs = sum(1 for _ in job.items())
        result.ours.append(time.perf_counter() - began)
        futures = (*job.map_futures, *job.reduce_futures)
        peak = max(future.stats.peak_mb for future in futures)
        spilled = sum(totals.spilled_bytes for totals in job.report().stages.values())
        result.note = f"{pairs:,} keys, worker peak {peak:.0f} MB, spilled {spilled / 1e6:,.0f} MB"
    return result


WORKS: dict[str, Callable[[Setting], Result]] = {
    "word-count": word_count,
    "count-blocks": count_blocks,
    "sum-by-key": sum_by_key,
    "sum-tables": sum_tables,
    "per-record": per_record,
    "small-job": small_job,
}
LARGE_WORKS: dict[str, Callable[[Setting], Result]] = {
    "group-plain": group_plain,
    "group-sum": group_sum,
    "group-distinct": group_distinct,
    "hot-key": hot_key,
}


def _take_turns(
    setting: Setting,
    result: Result,
    mapper: Any,
    path: Path,
    work: Callable[..., Any],
    source: Any = None,
) -> None:
    for _ in range(setting.rounds):
        began = time.perf_counter()
        expected = _by_hand(work, path)
        between = time.perf_counter()
        job = setting.executor.map_reduce(mapper, source or str(path), reducers.sum)
        found = job.result()
        ended = time.perf_counter()
        result.reference.append(between - began)
        result.ours.append(ended - between)
        if found.keys() != expected.keys():
            raise SystemExit(f"{result.title}: {len(found)} keys, by hand {len(expected)}")
    phases = job.report().stages["map"]
    result.note = (
        f"map tasks {phases.task_seconds:.1f} s: read {phases.read_s:.1f}, map {phases.map_s:.1f}, "
        f"combine {phases.combine_s:.1f}, sort {phases.sort_s:.1f}, write {phases.write_s:.1f}"
    )


def table(results: list[Result]) -> str:
    """Return the results as text."""
    rows = [("work", "lambdamr", "by hand", "ratio", "target", "ok?", "")]
    for result in results:
        by_hand = statistics.median(result.reference) if result.reference else None
        rows.append(
            (
                result.title,
                f"{statistics.median(result.ours):.2f} {result.unit}",
                f"{by_hand:.2f} {result.unit}" if by_hand else "",
                f"{result.figure:.2f}" if by_hand else "",
                result.target,
                "yes" if result.ok else "NO",
                result.note,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main() -> int:
    options = _parse_options()
    works = {**WORKS, **LARGE_WORKS} if options.large or options.only else WORKS
    results: list[Result] = []
    with (
        tempfile.TemporaryDirectory(prefix="lambdamr-bench-") as folder,
        lambdamr.Executor(
            workers=WORKERS, progress=False, root=os.path.join(folder, "jobs")
        ) as executor,
    ):
        executor.map(abs, range(WORKERS * 8)).result()
        setting = Setting(Path(folder), options.mb, options.rounds, executor)
        for name in options.only or works:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            results.append(works[name](setting))
    print(table(results))
    client = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"client peak {client:.0f} MB")
    if options.json:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        document = {
            "machine": machine,
            "results": [{**asdict(result), "ok": result.ok} for result in results],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(result.ok for result in results) else 1


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description="Measure map_reduce against hand-written programs.",
    )
    names = ", ".join((*WORKS, *LARGE_WORKS))
    parser.add_argument(
        "--only",
        action="append",
        choices=(*WORKS, *LARGE_WORKS),
        metavar="NAME",
        help=f"measure this alone; may be repeated ({names})",
    )
    parser.add_argument("--mb", type=int, default=256, help="size of the inputs (256)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each pair (5)")
    parser.add_argument("--large", action="store_true", help="and what outgrows a worker's memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
