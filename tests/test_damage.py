"""Any object of a job, damaged in any way at any moment: the right result or a named error."""

import os
import pickle
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lambdamr
from lambdamr.config import load_config
from lambdamr.deployment import Deployment
from lambdamr.submission import StageDraft
from lambdamr.tracking import Poller
from lambdamr_runtime import context
from lambdamr_runtime.errors import CorruptObject, JobFailed, LambdamrError
from lambdamr_runtime.outputs import Note
from lambdamr_runtime.packed import args_span, checked_args, pack_args
from lambdamr_runtime.parts import part_blocks
from lambdamr_runtime.wire import Manifest
from lambdamr_runtime.work import Call
from tests.cluster import Cluster
from tests.test_protocol import (
    LETTERS,
    followed,
    map_drafts,
    map_reduce_drafts,
    square,
    squares,
    tree_drafts,
)

PATIENCE_S = 20.0

BALLAST = "x" * 40_000
"""Makes a job too large for its manifest: function and arguments are objects of their own."""


# --- whole jobs --------------------------------------------------------------------------------


def stored_square(number: int, ballast: str) -> int:
    return square(number)


def stored_drafts() -> list[StageDraft]:
    """A map whose arguments are stored, with results too large for an outcome."""
    drafts = map_drafts()
    args: list[Any] = [((number, BALLAST), {}) for number in range(7)]
    (draft,) = drafts
    return [replace(draft, args=args, work=Call(stored_square), max_failures=0)]


