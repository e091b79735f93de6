"""What every store must do, and the rule that every commit stands on: read the winner."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore

from lambdamr_runtime.errors import CorruptObject, InputChanged, StoreError
from lambdamr_runtime.keys import new_execution_id
from lambdamr_runtime.store import (
    CREATE_TRIES,
    STAMP_BYTES,
    ObstoreStore,
    Store,
    local_path,
    open_store,
    unstamped,
)
from tests.faulty_stores import Answer, InterceptedStore, MisleadingStore, Outage, Request, T

OURS, THEIRS = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture(params=["memory", "directory", "file URL", "intercepted"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Every kind of store that needs no network, and a wrapper that changes nothing."""
    opened: dict[str, Callable[[], Store]] = {
        "memory": lambda: open_store("memory://"),
        "directory": lambda: open_store(str(tmp_path / "root")),
        "file URL": lambda: open_store((tmp_path / "a root").as_uri()),
        "intercepted": lambda: InterceptedStore(open_store("memory://"), Outage(0)),
    }
    return opened[request.param]()


@pytest.fixture(params=["memory", "directory"])
def misleading(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[list[Answer]], MisleadingStore]:
    """Makes a store whose conditional puts are answered as told."""
    backend = MemoryStore() if request.param == "memory" else LocalStore(prefix=tmp_path)
    return lambda answers: MisleadingStore(request.param, backend, answers)


# --- the contract -------------------------------------------------------------------------------


def test_what_is_put_is_read_and_replaced(store: Store) -> None:
    """`get` returns the last `put`, whole, empty objects included."""
    store.put("jobs/a", b"first")
    store.put("jobs/a", b"second")
    store.put("jobs/empty", b"")
    assert store.get("jobs/a") == b"second"
    assert store.get("jobs/empty") == b""


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, 3, b"abc"),
        (2, 3, b"cde"),
        (5, 1, b"f"),
        (0, 6, b"abcdef"),
        (4, 100, b"ef"),
        (6, 1, b""),
        (600, 4, b""),
        (2, 0, b""),
    ],
)
def test_a_range_is_cut_at_the_end(store: Store, start: int, length: int, expected: bytes) -> None:
    """A range gives what there is of it: some at the end, nothing beyond; with an etag too."""
    store.put("data/x", b"abcdef")
    assert store.get_range("data/x", start, length) == expected
    etag = store.head("data/x").etag
    assert store.get_range("data/x", start, length, etag) == expected


