"""Wire records: what is encoded is decoded, and damaged bytes are a named error, nothing else."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdamr_runtime.attempts import load_history, save_attempt
from lambdamr_runtime.barrier import EndKind, Report, Totals
from lambdamr_runtime.errors import CorruptObject, RuntimeMismatch
from lambdamr_runtime.keys import StageKeys
from lambdamr_runtime.limits import INFRASTRUCTURE_RETRIES
from lambdamr_runtime.packed import FunctionObject, args_index_bytes, args_span, pack_args
from lambdamr_runtime.store import open_store, unstamped
from lambdamr_runtime.wire import (
    PYTHON_VERSION,
    WIRE_VERSION,
    Death,
    DeathCause,
    Event,
    Frame,
    FrameKind,
    Manifest,
    Outcome,
    Stage,
    StageKind,
    decode_frames,
    encode_frames,
    sealed,
)

KEYS = StageKeys("20260101-000000-aa", "map")
EXECUTION = "0123456789abcdef"

counts = st.integers(0, 2**40)
times = st.floats(0, 1e12)
executions = st.binary(min_size=8, max_size=8).map(bytes.hex)
texts = st.text(max_size=20)
small_bytes = st.binary(max_size=40)

stages = st.builds(
    Stage,
    name=st.sampled_from(["map", "reduce", "reduce-1"]),
    kind=st.sampled_from(StageKind),
    tasks=counts,
    chunksize=st.integers(1, 1000),
    width=st.integers(1, 10_000),
    function=st.sampled_from(["cd" * 32, "ab" * 32]),
    inline_function=small_bytes,
    inline_args=small_bytes,
    has_args=st.booleans(),
    serializer=st.sampled_from(["cloudpickle", "dill"]),
    timeout_s=st.none() | times,
    retries=st.integers(0, 100),
    max_failures=st.none() | counts,
    same_failures=st.booleans(),
    partitions=counts,
    input_bytes=counts,
)
manifests = st.builds(
    Manifest,
    job=texts,
    stages=st.lists(stages, max_size=3).map(tuple),
    created_s=times,
    owner=texts,
)
deaths = st.builds(
    Death,
    cause=st.sampled_from(DeathCause),
    detail=texts,
    chunk=st.integers(-1, 2**40),
    task=st.integers(-1, 2**40),
    execution=executions | st.just(""),
    stack=texts,
    log=texts,
)
events = st.builds(
    Event,
    job=texts,
    stage=st.integers(0, 9),
    lo=counts,
    hi=counts,
    cursor=counts,
    attempt=st.integers(0, 9),
    repair=st.booleans(),
    only=st.lists(counts, max_size=4).map(tuple),
    sent_s=times,
    manifest=st.just(b"") | manifests.map(Manifest.encode),
    death=st.none() | deaths,
)
frames = st.builds(
    Frame,
    kind=st.sampled_from(FrameKind),
    payload=small_bytes,
    log=small_bytes,
    seconds=st.floats(0, 1e6, width=32),
    tries=st.integers(0, 65535),
)
outcomes = st.builds(
    Outcome,
    chunk=counts,
    execution=executions,
    attempt=st.integers(0, 9),
    count=counts,
    failed=counts,
    started_s=times,
    seconds=times,
    peak_mb=times,
    worker=texts,
    frames=small_bytes,
    results=texts,
    queued_s=times,
    cold_s=times,
    load_s=times,
    write_s=times,
)
totals = st.builds(
    Totals, **{name: counts for name in Totals.__match_args__ if name != "task_seconds"},
    task_seconds=times,
)  # fmt: skip
reports = st.builds(
    Report,
    status=st.sampled_from(["done", "failed", "cancelled"]),
    reason=texts,
    ended_s=times,
    stages=st.lists(totals, max_size=3).map(tuple),
    kind=st.sampled_from(EndKind),
)


# --- what is encoded is decoded -----------------------------------------------------------------


@given(manifests)
def test_manifests_come_back(manifest: Manifest) -> None:
    """decode(encode(x)) == x for job manifests, binary parts included."""
    assert Manifest.decode(manifest.encode(), "job.json") == manifest


@given(events)
def test_events_come_back(event: Event) -> None:
    """decode(encode(x)) == x for events, with a manifest that rides along and with a death."""
    assert Event.decode(event.encode()) == event


@given(outcomes)
def test_outcomes_come_back(outcome: Outcome) -> None:
    """decode(encode(x)) == x for outcomes, which carry their execution as a stamp."""
    stamped = outcome.execution.encode() + b"\n" + outcome.encode()
    assert Outcome.decode(stamped, "outcome") == outcome


@given(st.lists(frames, max_size=5))
def test_frames_come_back(listed: list[Frame]) -> None:
    """decode(encode(x)) == x for frames, in order, empty ones included."""
    assert decode_frames(encode_frames(listed), len(listed), "frames") == listed


@given(small_bytes, st.binary(min_size=1, max_size=40))
def test_function_objects_come_back(archive: bytes, pickled: bytes) -> None:
    """decode(encode(x)) == x for function objects, with and without shipped modules."""
    function = FunctionObject(archive, pickled)
    assert FunctionObject.decode(function.encode(), "function") == function


@given(reports)
def test_reports_come_back(report: Report) -> None:
    """decode(encode(x)) == x for reports and tombstones."""
    stamped = EXECUTION.encode() + b"\n" + report.encode()
    assert Report.decode(stamped, "report.json") == report


@given(st.lists(totals, max_size=4))
def test_totals_add_up(listed: list[Totals]) -> None:
    """The sum of totals is the sum of each of their fields."""
    summed = sum(listed, start=Totals())
    for name in Totals.__match_args__:
        assert getattr(summed, name) == sum(getattr(part, name) for part in listed)


@given(st.lists(small_bytes, min_size=1, max_size=8))
def test_packed_arguments_are_found_by_chunk(chunks: list[bytes]) -> None:
    """Each chunk's arguments lie where the index says, and the index alone is enough to tell."""
    packed = pack_args(chunks)
    index = packed[: args_index_bytes(len(chunks))]
    for chunk, data in enumerate(chunks):
        for known in (packed, index):
            start, length = args_span(known, chunk, len(chunks))
            assert packed[start : start + length] == data


