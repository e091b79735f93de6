"""Objects as files: what open(path, "rb") gives, read in ranges."""

import gzip
import io
import random
import tempfile
import zipfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdamr_runtime.errors import CorruptInput, InputChanged
from lambdamr_runtime.files import BUFFER_BYTES, InputFile, Objects
from lambdamr_runtime.splits import Split
from tests.splitting import KEY, CountingStore, stored, whole

STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "line", "into"]), st.integers(-1, 50))
    | st.tuples(st.just("set"), st.integers(0, 120))
    | st.tuples(st.sampled_from(["current", "end"]), st.integers(-120, 30)),
    max_size=12,
)


def step(file: Any, name: str, amount: int) -> object:
    """Do one thing with a file and return what it answers; Any: ours or Python's."""
    try:
        if name == "read":
            return file.read(amount)
        if name == "line":
            return file.readline(amount)
        if name == "into":
            buffer = bytearray(max(0, amount))
            return file.readinto(buffer), buffer
        whence = {"set": io.SEEK_SET, "current": io.SEEK_CUR, "end": io.SEEK_END}[name]
        return file.seek(amount, whence), file.tell()
    except (OSError, ValueError):
        return "refused", file.tell()


@given(
    data=st.binary(max_size=100) | st.just(b"a\nbc\n" * 20),
    steps=STEPS,
    key=st.sampled_from(["a", "a.gz"]),
)
@settings(max_examples=300, deadline=None)
def test_a_file_behaves_as_pythons_own(data: bytes, steps: list[tuple[str, int]], key: str) -> None:
    """Reads, lines and seeks in any order, of plain and of compressed objects."""
    half = len(data) // 2
    packed = gzip.compress(data[:half]) + gzip.compress(data[half:]) if key == "a.gz" else data
    split, store = whole(packed, key)
    stream = Objects().read(split, store)
    with tempfile.NamedTemporaryFile() as written:
        written.write(data)
        written.flush()
        with open(written.name, "rb") as own:
            for file in stream:
                assert [step(file, *each) for each in steps] == [step(own, *each) for each in steps]
    assert (stream.records, stream.owned_bytes) == (1, len(packed))


def test_a_file_has_a_name_and_is_closed_behind_the_mapper() -> None:
    """Its URI; what the mapper keeps of it is closed when the next record comes."""
    split, store = whole(b"abc", KEY)
    kept = []
    for file in Objects().read(split, store):
        assert isinstance(file, InputFile)
        assert file.uri == file.name == f"memory:/{KEY}" == split.uri
        assert (file.mode, file.readable(), file.seekable(), file.writable()) == (
            "rb",
            True,
            True,
            False,
        )
        kept.append(file)
    assert kept[0].closed
    with pytest.raises(ValueError, match="closed"):
        kept[0].read()


def test_only_what_is_asked_for_is_read() -> None:
    """A footer or a column costs its own bytes, not the object's."""
    data = random.Random(1).randbytes(8 * BUFFER_BYTES)
    inner, etag = stored(data)
    store = CountingStore(inner)
    split = Split("memory://", KEY, 0, len(data), len(data), etag)
    for file in Objects().read(split, store):
        assert store.read_bytes == 0
        file.seek(-8, io.SEEK_END)
        assert file.read() == data[-8:]
    assert store.read_bytes <= BUFFER_BYTES


def test_a_zip_archive_is_read_in_place() -> None:
    """Readers that jump about are served: numpy, pandas and pyarrow open objects the same way."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x/y.txt", "hello")
    split, store = whole(packed.getvalue(), "a.zip")
    for file in Objects().read(split, store):
        assert zipfile.ZipFile(file).read("x/y.txt") == b"hello"


def test_text_is_read_through_a_wrapper() -> None:
    """As of any binary file; lines of several buffers are whole."""
    line = "é" * BUFFER_BYTES
    split, store = whole(f"{line}\nb".encode(), KEY)
    for file in Objects().read(split, store):
        assert io.TextIOWrapper(file, "utf-8").read().split("\n") == [line, "b"]


def test_an_empty_object_is_a_file_too() -> None:
    """The mapper is called for it; so it is for an empty compressed object."""
    for key in ("a", "a.gz"):
        split, store = whole(b"", key)
        assert [file.read() for file in Objects().read(split, store)] == [b""]


def test_a_compressed_object_can_be_taken_as_it_is() -> None:
    """compression=None."""
    packed = gzip.compress(b"abc")
    split, store = whole(packed, "a.gz")
    assert [file.read() for file in Objects(compression=None).read(split, store)] == [packed]


def test_a_truncated_object_is_corrupt_when_it_is_read() -> None:
    """A file that is cut off does not just end."""
    split, store = whole(gzip.compress(b"abc" * 100)[:-3], "a.gz")
    with pytest.raises(CorruptInput, match="ends inside a gzip member"):
        [file.read() for file in Objects().read(split, store)]


def test_an_object_that_was_replaced_is_input_changed() -> None:
    """The etag of the plan is asked for with every read."""
    split, store = whole(b"abc", KEY)
    store.put(KEY, b"abd")
    with pytest.raises(InputChanged):
        [file.read() for file in Objects().read(split, store)]


def test_a_part_of_an_object_is_refused() -> None:
    """It is an error of the planner."""
    store, etag = stored(b"abc")
    with pytest.raises(ValueError, match="An object cannot be cut"):
        Objects().read(Split("memory://", KEY, 0, 1, 3, etag), store)
