"""Files for workers that are elsewhere."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lambdamr
from lambdamr.uploading import READ_BYTES, RENEW_S, upload
from lambdamr_runtime.errors import InputChanged, InputNotFound
from lambdamr_runtime.store import open_store
from tests.faulty_stores import InterceptedStore, Request, T


def test_workers_of_this_machine_read_a_file_where_it_is(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """Nothing is copied, and what is returned is an input."""
    path = tmp_path / "words.txt"
    path.write_text("a b\nb\n")
    uri = executor.upload(path)
    assert uri == str(path)
    job = executor.map_reduce(lambda line: [(line, 1)], uri, lambdamr.reducers.count)
    assert job.result() == {"a b": 1, "b": 1}


def test_a_file_is_copied_once_under_its_hash_and_name(tmp_path: Path) -> None:
    """A second upload of the same bytes writes nothing; other bytes are another object."""
    puts: list[str] = []

    def noting(request: Request, act: Callable[[], T], /) -> T:
        puts.extend([request.key] if request.verb == "put" else [])
        return act()

    store = InterceptedStore(open_store("memory://"), noting)
    path = tmp_path / "words.txt.gz"
    data = bytes(range(256)) * (READ_BYTES // 256) + b"more than one read"
    path.write_bytes(data)
    uri = upload(store, path)
    assert upload(store, str(path)) == uri
    assert uri.endswith("/words.txt.gz")
    assert [store.get(key) for key in puts] == [data]
    path.write_bytes(b"other")
    assert upload(store, path) != uri


def test_a_file_that_changes_meanwhile_is_not_uploaded(tmp_path: Path) -> None:
    """What is stored under a hash is what has it: else a later upload would take it for that."""
    path = tmp_path / "words.txt"
    path.write_text("first")

    def changing(request: Request, act: Callable[[], T], /) -> T:
        if request.verb == "head":
            path.write_text("other")
        return act()

    real = open_store("memory://")
    with pytest.raises(InputChanged, match="written to"):
        upload(InterceptedStore(real, changing), path)
    assert list(real.list("inputs")) == []


class Later:
    """The machine's clock, some time later."""

    def __init__(self, by_s: float) -> None:
        self._by_s = by_s

    def time(self) -> float:
        return time.time() + self._by_s

    def monotonic(self) -> float:
        return time.monotonic() + self._by_s

    def sleep(self, seconds: float) -> None:
        self._by_s += seconds


def test_a_copy_that_is_older_than_a_day_is_put_again(tmp_path: Path) -> None:
    """The bucket removes old objects: whoever uploads has the whole time before him."""
    puts: list[str] = []

    def noting(request: Request, act: Callable[[], T], /) -> T:
        puts.extend([request.key] if request.verb == "put" else [])
        return act()

    store = InterceptedStore(open_store("memory://"), noting)
    path = tmp_path / "words.txt"
    path.write_bytes(b"a b")
    uri = upload(store, path)
    assert upload(store, path, Later(RENEW_S - 60)) == uri
    assert len(puts) == 1
    assert upload(store, path, Later(RENEW_S + 60)) == uri
    assert puts == [puts[0]] * 2
    assert store.get(puts[0]) == b"a b"


def test_a_missing_file_is_named(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """InputNotFound with the path; a directory is no file."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InputNotFound, match=str(path)):
            executor.upload(path)