@given(deaths, st.dictionaries(st.integers(0, 9), frames, max_size=4))
def test_attempts_come_back(death: Death, kept: dict[int, Frame]) -> None:
    """What a dead execution left is read by the next one: how it died, and what it finished."""
    store = open_store("memory://")
    death = replace(death, chunk=3, execution=EXECUTION)
    save_attempt(store, KEYS, 1, death, kept)
    history = load_history(store, KEYS, 3)
    assert history.deaths == [death]
    assert history.frames == kept
    assert load_history(store, KEYS, 30).deaths == []


def test_attempts_of_several_deaths_add_up() -> None:
    """All attempts of a chunk count, and frames of all of them are kept."""
    store = open_store("memory://")
    for attempt in range(1, INFRASTRUCTURE_RETRIES + 2):
        death = Death(DeathCause.CRASH, "signal 11", 3, 5, f"{attempt:016x}")
        save_attempt(store, KEYS, attempt, death, {attempt: Frame(FrameKind.VALUE, b"x")})
    history = load_history(store, KEYS, 3)
    assert len(history.deaths) == INFRASTRUCTURE_RETRIES + 1
    assert sorted(history.frames) == list(range(1, INFRASTRUCTURE_RETRIES + 2))


def test_many_tries_and_endless_seconds_fit_a_frame() -> None:
    """A frame holds what a task took, however often it was tried."""
    frame = Frame(FrameKind.ERROR, b"x", b"", 1.0, tries=1_000_001)
    assert decode_frames(encode_frames([frame]), 1, "frames")[0].tries == 65535


# --- versions -----------------------------------------------------------------------------------


def test_another_wire_version_is_named() -> None:
    """A record of another release is RuntimeMismatch with both versions and the remedy."""
    for record in (json.loads(EVENT.encode()), json.loads(MANIFEST.encode())):
        record["v"] = WIRE_VERSION + 1
        data = json.dumps(record).encode()
        text = rf"wire version {WIRE_VERSION}, the job {WIRE_VERSION + 1}. Install the same release"
        with pytest.raises(RuntimeMismatch, match=text):
            Manifest.decode(data, "job.json")
        with pytest.raises(RuntimeMismatch, match=text):
            Event.decode(data)