@pytest.mark.parametrize("name", ["x", "a/b c", "ü/%20", "a+b&c=d"])
def test_a_version_of_a_local_file_is_read_without_obstore(
    root: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has the etag still is read by this process; all else is left to obstore."""
    store = open_store(root)
    store.put(name, b"abcdef")
    etag = store.head(name).etag
    monkeypatch.setattr(obstore, "get", None)
    assert bytes(store.view_range(name, 2, 3, etag)) == b"cde"
    assert bytes(store.view_range(name, 4, 9, etag)) == b"ef"
    with pytest.raises(TypeError, match="not callable"):
        store.view_range(name, 2, 3, "of another version")
    with pytest.raises(TypeError, match="not callable"):
        store.view_range("missing", 2, 3, etag)


def test_a_range_of_an_empty_object_is_empty(store: Store) -> None:
    """An object of no bytes is there, and any range of it is empty."""
    store.put("data/empty", b"")
    assert store.get_range("data/empty", 0, 17) == b""


def test_a_range_of_another_version_is_refused(store: Store) -> None:
    """With the etag of an older version a range raises InputChanged that names the object."""
    store.put("data/x", b"old")
    etag = store.head("data/x").etag
    store.put("data/x", b"newer")
    with pytest.raises(InputChanged, match="data/x is not the object that was planned"):
        store.get_range("data/x", 0, 2, etag)


@pytest.mark.parametrize("key", ["jobs/x", "jobs/20260416-101112-aa/job.json", "jobs/InvalidRange"])
def test_what_is_missing_is_file_not_found(store: Store, key: str) -> None:
    """Reads of a missing key raise FileNotFoundError with root and key, whatever its name is."""
    name = f"{store.root}/{key}".replace("+", r"\+")
    with pytest.raises(FileNotFoundError, match=name):
        store.get(key)
    with pytest.raises(FileNotFoundError, match=name):
        store.get_range(key, 0, 10)
    with pytest.raises(FileNotFoundError, match=name):
        store.get_range(key, 0, 10, "etag")
    with pytest.raises(FileNotFoundError, match=name):
        store.head(key)
    assert not store.exists(key)


def test_head_tells_size_and_version(store: Store) -> None:
    """`head` has the size in bytes and an etag that changes with the content."""
    store.put("data/x", b"1234")
    first = store.head("data/x")
    store.put("data/x", b"123456")
    second = store.head("data/x")
    assert (first.key, first.size, second.size) == ("data/x", 4, 6)
    assert first.etag
    assert first.etag != second.etag
    assert store.exists("data/x")


@pytest.mark.parametrize(
    "key", ["a", "a/b", "a/b.c", "a/b/c", "a/x", "_a-1/b", "a b", "a%20b", "\u00e4/b", ".a", "a~b"]
)
def test_what_exists_has_a_head(store: Store, key: str) -> None:
    """Folders are no objects, and no name is told from another by its file alone."""
    for there in ("a/b", "_a-1/b", "a b", "a%20b", "\u00e4/b", ".a", "a~b"):
        store.put(there, b"x")

    def answer(ask: Callable[[str], object]) -> object:
        try:
            return bool(ask(key))
        except FileNotFoundError:
            return False
        except StoreError as error:
            return str(error)

    assert answer(store.exists) == answer(store.head)


def test_a_relative_root_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever folder the process goes to."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = open_store("stored")
    store.put("a", b"x")
    monkeypatch.chdir("elsewhere")
    assert store.exists("a")
    assert store.get_range("a", 0, 1, store.head("a").etag) == b"x"


def test_a_list_takes_whole_segments(store: Store) -> None:
    """`list` yields what lies under a prefix, at any depth, and not what only begins like it."""
    for key in ("jobs/a/1", "jobs/a/b/2", "jobs/ab/3", "jobs/a.json", "other/4"):
        store.put(key, key.encode())
    assert {entry.key for entry in store.list("jobs/a/")} == {"jobs/a/1", "jobs/a/b/2"}
    assert {entry.key for entry in store.list("jobs/a")} == {"jobs/a/1", "jobs/a/b/2"}
    assert {entry.key: entry.size for entry in store.list("other")} == {"other/4": 7}
    assert list(store.list("nothing/")) == []


def test_a_list_has_every_entry(store: Store) -> None:
    """A listing is not cut where it outgrows a page."""
    for number in range(1200):
        store.put(f"many/{number}", b"")
    assert {entry.key for entry in store.list("many/")} == {f"many/{n}" for n in range(1200)}


def test_delete_removes_what_is_there(store: Store) -> None:
    """Deleted objects are gone; a key that is not there is no error, and no others are touched."""
    store.put("a/1", b"")
    store.put("a/2", b"")
    store.delete(["a/1", "a/none", "b/none"])
    assert [entry.key for entry in store.list("a/")] == ["a/2"]
    store.delete([])


def test_a_copy_is_another_object(store: Store) -> None:
    """It replaces what was there, and stays when its source goes; without a source, no copy."""
    store.put("from", b"data")
    store.put("dir/to", b"older")
    store.copy("from", "dir/to")
    store.delete(["from"])
    assert store.get("dir/to") == b"data"
    with pytest.raises(FileNotFoundError):
        store.copy("from", "dir/other")


def test_an_upload_appears_when_it_is_closed(store: Store) -> None:
    """Small and large: nothing before its end, all of it then; one that is dropped leaves none."""
    for pieces in ([], [b"a", b"", b"b"], [b"x" * 5_000_000] * 4):
        upload = store.upload("dir/up")
        for piece in pieces:
            upload.write(piece)
        assert not store.exists("dir/up")
        upload.close()
        assert store.get("dir/up") == b"".join(pieces)
        store.delete(["dir/up"])
    dropped = store.upload("dir/up")
    dropped.write(b"x" * 5_000_000)
    del dropped
    assert not store.exists("dir/up")


def test_names_with_odd_characters_come_back(store: Store) -> None:
    """A key with blanks, percent signs or letters beyond ASCII is listed and read by its name."""
    for key in ("odd/a b", "odd/100%", "odd/ü", "odd/a+b"):
        store.put(key, key.encode())
        assert store.get(key) == key.encode()
    assert {entry.key for entry in store.list("odd/")} == {
        "odd/a b", "odd/100%", "odd/ü", "odd/a+b",
    }  # fmt: skip


def test_a_refusal_names_verb_key_and_root(tmp_path: Path) -> None:
    """What a store refuses is a StoreError: one short line with what was tried, where, and why."""
    root = str(tmp_path / "root")
    store = open_store(root)
    store.put("file", b"")
    for act in (
        lambda: store.put("file/below", b""),
        lambda: store.create("file/below", b"", OURS),
    ):
        with pytest.raises(StoreError) as caught:
            act()
        text = str(caught.value)
        assert "'file/below'" in text
        assert root in text
        assert "\n" not in text
        assert len(text) < 300


def test_a_root_that_cannot_be_opened_is_named() -> None:
    """A root of an unknown kind is a StoreError with the root."""
    with pytest.raises(StoreError, match="carrierpigeon://coop"):
        open_store("carrierpigeon://coop")


def test_local_roots_are_told_from_urls() -> None:
    """Paths and file URLs are local, other URLs are not."""
    assert local_path("/a/b c") == "/a/b c"
    assert local_path("relative") == "relative"
    assert local_path("file:///a/b%20c") == "/a/b c"
    assert local_path("s3://bucket/x") is None
    assert local_path("memory://") is None


# --- create: the first writer wins --------------------------------------------------------------


def test_the_first_create_wins(store: Store) -> None:
    """The first execution wins, a second one loses, and the object stays the winner's."""
    assert store.create("jobs/a/done", b"ours", OURS)
    assert not store.create("jobs/a/done", b"theirs", THEIRS)
    assert unstamped(store.get("jobs/a/done"), "done") == (OURS, b"ours")


def test_the_winner_may_repeat_its_create(store: Store) -> None:
    """The same execution is a winner again, and its first body stays."""
    assert store.create("jobs/a/done", b"first", OURS)
    assert store.create("jobs/a/done", b"again", OURS)
    assert store.get("jobs/a/done") == OURS.encode() + b"\nfirst"


@pytest.mark.parametrize("round_", range(5))
def test_of_eight_racing_threads_one_wins(store: Store, round_: int) -> None:
    """However eight creates of a key meet, exactly one wins, and the object is its own, whole."""
    start = threading.Barrier(8)
    results: dict[str, bool] = {}

    def race() -> None:
        execution = new_execution_id()
        start.wait()
        results[execution] = store.create("race", execution.encode() * 1000, execution)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [execution for execution, won in results.items() if won]
    assert len(results) == 8
    assert len(winners) == 1
    assert unstamped(store.get("race"), "race") == (winners[0], winners[0].encode() * 1000)


@pytest.mark.parametrize("answer", [Answer.LOST, Answer.REPEATED])
def test_a_lost_answer_does_not_cost_the_win(
    misleading: Callable[[list[Answer]], MisleadingStore], answer: Answer
) -> None:
    """The write happened and an error came back, "already exists" by our own repetition included:
    the winner is read, and it is us.
    """
    store = misleading([answer])
    assert store.create("done", b"x", OURS)
    assert store.puts == 1
    assert not store.create("done", b"y", THEIRS)


@pytest.mark.parametrize("answer", [Answer.LOST, Answer.REPEATED, Answer.CONFLICT])
def test_an_error_does_not_make_a_loser_win(
    misleading: Callable[[list[Answer]], MisleadingStore], answer: Answer
) -> None:
    """Another execution has the key, and the put fails in whatever way: we have lost."""
    store = misleading([Answer.TRUE, answer])
    assert store.create("done", b"x", THEIRS)
    assert not store.create("done", b"y", OURS)
    assert store.get("done") == THEIRS.encode() + b"\nx"


def test_a_conflict_that_stores_nothing_is_tried_again(
    misleading: Callable[[list[Answer]], MisleadingStore],
) -> None:
    """409 and no object: the create is repeated, and wins; on a 16th of April too, when a missing
    key has "416" in its name.
    """
    store = misleading([Answer.CONFLICT] * (CREATE_TRIES - 1))
    assert store.create("jobs/20260416-101112-aa/done", b"x", OURS)
    assert store.puts == CREATE_TRIES


def test_conflicts_without_end_are_an_error(
    misleading: Callable[[list[Answer]], MisleadingStore],
) -> None:
    """A create that stores nothing, time after time, is a StoreError: neither won nor lost."""
    store = misleading([Answer.CONFLICT] * CREATE_TRIES)
    with pytest.raises(StoreError, match="409"):
        store.create("done", b"x", OURS)
    assert not store.exists("done")
    assert store.create("done", b"x", OURS)


def test_a_winner_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Nobody guesses who won: where the read fails too, the create raises."""

    class Blind(MisleadingStore):
        def get_range(self, key: str, start: int, length: int, etag: str = "") -> bytes:
            raise StoreError(f"Could not read {key!r}: 503")

    store = Blind("memory", MemoryStore(), [Answer.LOST])
    with pytest.raises(StoreError, match="503"):
        store.create("done", b"x", OURS)


# --- stamps and wrappers ------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", OURS.encode(), b"x" * STAMP_BYTES, b"short\n"])
def test_what_has_no_stamp_is_corrupt(data: bytes) -> None:
    """An object without an execution stamp is CorruptObject with its key."""
    with pytest.raises(CorruptObject, match="jobs/x"):
        unstamped(data, "jobs/x")


def test_an_outage_passes() -> None:
    """The fault store refuses what it is told to, and is the store behind it afterwards."""
    inner = open_store("memory://")
    outage = Outage(2, lambda request: request.verb == "get")
    store = InterceptedStore(inner, outage)
    store.put("a", b"x")
    for _ in range(2):
        with pytest.raises(StoreError, match="503"):
            store.get("a")
    assert store.get("a") == b"x"
    assert outage.left == 0


def test_a_wrapper_sees_every_request() -> None:
    """Each method of an intercepted store is one request, named by verb and key."""
    seen: list[Request] = []

    class Recorder(Outage):
        def __call__(self, request: Request, act: Callable[[], T], /) -> T:
            seen.append(request)
            return act()

    store = InterceptedStore(open_store("memory://"), Recorder(0))
    store.put("a/1", b"x")
    store.create("a/2", b"x", OURS)
    results: Iterator[object] = iter((store.get("a/1"), store.get_range("a/1", 0, 1)))
    assert len(list(results)) == 2
    assert store.exists("a/1")
    assert store.head("a/1").size == 1
    assert len(list(store.list("a/"))) == 2
    store.copy("a/1", "a/3")
    store.upload("a/4").close()
    store.delete(["a/1", "a/2"])
    assert [request.verb for request in seen] == [
        "put", "create", "get", "get", "head", "head", "list", "copy", "put", "delete",
    ]  # fmt: skip


def test_every_store_obeys_the_protocol() -> None:
    """The type checker holds both to the Protocol; here they are made from one."""
    opened: Store = open_store("memory://")
    wrapped: Store = InterceptedStore(opened, Outage(0))
    assert isinstance(opened, ObstoreStore)
    assert wrapped.root == opened.root
