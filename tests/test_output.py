"""output=: formats, what is refused, the finalizer under crashes, and what a Job gives."""

import csv
import datetime
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lambdamr
from lambdamr.output import as_output
from lambdamr.submission import StageDraft
from lambdamr_runtime.barrier import Report, end_job
from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.formats import Format
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.mapreduce import Map, Reduce
from lambdamr_runtime.outputs import (
    Destination,
    Final,
    PartFile,
    Placed,
    Written,
    open_destination,
    withdraw,
)
from lambdamr_runtime.store import Store, open_store
from lambdamr_runtime.wire import Manifest, StageKind
from lambdamr_runtime.work import TaskEnv
from tests import cluster as clusters
from tests.cluster import Cluster, Point
from tests.faulty_stores import InterceptedStore

TIMEOUT_S = 60.0
"""A job that takes longer hangs."""


def words(line: str) -> list[tuple[str, int]]:
    return [(word, 1) for word in line.split()]


def pair_itself(pair: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    return [pair]


def total(key: Any, values: Iterator[int]) -> int:
    return sum(values)


def fail_on_b(key: str, values: Iterator[int]) -> int:
    if key == "b":
        raise ValueError("no b, please")
    return sum(values)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


LINES = ["a b c a", "b a", "c d"] * 20
COUNTS = {"a": 60, "b": 40, "c": 40, "d": 20}

# --- formats ------------------------------------------------------------------------------------

TEXTS = st.text(max_size=4) | st.sampled_from(['"', ",", "\n", "\r", "\t", "é", "日本", "a\r\nb"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS.filter(str.isprintable),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def is_text(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@given(st.lists(st.tuples(JSON, JSON), max_size=5))
@settings(max_examples=150, deadline=None)
def test_jsonl_is_one_document_per_line(pairs: list[tuple[Any, Any]]) -> None:
    """Each pair is one line, and json reads back what was written."""
    lines = Format("jsonl").encode(pairs).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [{"key": k, "value": v} for k, v in pairs]


@given(st.lists(st.tuples(TEXTS.filter(is_text), TEXTS.filter(is_text)), max_size=5))
@settings(max_examples=150, deadline=None)
def test_csv_reads_back(pairs: list[tuple[str, str]]) -> None:
    """Delimiters, quotes and line breaks of any kind within a field survive."""
    data = Format("csv").encode(pairs).decode()
    assert [tuple(row) for row in csv.reader(io.StringIO(data, newline=""))] == pairs


def test_columns_name_the_fields() -> None:
    """Tuples spread over several fields: with a header in csv, under these names in jsonl."""
    pairs = [(("a", 2024), 3), (("b", 2025), None)]
    table = Format("csv", ("word", "year", "count"))
    assert table.header + table.encode(pairs) == b"word,year,count\na,2024,3\nb,2025,\n"
    assert Format("jsonl", ("word", "year", "count")).encode(pairs[:1]) == (
        b'{"word":"a","year":2024,"count":3}\n'
    )
    assert Format("jsonl").encode(pairs[:1]) == b'{"key":["a",2024],"value":3}\n'


def test_text_is_key_tab_value() -> None:
    """As Hadoop writes it: where key or value is None, the other alone, without a tab."""
    pairs = [("a", 1), (("b", 2), 0.5), (None, "x\ty"), ("only", None)]
    assert Format("text").encode(pairs) == b"a\t1\n('b', 2)\t0.5\nx\ty\nonly\n"


DAY = datetime.date(2026, 11, 20)
NUMBER = uuid.UUID(int=7)


def test_dates_and_ids_are_written_as_text() -> None:
    """Dates, times and UUIDs have a usual form; a Decimal has one in csv."""
    assert Format("jsonl").encode([(DAY, NUMBER)]) == (
        b'{"key":"2026-11-20","value":"00000000-0000-0000-0000-000000000007"}\n'
    )
    assert Format("csv").encode([(DAY, Decimal("1.50"))]) == b"2026-11-20,1.50\n"


@pytest.mark.parametrize(
    ("form", "pair", "reason"),
    [
        (Format("jsonl"), ("k", float("nan")), "not JSON compliant"),
        (Format("jsonl"), ("k", {1}), "set has no form in JSON"),
        (Format("jsonl"), (b"k", 1), "bytes has no form in JSON"),
        (Format("jsonl"), ("k", "\ud800"), "surrogates not allowed"),
        (Format("jsonl", ("a", "b")), (("k", 1), 2), "it makes 3 fields, columns= names 2"),
        (Format("csv"), ("k", {"a": 1}), "dict is no cell"),
        (Format("csv"), ("k", [1]), "list is no cell"),
        (Format("csv"), ("k", b"v"), "bytes is no cell"),
        (Format("csv", ("a",)), ("k", 2), "it makes 2 fields, columns= names 1"),
        (Format("text"), ("k", "two\nlines"), "line break"),
        (Format("text"), ("k", "two\rlines"), "line break"),
        (Format("text"), ("k\t", 1), "the key has a tab"),
        (Format("text"), ("k", b"v"), "decode them"),
    ],
)
def test_what_a_format_cannot_hold_is_named(
    form: Format, pair: tuple[Any, Any], reason: str
) -> None:
    """The error names key, value, the reason and the way out; the pairs before are not blamed."""
    with pytest.raises(lambdamr.UnwritablePair, match=reason) as caught:
        form.encode([("fine", 1)] * (len(form.columns) != 1) + [pair])
    assert repr(pair[0]) in str(caught.value)
    advised = "columns=" if "fields" in reason else "format="
    assert advised in str(caught.value).split(". ")[-1]


# --- jobs ---------------------------------------------------------------------------------------


def parsed(form: str, name: str, data: bytes) -> Iterator[tuple[Any, Any]]:
    assert name.endswith({"text": ".txt"}.get(form, f".{form}"))
    if form == "pickle":
        stream = io.BytesIO(data)
        while stream.tell() < len(data):
            yield from pickle.load(stream)
        return
    for line in data.decode().splitlines():
        if form == "jsonl":
            row = json.loads(line)
            yield row["key"], row["value"]
        else:
            key, value = line.split("," if form == "csv" else "\t")
            yield key, int(value)


@pytest.mark.parametrize("form", ["pickle", "jsonl", "csv", "text"])
@pytest.mark.parametrize("reducers", [1, 3])
def test_a_folder_gets_one_file_per_partition(
    executor: lambdamr.Executor, tmp_path: Path, form: str, reducers: int
) -> None:
    """Deterministic names, sorted within each, _SUCCESS beside them; result() is what it is."""
    folder = tmp_path / "new" / "counts"
    job = executor.map_reduce(
        words, iter(LINES), total, reducers=reducers, output=folder, format=form
    )
    assert job.result(TIMEOUT_S) == COUNTS
    assert [key for key, _ in job.head(2)] == [key for key, _ in job.items()][:2]
    found = files_in(folder)
    assert found.pop("_SUCCESS") == f"{job.job_id}\n".encode()
    assert job.outputs == [str(folder / name) for name in sorted(found)]
    assert sorted(name.partition(".")[0] for name in found) == [
        f"part-{n:05d}" for n in range(reducers)
    ]
    parts = [list(parsed(form, name, found[name])) for name in sorted(found)]
    assert [pair for part in parts for pair in part] == list(job.items())


@pytest.mark.parametrize("form", ["jsonl", "csv", "text"])
def test_one_file_has_the_parts_in_order(
    executor: lambdamr.Executor, tmp_path: Path, form: str
) -> None:
    """single_file joins the partitions in their order; a csv has its header once."""
    target = tmp_path / "deep" / "counts.dat"
    columns = ["word", "n"] if form == "csv" else None
    job = executor.map_reduce(
        words, iter(LINES), total, reducers=4, output=str(target), format=form,
        single_file=True, columns=columns,
    )  # fmt: skip
    assert job.outputs == [str(target)]
    form_of = Format(form, tuple(columns or ()))
    assert target.read_bytes() == form_of.header + form_of.encode(list(job.items()))
    assert os.listdir(target.parent) == ["counts.dat"]


def test_a_job_without_reducer_writes_what_mappers_yield(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """The parts are those of the map tasks, in the order of the records."""
    job = executor.map_reduce(
        lambda n: [(None, n)], range(1000), None, output=tmp_path / "out", format="text"
    )
    data = b"".join(Path(path).read_bytes() for path in job.outputs)
    assert data.decode().split() == [str(n) for n in range(1000)]
    assert len(job.outputs) == len(job.map_futures) > 1


@pytest.mark.parametrize("single_file", [False, True])
def test_an_empty_job_has_an_empty_output(
    executor: lambdamr.Executor, tmp_path: Path, single_file: bool
) -> None:
    """Nothing to read is no failure: _SUCCESS alone, or a file with the header alone."""
    target = tmp_path / "out"
    job = executor.map_reduce(
        words, iter([]), total, output=target, format="csv", columns=["word", "n"],
        single_file=single_file,
    )  # fmt: skip
    assert job.result(TIMEOUT_S) == {}
    if single_file:
        assert target.read_bytes() == b"word,n\n"
    else:
        assert list(files_in(target)) == ["_SUCCESS"]


def test_large_parts_are_streamed(tmp_path: Path) -> None:
    """Parts of several blocks, larger than one piece of a copy, arrive byte for byte."""
    with lambdamr.Executor(workers=1, root=tmp_path / "root", memory_mb=200) as executor:
        job = executor.map_reduce(
            lambda n: [(n, "x" * 100_000)], range(250), None, output=tmp_path / "out", format="text"
        )
        sizes = [Path(path).stat().st_size for path in job.outputs]
    assert sum(sizes) == sum(len(f"{n}\t{'x' * 100_000}\n") for n in range(250))


# --- failures -----------------------------------------------------------------------------------


def test_a_failed_job_leaves_nothing(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """A reducer that raises: its exception, and no file."""
    job = executor.map_reduce(words, iter(LINES), fail_on_b, output=tmp_path / "out", format="csv")
    with pytest.raises(ValueError, match="no b, please"):
        job.result(TIMEOUT_S)
    assert files_in(tmp_path / "out") == {}


def test_an_unwritable_pair_fails_the_job(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """The error of the format comes back by name."""
    job = executor.map_reduce(
        pair_itself, iter([("a", {1, 2})]), None, output=tmp_path / "out", format="jsonl"
    )
    with pytest.raises(lambdamr.UnwritablePair, match=r"'a'.*set has no form"):
        job.result(TIMEOUT_S)
    assert files_in(tmp_path / "out") == {}


def test_a_folder_that_was_filled_meanwhile_is_left_alone(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """What comes there while the job runs fails the finalizer, and is not touched."""
    gate, out = tmp_path / "gate", tmp_path / "out"
    os.mkfifo(gate)

    def mapper(path: str) -> list[tuple[str, int]]:
        return [(Path(path).read_text(), 1)]

    job = executor.map_reduce(mapper, iter([str(gate)]), total, output=out, format="csv")
    out.mkdir()
    (out / "part-00000.csv").write_text("mine")
    gate.write_text("go")
    with pytest.raises(ValueError, match=r"already holds 'part-00000\.csv'"):
        job.result(TIMEOUT_S)
    assert files_in(out) == {"part-00000.csv": b"mine"}


def test_a_cancelled_job_leaves_nothing(tmp_path: Path) -> None:
    """Cancelled while it maps: no folder is filled, now or later."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with lambdamr.Executor(workers=1, root=tmp_path / "root") as executor:
        job = executor.map_reduce(
            lambda path: [(Path(path).read_text(), 1)], iter([str(gate)]), total,
            output=tmp_path / "out",
        )  # fmt: skip
        assert job.cancel()
        threading.Thread(target=gate.write_text, args=("go",), daemon=True).start()
        with pytest.raises(CancelledError):
            job.result(TIMEOUT_S)
    assert files_in(tmp_path / "out") == {}


# --- refused before launch ------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_refused(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """The first thing found is named, and nothing is touched; so for one file."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"already holds 'notes\.txt'.*overwrite=True"):
        executor.map_reduce(words, iter(LINES), total, output=tmp_path / "out")
    with pytest.raises(ValueError, match=r"out/notes\.txt' exists already.*overwrite=True"):
        executor.map_reduce(
            words, iter(LINES), total, output=tmp_path / "out" / "notes.txt", format="csv",
            single_file=True,
        )  # fmt: skip
    with pytest.raises(ValueError, match="no folder, but a file"):
        executor.map_reduce(words, iter(LINES), total, output=tmp_path / "out" / "notes.txt")
    assert files_in(tmp_path / "out") == {"notes.txt": b"mine"}


def test_overwrite_replaces_the_earlier_result_alone(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """Files of an earlier job go, whatever their number and format; those of others stay."""
    out = tmp_path / "out"

    def run(**options: Any) -> lambdamr.Job:
        job = executor.map_reduce(words, iter(LINES), total, output=out, **options)
        job.wait(TIMEOUT_S)
        return job

    run(reducers=5, format="jsonl")
    (out / "notes.txt").write_text("mine")
    (out / "part-of-mine").write_text("mine")
    (out / "a\tname#7").write_text("mine")
    job = run(reducers=2, format="csv", overwrite=True)
    assert sorted(files_in(out)) == [
        "_SUCCESS", "a\tname#7", "notes.txt", "part-00000.csv", "part-00001.csv", "part-of-mine",
    ]  # fmt: skip
    assert files_in(out)["_SUCCESS"] == f"{job.job_id}\n".encode()
    again = run(reducers=2, format="csv", overwrite=True)
    assert files_in(out)["_SUCCESS"] == f"{again.job_id}\n".encode()


def test_a_failed_job_leaves_the_earlier_result(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """overwrite=True removes nothing before the new result is complete."""
    out = tmp_path / "out"
    executor.map_reduce(words, iter(LINES), total, output=out, format="csv").wait(TIMEOUT_S)
    before = files_in(out)
    job = executor.map_reduce(
        words, iter(LINES), fail_on_b, output=out, format="csv", overwrite=True
    )
    with pytest.raises(ValueError, match="no b, please"):
        job.result(TIMEOUT_S)
    assert files_in(out) == before


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        ("data", "data/out", "lies within the input"),
        ("data/**/*.txt", "data/out", "lies within the input"),
        ("data/", "data", "lies within"),
        ("data/in.txt", "data", "lies within output="),
        ("link", "data/out", "lies within the input"),
        ("data/*", "data/x.csv", "lies within the input"),
        ("data/in.txt", "data/in.txt", "lies within the input"),
    ],
)
def test_an_output_that_the_job_reads_is_refused(
    executor: lambdamr.Executor, tmp_path: Path, inputs: str, output: str, message: str
) -> None:
    """Output within an input, or an input within the output: even with overwrite=True."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.txt").write_text("a b\n")
    (tmp_path / "link").symlink_to("data")
    single = Path(output).suffix != ""
    with pytest.raises(ValueError, match=message):
        executor.map_reduce(
            words, str(tmp_path / inputs), total, output=str(tmp_path / output), overwrite=True,
            single_file=single, format="csv",
        )  # fmt: skip


def test_an_output_beside_what_a_glob_matches_is_fine(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """A glob that does not match the output's files does not read them."""
    for name in ("in.txt", "more.txt"):
        (tmp_path / name).write_text("a b\n")
    job = executor.map_reduce(words, f"{tmp_path}/*.txt", total, output=tmp_path / "out")
    assert job.result(TIMEOUT_S) == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "parquet"}, r"one of \('pickle', 'jsonl', 'csv', 'text'\), got 'parquet'"),
        ({"output": None, "format": "csv"}, "go with output= alone"),
        ({"output": None, "overwrite": True}, "go with output= alone"),
        ({"single_file": True}, "does not go with format='pickle'"),
        ({"format": "text", "columns": ["a"]}, "columns= goes with format= jsonl or csv"),
        ({"format": "csv", "columns": ["a", "a"]}, "must differ"),
        ({"format": "csv", "columns": "ab"}, "must be a list of names"),
        ({"format": "csv", "columns": []}, "must be a list of names"),
        ({"output": "out/", "format": "csv", "single_file": True}, "needs the name of a file"),
        ({"output": "s3://x.csv", "format": "csv", "single_file": True}, "needs the name"),
        ({"output": "s3://"}, "names no bucket"),
        ({"output": ""}, "an empty one"),
        ({"output": "out#1"}, "cannot hold the name 'out#1'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    executor: lambdamr.Executor, options: dict[str, Any], message: str
) -> None:
    """Before anything is looked up or launched."""
    with pytest.raises((ValueError, TypeError), match=message):
        executor.map_reduce(words, ["a"], total, **{"output": "out", **options})


@pytest.mark.parametrize(
    ("uris", "objects", "output"),
    [
        (["s3://b/in/"], [], "s3://b/in/out"),
        (["s3://b"], [], "s3://b/out"),
        (["s3://b/in/**"], [], "s3://b/in/out"),
        (["s3://b/*/part-*"], [], "s3://b/out"),
        ([], ["s3://b/out/x.csv"], "s3://b/out/"),
    ],
)
def test_an_output_of_a_bucket_that_the_job_reads_is_refused(
    uris: list[str], objects: list[str], output: str
) -> None:
    """By the names alone, before the store is asked."""
    destination = as_output(output, "csv", None, overwrite=True, single_file=False)
    assert destination is not None
    with pytest.raises(ValueError, match="lies within"):
        destination.check(uris, objects, open_store("memory://"))


@pytest.mark.parametrize("single_file", [False, True])
def test_a_prefix_that_holds_something_is_refused(single_file: bool) -> None:
    """In an object store as in a directory; the neighbours of one file are no reason."""
    store = open_store("memory://")
    target = "memory://out/all.csv" if single_file else "memory://out"
    destination = as_output(target, "csv", None, overwrite=False, single_file=single_file)
    assert destination is not None
    store.put("output", b"a neighbour")
    destination.check([], [], store)
    store.put("out/all.csv", b"mine")
    told = r"='memory://out/all\.csv' exists" if single_file else r"='memory://out' .* 'all\.csv'"
    with pytest.raises(ValueError, match=told):
        destination.check([], [], store)
    store.delete(["out/all.csv"])
    store.put("out/another.csv", b"mine")
    if single_file:
        destination.check([], [], store)


# --- what a Job gives -----------------------------------------------------------------------------


def test_partitions_come_as_they_complete(executor: lambdamr.Executor) -> None:
    """as_completed gives every partition once, with its pairs; then what made the job fail."""
    job = executor.map_reduce(words, iter(LINES), total, reducers=3)
    parts = {partition: list(pairs) for partition, pairs in job.as_completed(TIMEOUT_S)}
    assert sorted(parts) == [0, 1, 2]
    assert [pair for n in range(3) for pair in parts[n]] == list(job.items())
    failing = executor.map_reduce(words, iter(LINES), fail_on_b)
    with pytest.raises(ValueError, match="no b, please"):
        list(failing.as_completed(TIMEOUT_S))


def test_an_attached_job_knows_its_outputs(tmp_path: Path) -> None:
    """Another process finds the files by the job's id."""
    root, out = str(tmp_path / "root"), tmp_path / "out"
    with lambdamr.Executor(workers=1, root=root) as executor:
        job = executor.map_reduce(words, iter(LINES), total, output=out, format="jsonl")
        job.wait(TIMEOUT_S)
    program = (
        "import lambdamr, sys\n"
        "job = lambdamr.attach(sys.argv[1], root=sys.argv[2])\n"
        "print(*job.outputs, len(job.reduce_futures))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, job.job_id, root],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(out / "part-00000.jsonl"), "1"]


def test_pandas_is_an_extra(tmp_path: Path) -> None:
    """Where it is missing, the message says what to install."""
    program = (
        "import sys; sys.modules['pandas'] = None\n"
        "import lambdamr\n"
        "with lambdamr.Executor(workers=1, root=sys.argv[1]) as executor:\n"
        "    job = executor.map_reduce(lambda n: [(n, n)], range(3), lambda key, values: 1)\n"
        "    try: job.to_pandas()\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    assert "pip install 'lambdamr[pandas]'" in done.stdout


def test_a_frame_has_keys_and_values(executor: lambdamr.Executor) -> None:
    """to_pandas: a row per pair, in the order of items()."""
    pytest.importorskip("pandas")
    job = executor.map_reduce(words, iter(LINES), total, reducers=2)
    frame = job.to_pandas(TIMEOUT_S)
    assert list(frame.columns) == ["key", "value"]
    assert list(frame.itertuples(index=False, name=None)) == list(job.items())


# --- the finalizer under faults -------------------------------------------------------------------


def letters(word: str) -> Iterator[tuple[str, int]]:
    for letter in word:
        yield letter, 1


def fail_on_a(key: str, values: Iterator[int]) -> int:
    if key == "a":
        raise ValueError("no a, please")
    return sum(values)


WORDS = [["abba"], ["cab", "bad"], ["dab"]]
LETTERS = {"a": 5, "b": 5, "c": 1, "d": 2}
CSV = Format("csv", ("letter", "n"))


def open_watched(folder: str, store: Store) -> Destination:
    """Open a folder whose requests are points of the execution that makes them."""
    found = open_destination(folder, store)
    execution = clusters._current.acting if clusters._current is not None else None
    if execution is None or found.source is not None:  # within the job's store, watched already
        return found
    return replace(found, store=InterceptedStore(found.store, execution.point))


def drafts(
    folder: str, single: str = "", overwrite: bool = False, reducer: Callable[..., Any] = total
) -> list[StageDraft]:
    final = Final(folder, CSV, single, overwrite, open_watched)
    return [
        StageDraft(
            "map", StageKind.MAP, Map((letters,), None), 3, 1, WORDS, partitions=2, max_failures=0
        ),
        StageDraft("reduce", StageKind.REDUCE, Reduce(reducer, form=CSV), 2, 1, max_failures=0),
        StageDraft("final", StageKind.FINAL, final, 1, 1, max_failures=0),
    ]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the output of a history goes: within the store of the job, or a directory."""

    directory: Path | None

    def folder(self) -> str:
        return "memory://out" if self.directory is None else str(self.directory)

    def put(self, cluster: Cluster, name: str, data: bytes) -> None:
        self._destination(cluster).store.put(self._destination(cluster).key(name), data)

    def found(self, cluster: Cluster) -> dict[str, bytes]:
        """Return what is there, staged files included."""
        if self.directory is not None:
            return files_in(self.directory)
        found = self._destination(cluster)
        return {name: found.store.get(found.key(name)) for name in found.names()}

    def clear(self) -> None:
        if self.directory is not None and self.directory.exists():
            for path in self.directory.iterdir():
                path.unlink()

    def _destination(self, cluster: Cluster) -> Destination:
        return open_destination(self.folder(), cluster.store)


PLACES = ["copied", "streamed"]


def place_of(kind: str, tmp_path: Path) -> Place:
    return Place(None if kind == "copied" else tmp_path / "out")


def check_output(found: dict[str, bytes], manifest: Manifest) -> None:
    """All parts and _SUCCESS, exact, and nothing else."""
    assert sorted(found) == ["_SUCCESS", "part-00000.csv", "part-00001.csv"]
    assert found["_SUCCESS"] == f"{manifest.job}\n".encode()
    rows = [line for n in (0, 1) for line in found[f"part-0000{n}.csv"].decode().splitlines()]
    assert rows.count("letter,n") == 2
    pairs = [row.split(",") for row in rows if row != "letter,n"]
    assert {key: int(value) for key, value in pairs} == LETTERS
    assert len(pairs) == len(LETTERS)


def check_order(cluster: Cluster) -> None:
    """_SUCCESS is written only when all parts are."""
    last: dict[str, int] = {}
    first_success = None
    for number, request in enumerate(cluster.log.requests):
        name = request.key.rpartition("/")[2]
        if request.verb in ("put", "copy") and name.endswith(".csv") and "jobs/" not in request.key:
            last.setdefault(name, number)
        if request.verb == "put" and name == "_SUCCESS" and first_success is None:
            first_success = number
    assert first_success is not None
    assert len(last) == 2
    assert max(last.values()) < first_success


def check_done(cluster: Cluster, manifest: Manifest) -> None:
    end = cluster.end(manifest)
    assert end is not None
    assert (end.status, end.reason) == ("done", "")
    made, placed = end.stages[1:]
    assert (placed.file_pairs, placed.file_bytes) == (made.file_pairs, made.file_bytes)
    assert placed.file_pairs == 4


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_crash_at_any_point_leaves_an_exact_output(
    tmp_path: Path, kind: str, overwrite: bool
) -> None:
    """One crash before or after any request: all parts, _SUCCESS behind them, nothing else."""
    place = place_of(kind, tmp_path)
    submission = Cluster(2).prepare(*drafts(place.folder(), overwrite=overwrite))

    def run(crashes: Sequence[Point]) -> Cluster:
        place.clear()
        cluster = Cluster(2, crashes=crashes)
        if overwrite:
            for name in ("_SUCCESS", "part-00000.csv", "part-00007.jsonl"):
                place.put(cluster, name, b"old")
        manifest = cluster.submit(submission)
        cluster.run_all()
        check_done(cluster, manifest)
        check_output(place.found(cluster), manifest)
        check_order(cluster)
        assert cluster.log.crashes == len(crashes)
        return cluster

    requests = len(run([]).log.requests)
    for number in range(requests):
        for after in (False, True):
            run([Point(number, after)])


@pytest.mark.parametrize("kind", PLACES)
def test_a_crash_at_any_point_leaves_one_exact_file(tmp_path: Path, kind: str) -> None:
    """The same of one joined object, over an older one."""
    place = place_of(kind, tmp_path)
    submission = Cluster(2).prepare(*drafts(place.folder(), "all.csv", overwrite=True))

    def run(crashes: Sequence[Point]) -> Cluster:
        place.clear()
        cluster = Cluster(2, crashes=crashes)
        place.put(cluster, "all.csv", b"old")
        manifest = cluster.submit(submission)
        cluster.run_all()
        check_done(cluster, manifest)
        (data,) = place.found(cluster).values()
        header, *rows = data.decode().splitlines()
        assert header == "letter,n"
        assert {row.split(",")[0]: int(row.split(",")[1]) for row in rows} == LETTERS
        return cluster

    requests = len(run([]).log.requests)
    for number in range(requests):
        run([Point(number, after=number % 2 == 0)])


@pytest.mark.parametrize("overwrite", [False, True])
def test_overlapping_duplicates_leave_an_exact_output(overwrite: bool) -> None:
    """Every event delivered twice, several executions at a time, crashes among them: exact."""
    place = Place(None)
    for seed in range(60):
        crashes = [Point(60 + seed, seed % 2 == 0)] if seed % 3 == 0 else []
        cluster = Cluster(2, seed=seed, at_once=4, crashes=crashes)
        cluster.copies = 2 + seed % 2
        if overwrite:
            for name in ("_SUCCESS", "part-00000.csv", "part-00002.csv"):
                place.put(cluster, name, b"old")
        manifest = cluster.run(*drafts(place.folder(), overwrite=overwrite))
        check_done(cluster, manifest)
        check_output(place.found(cluster), manifest)


@pytest.mark.parametrize("kind", PLACES)
def test_a_cancellation_at_any_point_leaves_nothing(tmp_path: Path, kind: str) -> None:
    """A tombstone before any request of the finalizer, with a crash behind it or not: what was
    copied is removed; one that comes behind the report changes nothing.
    """
    place = place_of(kind, tmp_path)
    for crash in (None, 0, 1, 3, 6):
        number, ended = 0, False
        while not ended:
            place.clear()
            cluster = CancellingCluster(2)
            cluster.at, cluster.crash_behind = number, crash
            manifest = cluster.run(*drafts(place.folder()))
            end = cluster.end(manifest)
            assert end is not None
            ended = end.status == "done"
            if ended:
                check_output(place.found(cluster), manifest)
            else:
                assert place.found(cluster) == {}
            number += 1
        assert number > 15


class CancellingCluster(Cluster):
    """A client cancels the job before request number *at* of the finalizer's stage."""

    at = -1
    crash_behind: int | None = None
    """Requests from there to a crash."""

    def check_request(self, request: Any, answer: object) -> None:
        super().check_request(request, answer)
        (manifest,) = self._manifests.values()
        if self.acting is not None and self.acting.event.stage == 2:
            if self.at == 0:
                if self.crash_behind is not None:
                    number = len(self.log.requests) - 1 + self.crash_behind
                    self.crashes = frozenset({Point(number, after=True)})
                report = Report("cancelled", "cancelled by the client", self.clock.time())
                end_job(self.store, JobKeys(manifest.job), report)
            self.at -= 1


@pytest.mark.parametrize("kind", PLACES)
def test_a_failed_reducer_leaves_nothing(tmp_path: Path, kind: str) -> None:
    """The finalizer is not even launched."""
    place = place_of(kind, tmp_path)
    cluster = Cluster(2)
    manifest = cluster.run(*drafts(place.folder(), reducer=fail_on_a))
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "failed"
    assert place.found(cluster) == {}
    assert cluster.invocations(2) == 0


@pytest.mark.parametrize("kind", PLACES)
def test_a_finalizer_that_fails_removes_what_it_copied(tmp_path: Path, kind: str) -> None:
    """A part that is damaged, or gone, when the finalizer comes to it: a failed job, nothing
    there, and whatever crashes on the way.
    """
    place = place_of(kind, tmp_path)
    for crash in (None, *range(40)):
        place.clear()
        crashes = [] if crash is None else [Point(60 + crash, after=True)]
        cluster = DamagingCluster(2, crashes=crashes)
        manifest = cluster.run(*drafts(place.folder()))
        end = cluster.end(manifest)
        assert end is not None
        assert end.status == "failed"
        assert place.found(cluster) == {}
        assert any(isinstance(error, CorruptObject) for error in cluster.errors(manifest))


class DamagingCluster(Cluster):
    """The last file of the job loses a byte as the finalizer is launched."""

    def check_order(self, event: Any) -> None:
        super().check_order(event)
        if event.stage == 2:
            (manifest,) = self._manifests.values()
            files = [f.file.key for f in self.values(manifest, 1)]
            self.store.put(files[-1], self.store.get(files[-1])[:-1])


@dataclass(frozen=True, slots=True)
class Lying:
    """A finalizer that places all and says something else."""

    inner: Final

    @property
    def retry_on(self) -> tuple[type[BaseException], ...]:
        return ()

    def run(self, env: TaskEnv, task: int, arg: Any) -> Placed:
        placed = self.inner.run(env, task, arg)
        return replace(placed, pairs=placed.pairs - 1)


def test_receipts_that_differ_fail_the_job_and_leave_nothing() -> None:
    """What was placed must be what was written; else the output goes as well."""
    cluster = Cluster(2)
    *others, final = drafts("memory://out")
    assert isinstance(final.work, Final)
    manifest = cluster.run(*others, replace(final, work=Lying(final.work)))
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "failed"
    assert end.reason.startswith("Receipts differ: tasks wrote 4 pairs")
    assert Place(None).found(cluster) == {}


def test_output_is_withdrawn_once(tmp_path: Path) -> None:
    """After a bad end the folder may belong to another job: no later look removes anything."""
    place = place_of("streamed", tmp_path)
    cluster = DamagingCluster(2)
    manifest = cluster.run(*drafts(place.folder()))
    place.put(cluster, "part-00000.csv", b"of another job")
    withdraw(cluster.store, JobKeys(manifest.job))
    end_job(cluster.store, JobKeys(manifest.job), Report("failed"))
    assert place.found(cluster) == {"part-00000.csv": b"of another job"}


def test_a_result_of_another_job_is_never_withdrawn() -> None:
    """Where _SUCCESS is not this job's, nothing is removed, even if the note names it."""
    place = Place(None)
    cluster = DamagingCluster(2)
    manifest = cluster.launch(*drafts(place.folder()))
    cluster.run_all()
    place.put(cluster, "_SUCCESS", b"of another job")
    place.put(cluster, "part-00000.csv", b"of another job")
    withdraw(cluster.store, JobKeys(manifest.job), again=True)
    assert sorted(place.found(cluster)) == ["_SUCCESS", "part-00000.csv"]


def test_leftovers_of_killed_uploads_are_removed(tmp_path: Path) -> None:
    """A process killed within a local write leaves a file {name}#{number}: it goes too."""
    place = place_of("streamed", tmp_path)

    class KilledInAWrite(Cluster):
        def check_request(self, request: Any, answer: object) -> None:
            super().check_request(request, answer)
            if request.verb == "put" and request.key.endswith("/placed"):
                (tmp_path / "out" / "part-00001.csv#1").write_bytes(b"half")

    cluster = KilledInAWrite(2)
    manifest = cluster.run(*drafts(place.folder()))
    check_output(place.found(cluster), manifest)


# --- files of parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [0, 1, 100, 400_000])
def test_a_part_file_is_what_it_says(pairs: int) -> None:
    """Size, checksum and count are those of the bytes, streamed or not."""
    from zlib import crc32

    store = open_store("memory://")
    file = PartFile(store, "part", CSV)
    for start in range(0, pairs, 1000):
        file.add([(n, "x" * 20) for n in range(start, min(pairs, start + 1000))])
    written = file.close()
    data = store.get("part")
    assert written == Written("part", pairs, len(data), crc32(data))
    assert data == CSV.header + CSV.encode([(n, "x" * 20) for n in range(pairs)])


@pytest.mark.parametrize(
    ("folder", "root", "bucket", "prefix", "source"),
    [
        ("s3://b/out", "s3://b/jobs/root", "s3://b", "out/", "jobs/root/"),
        ("s3://b", "s3://b/jobs/root", "s3://b", "", "jobs/root/"),
        ("s3://b/root/out/", "s3://b/root", "s3://b/root", "out/", ""),
        ("s3://b/out", "s3://c", "s3://b", "out/", None),
        ("s3://b/out", "s3://b", "s3://b", "out/", ""),
        ("s3://b/out", "/tmp", "s3://b", "out/", None),
    ],
)
def test_objects_of_one_bucket_are_copied_by_the_store(
    folder: str,
    root: str,
    bucket: str,
    prefix: str,
    source: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The keys of both ends as the store that holds them knows them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none is asked")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    found = open_destination(folder, Rooted(open_store("memory://"), root))
    assert (found.store.root, found.prefix, found.source) == (bucket, prefix, source)


class Rooted(InterceptedStore):
    """A store that says that it is somewhere else."""

    def __init__(self, inner: Store, root: str) -> None:
        super().__init__(inner, lambda _, act: act())
        self.root = root