def test_another_python_is_named() -> None:
    """A job of another Python is RuntimeMismatch with both versions."""
    data = replace(MANIFEST, python="3.6").encode()
    with pytest.raises(RuntimeMismatch, match=rf"Python {PYTHON_VERSION}, .* Python 3\.6"):
        Manifest.decode(data, "job.json")


# --- damaged bytes ------------------------------------------------------------------------------

STAGE = Stage(
    "map", StageKind.MAP, 12, 2, 3, "ab" * 32, inline_function=b"\x80\x05", inline_args=b"args"
)
MANIFEST = Manifest("20260101-000000-aa", (STAGE, replace(STAGE, name="reduce")), 1.5, "owner")
DEATH = Death(DeathCause.CRASH, "signal 11 (SIGSEGV)", 3, 7, EXECUTION, "a stack", "a log")
EVENT = Event(
    MANIFEST.job, 1, 0, 4, 2, 1, only=(1, 2), manifest=MANIFEST.encode(), death=DEATH, sent_s=2.5
)
FRAMES = [Frame(FrameKind.VALUE, b"value", b"log", 0.5), Frame(FrameKind.ERROR, b"error")]
OUTCOME = Outcome(3, EXECUTION, 0, 2, 1, 1.5, 0.5, 30.0, "worker", encode_frames(FRAMES))
REPORT = Report("failed", "a reason", 3.5, (Totals(tasks=3), Totals(keys=4)))
STAMP = EXECUTION.encode() + b"\n"
ATTEMPT = KEYS.attempt(3, 1, EXECUTION)


def stored_attempt() -> bytes:
    store = open_store("memory://")
    save_attempt(store, KEYS, 1, DEATH, dict(enumerate(FRAMES)))
    return store.get(ATTEMPT)


def decode_attempt(data: bytes) -> Any:
    store = open_store("memory://")
    store.put(ATTEMPT, data)
    return load_history(store, KEYS, 3)


def decode_outcome(data: bytes) -> Any:
    outcome = Outcome.decode(data, "outcome")
    return decode_frames(outcome.frames, outcome.count, "outcome")


DECODERS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "manifest": (MANIFEST.encode(), lambda data: Manifest.decode(data, "job.json")),
    "event": (EVENT.encode(), Event.decode),
    "outcome": (STAMP + OUTCOME.encode(), decode_outcome),
    "frames": (encode_frames(FRAMES), lambda data: decode_frames(data, 2, "frames")),
    "function": (
        FunctionObject(b"archive", b"pickled").encode(),
        lambda data: FunctionObject.decode(data, "function"),
    ),
    "report": (STAMP + REPORT.encode(), lambda data: Report.decode(data, "report.json")),
    "attempt": (stored_attempt(), decode_attempt),
    "stamped": (STAMP + b"body", lambda data: unstamped(data, "marker")),
    "arguments": (pack_args([b"one", b"two"]), lambda data: args_span(data, 1, 2)),
}
each_decoder = pytest.mark.parametrize("name", DECODERS)


def survives(decode: Callable[[bytes], Any], data: bytes) -> bool:
    """Decode; whether that gave a record. Anything but the two named errors is the test's end."""
    try:
        decode(data)
    except (CorruptObject, RuntimeMismatch):
        return False
    return True


@each_decoder
def test_sound_records_are_read(name: str) -> None:
    """The records of the tests below are sound before they are damaged."""
    data, decode = DECODERS[name]
    assert survives(decode, data)


@each_decoder
def test_every_truncation_is_a_named_error(name: str) -> None:
    """A record that was cut anywhere is CorruptObject, unless what is left is a whole one."""
    data, decode = DECODERS[name]
    whole = {"function": 8 + len(b"archive"), "stamped": len(STAMP) - 1, "arguments": 23}
    for size in range(len(data)):
        assert survives(decode, data[:size]) == (size > whole.get(name, len(data)))


@each_decoder
def test_every_flipped_byte_is_a_record_or_a_named_error(name: str) -> None:
    """Any byte replaced by any of a few telling ones gives a record or a named error."""
    data, decode = DECODERS[name]
    for at in range(len(data)):
        for value in {data[at] ^ 1, data[at] ^ 0x80, *b'0-"[{}n,e\\', 0, 0xFF}:
            survives(decode, data[:at] + bytes([value]) + data[at + 1 :])


