"""Living beside others: files that are not ours, jobs that wait, clients that come and go."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lambdamr
from lambdamr import ownership
from lambdamr.inputs import Input, as_input
from lambdamr.ownership import Ownership, is_alive, oldest_client_s, owner_path

LIMIT_S = 30.0
LONG_AGO_S = 1_600_000_000.0


@pytest.fixture
def single(root: str) -> Iterator[lambdamr.Executor]:
    """One worker."""
    with lambdamr.Executor(workers=1, root=root) as executor:
        yield executor


def old_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    return path


def test_cleaning_leaves_what_is_not_ours(tmp_path: Path) -> None:
    """In a directory that is used for other things too, only what bears our names is removed."""
    theirs = [
        old_file(tmp_path / "data" / "mine.csv"),
        old_file(tmp_path / "functions" / "notes.txt"),
        old_file(tmp_path / "jobs" / "2019-runs" / "run.txt"),
        old_file(tmp_path / "jobs" / ".DS_Store"),
    ]
    ours = old_file(tmp_path / "data" / ("0" * 64))
    job = old_file(tmp_path / "jobs" / "20200101-000000-0123456789ab" / "job.json")
    with lambdamr.Executor(workers=1, root=str(tmp_path)) as executor:
        assert executor.submit(abs, -1).result(LIMIT_S) == 1
    assert all(path.exists() for path in theirs)
    assert not job.exists()
    assert not ours.exists()
    old_file(job)
    assert lambdamr.clean(root=str(tmp_path)) == [job.parent.name]
    assert all(path.exists() for path in theirs)


def test_a_negative_age_is_refused(root: str) -> None:
    """An age below zero would remove jobs that have just ended."""
    with pytest.raises(ValueError, match="older_than_s must be >= 0, got -1"):
        lambdamr.clean(-1, root=root)


def test_a_client_that_begins_is_alive_whoever_looks(root: str) -> None:
    """Looking whether a client lives never takes its file away, at whatever moment it begins."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            is_alive(root, "owner")

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for thread in lookers:
        thread.start()
    try:
        for _ in range(300):
            ownership = Ownership(root, "owner")
            ownership.hold()
            assert is_alive(root, "owner")
            ownership.release()
    finally:
        stop.set()
        for thread in lookers:
            thread.join()
    assert not is_alive(root, "owner")


def test_a_call_behind_a_long_map_need_not_wait_for_it(single: lambdamr.Executor) -> None:
    """Lanes take turns: a call made during a long map is served while the map goes on."""
    long = single.map(lambda _: time.sleep(0.05), range(40), chunksize=1)
    assert single.submit(abs, -1).result(LIMIT_S) == 1
    assert not long.done()
    long.cancel()


def test_a_cancelled_task_of_a_map_is_not_run(single: lambdamr.Executor, tmp_path: Path) -> None:
    """A task of a map that is cancelled before its turn never runs."""

    def leave_sign(number: int) -> None:
        time.sleep(0.05)
        (tmp_path / str(number)).touch()

    futures = single.map(leave_sign, range(20), chunksize=1)
    assert futures[19].cancel()
    futures[:19].result(LIMIT_S)
    assert single.submit(abs, -1).result(LIMIT_S) == 1
    assert not (tmp_path / "19").exists()
    assert len(list(tmp_path.iterdir())) - (tmp_path / "root").exists() == 19


def test_calls_that_a_task_leaves_behind_disturb_nobody(single: lambdamr.Executor) -> None:
    """A task may return before its nested calls are done: the worker serves the next events."""

    def leave() -> int:
        nested = lambdamr.Executor()
        first = nested.submit(abs, -1)
        nested.submit(abs, first)
        return 1

    for _ in range(20):
        assert single.submit(leave).result(LIMIT_S) == 1
        assert single.submit(abs, -2).result(LIMIT_S) == 2


def test_damaged_data_is_noticed(single: lambdamr.Executor, root: str) -> None:
    """Data of put() that was changed in the store is CorruptObject, not another value."""
    data = single.put("x" * 1000)
    path = Path(root) / data.key
    path.write_bytes(path.read_bytes().replace(b"xx", b"yx", 1))
    with pytest.raises(lambdamr.CorruptObject, match="data/"):
        single.submit(len, data).result(LIMIT_S)


def test_an_exception_keeps_what_can_travel(single: lambdamr.Executor) -> None:
    """One attribute that cannot be pickled does not cost an exception the others."""

    class ApiError(Exception):
        pass

    def call() -> None:
        error = ApiError("refused")
        error.status = 503  # type: ignore[attr-defined]  # as users do
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    with pytest.raises(ApiError, match="refused") as caught:
        single.submit(call).result(LIMIT_S)
    assert vars(caught.value) == {"status": 503}


@pytest.mark.parametrize("paths", [["nofile.txt"], ["a/b", "c/d"], ["data/*.csv"]])
def test_paths_that_name_nothing_are_no_text(paths: list[str]) -> None:
    """A list of what can only be paths is refused where none of them exists."""
    with pytest.raises(ValueError, match="looks like paths"):
        as_input(paths)
    assert as_input(iter(paths)) == paths


def test_words_are_items() -> None:
    """A list of plain strings stands for its strings."""
    assert as_input(["the quick fox", "jumps. over"]) == ["the quick fox", "jumps. over"]


def test_any_iterable_of_paths_names_files(tmp_path: Path) -> None:
    """What Path.glob gives is an input, like a list of paths."""
    (tmp_path / "a.txt").write_text("a\n")
    found = as_input(tmp_path.glob("*.txt"))
    assert isinstance(found, Input)
    assert [each.key for each in found.objects()] == ["a.txt"]


def test_a_client_that_ends_hides_no_other(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several, one ends while it is asked which of them began first."""
    began = {"a" * 16: 1000.0, "b" * 16: 2000.0, "c" * 16: 3000.0}
    held = [Ownership(root, name) for name in began]
    for each, (name, began_s) in zip(held, began.items(), strict=True):
        each.hold()
        os.utime(owner_path(root, name), (began_s, began_s))
    gone: list[str] = []

    def ends_first(where: str, name: str) -> bool:
        if not gone:
            gone.append(name)
            os.unlink(owner_path(where, name))
        return True

    monkeypatch.setattr(ownership, "is_alive", ends_first)
    assert oldest_client_s(root) == min(
        began_s for name, began_s in began.items() if name not in gone
    )
    for each in held:
        each.release()