JOBS: dict[str, tuple[Callable[[], list[StageDraft]], object]] = {
    "map": (map_drafts, squares()),
    "stored map": (stored_drafts, squares()),
    "map_reduce": (map_reduce_drafts, LETTERS),
    "tree": (tree_drafts, [28]),
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return other bytes: with a bit flipped, cut, spliced, doubled, or foreign."""
    at = chance.randrange(len(data) + 1)
    kind = chance.randrange(6)
    if kind <= 1 and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at]
    if kind == 3:
        return data[:at] + chance.randbytes(chance.randrange(1, 20)) + data[at:]
    if kind == 4:
        return data + data
    return chance.choice([b"", b"{}", b"null", chance.randbytes(40)])


def harm(cluster: Cluster, chance: random.Random) -> None:
    """Damage or remove one object of the job."""
    keys = sorted(entry.key for entry in cluster.store.list(""))
    key = chance.choice(keys)
    data = cluster.store.get(key)
    if not data or chance.random() < 0.1:
        cluster.store.delete([key])
        cluster.forget(key)
        return
    other = damaged(data, chance)
    cluster.store.put(key, other if other != data else b"")


def outcome_of(name: str, seed: int) -> object:
    """Run a job, damage one object between two events, and return what a client gets: the result,
    or the error.
    """
    chance = random.Random(f"{name} {seed}")
    make, _ = JOBS[name]
    cluster = Cluster(2, seed=seed)
    manifest = cluster.launch(*make())
    moment = chance.randrange(8)
    try:
        for _ in range(moment):
            if cluster.queue:
                cluster.run_one(cluster.queue.pop(0))
        harm(cluster, chance)
        cluster.run_all(limit=200)
        cluster.sweep(manifest)  # as any later look at the job does
        cluster.run_all(limit=200)
    except (LambdamrError, FileNotFoundError) as error:  # the worker's child would say FAILED
        return error
    context.enter(None)
    return read(cluster, manifest)


def read(cluster: Cluster, manifest: Manifest) -> object:
    """Return what a client that comes now reads of a job that nobody works on any more."""
    job = followed(manifest, cluster, Poller(cluster))
    assert job.wait(PATIENCE_S), "it hangs"
    try:
        values = [future.result(0) for future in job.stages[-1].futures]
        if manifest.stages[-1].name != "reduce":
            return values
        read_range = cluster.store.get_range
        pairs: list[tuple[Any, Any]] = []
        for part in values:
            for block in part_blocks(
                lambda at, size, key=part.part: read_range(key, at, size),  # type: ignore[misc]
                part.blocks,
                part.part,
            ):
                pairs += block
        return dict(pairs)
    except (LambdamrError, FileNotFoundError) as error:
        return error


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("part", range(4))
def test_damage_is_noticed(name: str, part: int) -> None:
    """One object of a running job damaged or removed: the exact result all the same, or an error
    of ours that says what is wrong. Never another result, nor another exception.
    """
    kinds: dict[str, int] = {}
    for seed in range(part * 25, (part + 1) * 25):
        found = outcome_of(name, seed)
        if isinstance(found, Exception):
            kinds[type(found).__name__] = kinds.get(type(found).__name__, 0) + 1
        else:
            assert found == JOBS[name][1], seed
            kinds["result"] = kinds.get("result", 0) + 1
    assert len(kinds) > 1, kinds


@pytest.mark.soak
@pytest.mark.parametrize("name", JOBS)
def test_damage_is_noticed_for_long(name: str) -> None:
    """The same, three thousand times each."""
    for seed in range(1000, 4000):
        found = outcome_of(name, seed)
        if not isinstance(found, Exception):
            assert found == JOBS[name][1], seed


def test_damage_is_named_to_who_waits(root: str, tmp_path: Path) -> None:
    """With real workers: stored arguments that are damaged fail the job with the key in the
    message; nothing hangs, and the executor goes on.
    """
    with lambdamr.Executor(workers=1, concurrency=1, root=root) as executor:
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        first = executor.submit(lambda: gate.read_text())
        futures = executor.map(len, [BALLAST, BALLAST + "y"], chunksize=1)
        args = Path(root, "jobs", futures.job_id, "map", "args")
        data = bytearray(args.read_bytes())
        data[-100] ^= 1
        args.write_bytes(data)
        gate.write_text("go")
        assert first.result(PATIENCE_S) == "go"
        assert futures[0].result(PATIENCE_S) == len(BALLAST)
        error = futures[1].exception(PATIENCE_S)
        assert isinstance(error, (CorruptObject, JobFailed))
        assert f"{futures.job_id}/map/args" in str(error)
        assert executor.submit(abs, -1).result(PATIENCE_S) == 1


# --- single objects ----------------------------------------------------------------------------


def found_or_named(read: Callable[[], object], name: str) -> object:
    """Return what is read, or None where that is an error of ours which names its object."""
    error: Exception
    try:
        return read()
    except (CorruptObject, ValueError) as raised:
        error = raised
    assert name in str(error)
    return None


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4), st.data())
def test_changed_arguments_are_noticed(chunks: list[bytes], data: st.DataObject) -> None:
    """Arguments of which one byte was changed, index or content, are those that were packed for
    every chunk that the byte is not of, and CorruptObject for the others.
    """
    packed = bytearray(pack_args(chunks))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    harmed = bytes(packed)

    def read_chunk(chunk: int) -> bytes:
        start, length = args_span(harmed, chunk, len(chunks))
        return checked_args(harmed, chunk, harmed[start : start + length], "args")

    for chunk, sound in enumerate(chunks):
        assert found_or_named(partial(read_chunk, chunk), "arguments") in (sound, None)


NOTE = Note("/output", ("_SUCCESS", "part-00000.csv")).encode()


@given(st.integers(0, len(NOTE) - 1), st.integers(1, 255))
def test_a_changed_note_is_noticed(at: int, change: int) -> None:
    """What the finalizer noted says which files are removed: a changed one is never believed."""
    harmed = NOTE[:at] + bytes([NOTE[at] ^ change]) + NOTE[at + 1 :]
    with pytest.raises(CorruptObject, match="placed"):
        Note.decode(harmed, "placed")


DEPLOYMENT = Deployment(
    "default", "eu-central-1", "s3://bucket/prefix", "worker", "supervisor", "3.12", "arm64", 1,
    1769, 900, 512, {"obstore": "0.12"},
).encode()  # fmt: skip


@given(st.binary(max_size=60), st.integers(0, len(DEPLOYMENT)), st.integers(0, 60))
@example(b"[" * 60 * 1000, 0, 0)
def test_a_damaged_deployment_is_named(foreign: bytes, at: int, length: int) -> None:
    """The record of a deployed runtime that was damaged is a record, or CorruptObject with its
    file.
    """
    harmed = DEPLOYMENT[:at] + foreign + DEPLOYMENT[at + length :]
    found_or_named(partial(Deployment.decode, harmed, "there.json"), "there.json")


CONFIG = b"""
root = "/data/lambdamr"
workers = 8
memory_mb = 2048
timeout_s = 600.5
progress = false
keep_days = 7
"""


@given(st.binary(max_size=30), st.integers(0, len(CONFIG)), st.integers(0, 30))
@example(b"\xff\xfe", 0, 0)
@example(b"x = " + b"[" * 20_000, 0, 0)
@example(b"timeout_s = nan\n", 0, len(CONFIG))
@example(b"timeout_s = " + b"9" * 5000, 0, len(CONFIG))
def test_a_damaged_configuration_is_named(
    tmp_path_factory: pytest.TempPathFactory, foreign: bytes, at: int, length: int
) -> None:
    """A configuration file that was damaged is a configuration, or ValueError with its name."""
    folder = tmp_path_factory.getbasetemp() / "configured"
    folder.mkdir(exist_ok=True)
    path = folder / "config.toml"
    path.write_bytes(CONFIG[:at] + foreign + CONFIG[at + length :])
    found_or_named(partial(load_config, {"LAMBDAMR_CONFIG": str(path)}), str(path))


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A folder in the place of the file is ValueError with its name."""
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be read"):
        load_config({"LAMBDAMR_CONFIG": str(tmp_path)})


@pytest.mark.parametrize("age_s", [float("inf"), 1e15, 1e11])
def test_ages_older_than_time_remove_nothing(root: str, age_s: float) -> None:
    """keep_days = inf keeps everything, and is no error."""
    Path(root, "jobs", "20200101-000000-0123456789ab").mkdir(parents=True)
    assert lambdamr.clean(age_s, root=root) == []


# --- parts -------------------------------------------------------------------------------------


def read_all(data: bytes, table: bytes) -> list[Any]:
    blocks = part_blocks(lambda at, size: data[at : at + size], table, "part-00000")
    return [pair for block in blocks for pair in block]


@given(st.lists(st.lists(st.tuples(st.text(max_size=3), st.integers())), max_size=4), st.data())
def test_a_changed_part_is_noticed(blocks: Sequence[list[Any]], data: st.DataObject) -> None:
    """An output part of which a byte was changed or cut is CorruptObject before it is unpickled."""
    payloads = [pickle.dumps(block) for block in blocks]
    table = b"".join(struct.pack("<QI", len(each), zlib.crc32(each)) for each in payloads)
    whole = b"".join(payloads)
    assert read_all(whole, table) == [pair for block in blocks for pair in block]
    if not whole:
        return
    at = data.draw(st.integers(0, len(whole) - 1))
    for harmed in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
        with pytest.raises(CorruptObject, match="part-00000 is damaged"):
            read_all(harmed, table)