@each_decoder
@given(st.data())
def test_random_damage_is_a_record_or_a_named_error(name: str, data: st.DataObject) -> None:
    """Spans replaced by random bytes, or cut out, give a record or a named error."""
    sound, decode = DECODERS[name]
    lo = data.draw(st.integers(0, len(sound)))
    hi = data.draw(st.integers(lo, min(len(sound), lo + 40)))
    survives(decode, sound[:lo] + data.draw(st.binary(max_size=40)) + sound[hi:])


@each_decoder
@given(st.binary(max_size=200))
def test_foreign_bytes_are_a_named_error(name: str, foreign: bytes) -> None:
    """Bytes that were never ours give a named error."""
    survives(DECODERS[name][1], foreign)


@each_decoder
@pytest.mark.parametrize(
    "bomb", [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000], ids=["lists", "objects", "digits"]
)
def test_bombs_are_a_named_error(name: str, bomb: bytes) -> None:
    """JSON that is nested too deep, or a number of too many digits, gives a named error."""
    decode = DECODERS[name][1]
    for data in (bomb, STAMP + bomb, STAMP + b"%d\n" % len(bomb) + bomb, b"9\n" + bomb):
        survives(decode, data)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("name", ["manifest", "event", "report", "outcome", "attempt"])
@given(st.data())
def test_wrong_types_are_a_record_or_a_named_error(name: str, data: st.DataObject) -> None:
    """Records whose JSON is sound but has other types, or lacks fields, give a named error."""
    sound, decode = DECODERS[name]
    begin = sound.index(b"{")
    size = len(sound) - len(encode_frames(FRAMES)) if name in ("outcome", "attempt") else None
    record = json.loads(sound[begin:size])
    target = record
    while True:
        keys: list[Any] = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(target[key], (dict, list)) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    if data.draw(st.booleans()) and isinstance(target, dict):
        del target[key]
    else:
        target[key] = data.draw(json_values)
    header = json.dumps(record).encode()
    if name in ("manifest", "report"):
        record.pop("checksum", None)
        header = sealed(record) if record else b"{}"
    body = encode_frames(FRAMES) if name in ("outcome", "attempt") else b""
    stamp = STAMP if name in ("outcome", "report") else b""
    checksum = crc32(body, crc32(header, crc32(stamp[:-1])))
    head = b"%d %d\n" % (len(header), checksum) if body else b""
    survives(decode, stamp + head + header + body)


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 10**6])
def test_sizes_that_lie_are_a_named_error(size: int) -> None:
    """A frame or a function object that announces more bytes than there are is corrupt."""
    row = struct.pack("<BHfQI", 0, 1, 0.0, size, 3)
    with pytest.raises(CorruptObject, match="frames"):
        decode_frames(row + b"xyz", 1, "frames")
    with pytest.raises(CorruptObject, match="function"):
        FunctionObject.decode(struct.pack("<Q", size) + b"xyz", "function")


@pytest.mark.parametrize("count", [-1, 0, 1, 3, 10**12])
def test_another_number_of_frames_is_a_named_error(count: int) -> None:
    """Frames read with a wrong count are corrupt, and the error names their object."""
    with pytest.raises(CorruptObject, match="some/key"):
        decode_frames(encode_frames(FRAMES), count, "some/key")


@pytest.mark.parametrize("position", range(len(OUTCOME.execution) + len(OUTCOME.encode()) + 1))
def test_every_flipped_bit_of_an_outcome_is_noticed(position: int) -> None:
    """An outcome with one bit changed anywhere, stamp included, is CorruptObject: a damaged
    result that still unpickles must not come back as a value.
    """
    data = bytearray(OUTCOME.execution.encode() + b"\n" + OUTCOME.encode())
    data[position] ^= 1 << position % 8
    with pytest.raises(CorruptObject, match="the outcome"):
        Outcome.decode(bytes(data), "the outcome")


def test_damaged_results_are_noticed() -> None:
    """Results in an object of their own are checked against the outcome that names them."""
    frames = encode_frames(FRAMES)
    outcome = replace(OUTCOME, frames=b"", results="results/3", results_checksum=crc32(frames))
    assert outcome.unpack(frames, "results/3") == FRAMES
    with pytest.raises(CorruptObject, match="results/3"):
        outcome.unpack(frames[:-1] + bytes([frames[-1] ^ 1]), "results/3")
