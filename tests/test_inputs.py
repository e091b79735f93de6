"""What URIs name, what the argument `inputs` means, and how objects are cut."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from lambdamr.inputs import (
    Input,
    as_input,
    blocks,
    csv,
    jsonl,
    lines,
    objects,
    plan_splits,
    records,
)
from lambdamr.planners import Cut
from lambdamr.uris import InputObject
from lambdamr_runtime.errors import InputNotFound, InvalidInput
from lambdamr_runtime.files import Objects
from lambdamr_runtime.jsonl import JsonLines
from lambdamr_runtime.records import FixedRecords, LineBlocks, Lines
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import ObstoreStore, Store, open_store
from lambdamr_runtime.tables import Csv, Dialect


def write(directory: Path, *names: str, data: bytes = b"x\n") -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def keys(found: Input | list[object], open_root: Callable[[str], Store] = open_store) -> list[str]:
    assert isinstance(found, Input)
    return [each.key for each in found.objects(open_root)]


def bucket_of(*names: str) -> Callable[[str], Store]:
    """Return what opens s3://bucket, held in memory with these keys, and nothing else."""
    store = ObstoreStore("s3://bucket", MemoryStore())
    for name in names:
        store.put(name, b"x\n")

    def open_bucket(root: str) -> Store:
        assert root == "s3://bucket"
        return store

    return open_bucket


def splits_of(found: Input) -> list[Split]:
    """Return the splits of all tasks, for two lanes."""
    return [split for task in found.tasks(2, 256) for split in task]


def objects_of(*sizes: int) -> list[InputObject]:
    return [InputObject("s3://b", f"{n}", size, f"e{n}") for n, size in enumerate(sizes)]


# --- local paths ---------------------------------------------------------------------------------


def test_a_file_is_one_object(tmp_path: Path) -> None:
    """Its size and etag are the store's, so that a later read can be checked against them."""
    write(tmp_path, "a.txt", data=b"abc")
    found = lines(tmp_path / "a.txt").objects()
    head = open_store(str(tmp_path)).head("a.txt")
    assert found == [InputObject(os.path.realpath(tmp_path), "a.txt", 3, head.etag)]


def test_a_directory_is_every_file_in_it(tmp_path: Path) -> None:
    """At every depth, hidden ones too, sorted by key."""
    write(tmp_path, "b", "a/z", "a/.h", "a/b/c", "A")
    assert keys(lines(tmp_path)) == ["A", "a/.h", "a/b/c", "a/z", "b"]
    assert keys(lines(f"{tmp_path}/")) == ["A", "a/.h", "a/b/c", "a/z", "b"]


ODD_NAMES = [
    *("a b", "a#b", "a%b", "a%20b", "a*b", "[x]", "q?x", "~t", "a..b", "a:b", "ab://c", "{x}"),
    *("é.txt", "e\u0301.txt", "日本", "😀", "back\\slash", " lead", "trail ", 'q"x', "<x>", "a|b"),
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    """By path, by directory and by file:// URI; nothing is quoted, unquoted or globbed."""
    write(tmp_path, f"dir {name}/{name}", data=name.encode())
    directory = tmp_path / f"dir {name}"
    quoted = (directory / name).as_uri()
    for uri in (directory / name, directory, quoted):
        ((split,),) = lines(uri).tasks(1, 256)
        assert list(Lines().read(split, open_store(split.root))) == [name]


def test_a_directory_with_a_newline_in_its_name(tmp_path: Path) -> None:
    """It is the store's root, which may have any name."""
    write(tmp_path, "new\nline/a.txt")
    assert keys(lines(tmp_path / "new\nline")) == ["a.txt"]


@pytest.mark.parametrize("name", ["new\nline", "part#12"])
def test_names_the_store_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    """Obstore has no key for them; a listing would leave the second out without a word."""
    write(tmp_path, "a.txt", name)
    for uri in (tmp_path, tmp_path / name):
        with pytest.raises(InvalidInput, match="a name that the object store layer cannot hold"):
            lines(uri).objects()
    assert keys(lines(tmp_path / "a*")) == ["a.txt"]


def test_relative_paths_and_directories_above(tmp_path: Path) -> None:
    """A path is resolved as the system does, '..' and links included."""
    write(tmp_path, "a/b.txt", "c.txt")
    relative = os.path.relpath(tmp_path / "a" / ".." / "c.txt")
    (found,) = lines(relative).objects()
    assert (found.root, found.key) == (os.path.realpath(tmp_path), "c.txt")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[!a].txt", ["b.txt"]),
        ("*/*.txt", ["d/c.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "d/c.txt", "d/e/f.txt"]),
        ("d/**", ["c.txt", "e/f.txt", "e/g.log"]),
        ("d*/", ["d/c.txt", "d/e/f.txt", "d/e/g.log"]),
        ("**/e/*", ["d/e/f.txt", "d/e/g.log"]),
    ],
)
def test_globs_are_the_same_on_disk_and_in_a_bucket(
    tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    """* stays within a name, ** goes through directories; directories themselves are no match."""
    names = ("a.txt", "b.txt", "d/c.txt", "d/e/f.txt", "d/e/g.log", "z")
    write(tmp_path, *names)
    assert keys(lines(f"{tmp_path}/{pattern}")) == expected
    in_bucket = keys(lines(f"s3://bucket/top/{pattern}"), bucket_of(*(f"top/{n}" for n in names)))
    prefix = "top/d/" if pattern.startswith("d/") else "top/"
    assert in_bucket == [prefix + key for key in expected]


def test_a_link_back_is_not_read_twice(tmp_path: Path) -> None:
    """Links to directories are followed, but not to one that holds them."""
    write(tmp_path, "in/d/a.txt", "out/b.txt")
    (tmp_path / "in/d/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/other").symlink_to(tmp_path / "out")
    assert keys(lines(tmp_path / "in")) == ["d/a.txt", "other/b.txt"]
    assert keys(lines(f"{tmp_path}/in/**/*.txt")) == ["d/a.txt", "other/b.txt"]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    """It is not left out silently."""
    write(tmp_path, "a.txt")
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone")
    for uri in (tmp_path, f"{tmp_path}/*.txt"):
        with pytest.raises(InvalidInput, match=r"'b.txt' in .* is no regular file"):
            lines(uri).objects()


@pytest.mark.parametrize("name", ["missing.txt", "no/*.txt", "no/**/x", "**/no", "empty"])
def test_a_path_that_names_nothing_is_input_not_found(tmp_path: Path, name: str) -> None:
    """The message says what was looked for; nothing is created on the way."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputNotFound) as caught:
        lines(f"{tmp_path}/{name}").objects()
    assert f"{tmp_path}/{name}" in str(caught.value)
    assert os.listdir(tmp_path) == ["empty"]


def test_a_file_uri_names_this_machine(tmp_path: Path) -> None:
    """Another host than localhost is refused."""
    write(tmp_path, "a.txt")
    assert keys(lines(f"file://localhost{tmp_path}/a.txt")) == ["a.txt"]
    with pytest.raises(InvalidInput, match="names the host 'data'"):
        lines("file://data/a.txt").objects()


# --- buckets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/logs/a.txt", ["logs/a.txt"]),
        ("s3://bucket/logs/", ["logs/a.txt", "logs/b/c.txt"]),
        ("s3://bucket/", ["logs/a.txt", "logs/b/c.txt", "logs2", "odd #%20+&/x"]),
        ("s3://bucket", ["logs/a.txt", "logs/b/c.txt", "logs2", "odd #%20+&/x"]),
        ("s3://bucket/odd #%20+&/x", ["odd #%20+&/x"]),
        ("s3://bucket/logs*", ["logs2"]),
        ("s3://bucket/lo[g]s/*", ["logs/a.txt"]),
    ],
)
def test_keys_prefixes_and_buckets(uri: str, expected: list[str]) -> None:
    """A prefix ends in /, and no other begins alike; keys are taken as they stand."""
    open_bucket = bucket_of("logs/a.txt", "logs/b/c.txt", "logs2", "odd #%20+&/x")
    assert keys(lines(uri), open_bucket) == expected


@pytest.mark.parametrize("uri", ["s3://bucket/logs", "s3://bucket/no/", "s3://bucket/no*"])
def test_a_uri_that_names_nothing_is_input_not_found(uri: str) -> None:
    """The message says what was looked for, and how a prefix is written."""
    with pytest.raises(InputNotFound) as caught:
        lines(uri).objects(bucket_of("logs/a.txt"))
    assert uri in str(caught.value)
    assert "a prefix ends in '/'" in str(caught.value)


def test_a_key_with_an_empty_name_is_refused() -> None:
    """The store would read another key in its place."""
    with pytest.raises(InvalidInput, match="an empty name between two slashes"):
        lines("s3://bucket//a").objects(bucket_of("a"))


def test_a_key_with_control_characters_is_refused() -> None:
    """Obstore has no key for it."""
    with pytest.raises(InvalidInput, match="a name that the object store layer cannot hold"):
        lines("s3://bucket/a\nb").objects(bucket_of("a"))


# --- lists, and what is refused ------------------------------------------------------------------


def test_several_uris_keep_their_order(tmp_path: Path) -> None:
    """Lists and single URIs mix; the keys of each are sorted."""
    write(tmp_path, "z.txt", "d/b", "d/a")
    assert keys(lines([tmp_path / "z.txt"], f"{tmp_path}/d")) == ["z.txt", "a", "b"]


def test_an_object_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    """Overlapping globs would count its records twice."""
    write(tmp_path, "a.txt")
    with pytest.raises(InvalidInput, match=r"a\.txt is named by two of the inputs"):
        lines(f"{tmp_path}/*.txt", f"{tmp_path}/a*").objects()


def test_lines_refuses_what_cannot_be_meant() -> None:
    """No URI, a URI of another type, no bytes per split, an unknown encoding."""
    with pytest.raises(ValueError, match="no URI"):
        lines([])
    with pytest.raises(TypeError, match="got int: 3"):
        lines([3])  # type: ignore[list-item]  # the point of the test
    with pytest.raises(ValueError, match="split_bytes must be >= 1, got 0"):
        lines("a", split_bytes=0)
    with pytest.raises(ValueError, match="utf-99"):
        lines("a", encoding="utf-99")


# --- what `inputs` means -------------------------------------------------------------------------


def test_an_input_a_uri_and_a_path_are_inputs(tmp_path: Path) -> None:
    """An Input is itself, a str or path is the lines of it."""
    given_input = lines("s3://b/k", encoding="utf-16")
    assert as_input(given_input) is given_input
    assert as_input("s3://b/k") == lines("s3://b/k")
    assert as_input(tmp_path) == lines(tmp_path)


def test_a_list_of_names_is_an_input(tmp_path: Path) -> None:
    """All paths, or all str that name something: URIs, files, directories, globs with a match."""
    write(tmp_path, "a.txt", "d/b.txt")
    names = [f"{tmp_path}/a.txt", f"{tmp_path}/d", f"{tmp_path}/*.txt", "s3://b/k"]
    assert as_input(names) == lines(*names)
    assert as_input(tuple(names[:1])) == lines(names[0])
    assert as_input([tmp_path / "missing"]) == lines(tmp_path / "missing")


def test_a_list_of_which_some_name_files_is_refused(tmp_path: Path) -> None:
    """Neither meaning would be right: a file was mistyped, or a word happens to be a file."""
    write(tmp_path, "a.txt")
    items = [f"{tmp_path}/a.txt", "no-file", "none"]
    for mixed in (items, items[::-1], ["s3://b/k", "no-file"]):
        with pytest.raises(ValueError, match=r"'no(-file|ne)'.*lambdamr\.lines.*iter\(items\)"):
            as_input(mixed)
    assert as_input(iter(items)) == items


@pytest.mark.parametrize(
    "items",
    [[], ["some words", "see http://x", "what?", "a*", "", "\0*"], [1, "s3://b/k"], [b"s3://b/k"]],
)
def test_other_lists_are_their_items(items: list[object]) -> None:
    """Words, text that a URI merely occurs in, mixed types, nothing."""
    assert as_input(items) == items


def test_any_iterable_is_its_items() -> None:
    """Ranges, generators, sets, dicts; what is no iterable is refused with its type."""
    assert as_input(range(3)) == [0, 1, 2]
    assert as_input(n * n for n in range(3)) == [0, 1, 4]
    assert as_input({"a": 1}) == ["a"]
    with pytest.raises(TypeError, match="got int: 5"):
        as_input(5)


# --- splits --------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(0, 200), max_size=8), split_bytes=st.integers(1, 250))
@settings(max_examples=300, deadline=None)
def test_each_byte_is_in_exactly_one_split(sizes: list[int], split_bytes: int) -> None:
    """In order, none empty, none too large, and those of one object nearly equal."""
    splits = plan_splits(objects_of(*sizes), split_bytes)
    for number, size in enumerate(sizes):
        mine = [split for split in splits if split.key == str(number)]
        assert [at for split in mine for at in range(split.lo, split.hi)] == list(range(size))
        widths = {split.hi - split.lo for split in mine}
        assert max(widths, default=1) - min(widths, default=1) <= 1
        assert max(widths, default=1) <= split_bytes
        assert {(split.size, split.etag) for split in mine} <= {(size, f"e{number}")}
    assert [int(split.key) for split in splits] == sorted(int(split.key) for split in splits)


def test_an_object_of_one_byte_has_a_split_and_an_empty_one_has_none() -> None:
    """Lithops plans no split for one byte."""
    assert [(split.key, split.lo, split.hi) for split in plan_splits(objects_of(0, 1), 100)] == [
        ("1", 0, 1)
    ]


def test_an_encoding_that_cannot_be_cut_is_one_split_per_object(tmp_path: Path) -> None:
    """UTF-16 files are whole whatever split_bytes says; UTF-8 files are cut."""
    write(tmp_path, "a", "b", data=b"1234")
    cut = splits_of(lines(tmp_path, split_bytes=2))
    assert [(split.key, split.lo, split.hi) for split in cut] == [
        ("a", 0, 2),
        ("a", 2, 4),
        ("b", 0, 2),
        ("b", 2, 4),
    ]
    whole = splits_of(lines(tmp_path, encoding="utf-16", split_bytes=2))
    assert [(split.key, split.lo, split.hi) for split in whole] == [("a", 0, 4), ("b", 0, 4)]


@pytest.mark.parametrize("name", ["a.gz", "a.BZ2", "a.txt.xz", "a.zst"])
def test_a_compressed_file_is_one_split(tmp_path: Path, name: str) -> None:
    """By its suffix, or because compression= says so; compression=None cuts it as it is."""
    write(tmp_path, name, data=b"1234")
    assert len(splits_of(lines(tmp_path, split_bytes=2))) == 1
    assert len(splits_of(lines(tmp_path, split_bytes=2, compression=None))) == 2
    write(tmp_path, "b/plain", data=b"1234")
    assert len(splits_of(lines(tmp_path / "b", split_bytes=2, compression="gzip"))) == 1


def test_an_empty_file_is_an_object_but_no_lines(tmp_path: Path) -> None:
    """A mapper of objects is called for it; a reader of lines has nothing to read."""
    write(tmp_path, "a", data=b"")
    assert splits_of(lines(tmp_path)) == []
    assert [(split.lo, split.hi) for split in splits_of(objects(tmp_path))] == [(0, 0)]


def test_many_small_files_share_tasks(tmp_path: Path) -> None:
    """In order, alike in number; a task's splits may be of several files."""
    write(tmp_path, *(f"{number:03}" for number in range(100)))
    tasks = lines(tmp_path).tasks(2, 256)
    assert [split.key for task in tasks for split in task] == keys(lines(tmp_path))
    assert [len(task) for task in tasks] == [13] * 7 + [9]


def test_no_split_bytes_below_one() -> None:
    """A plan that would never end is refused."""
    with pytest.raises(ValueError, match="split_bytes must be >= 1, got 0"):
        plan_splits(objects_of(1), 0)


def test_files_come_back_whole_through_plan_and_reader(tmp_path: Path) -> None:
    """From the URI to the records: every line of every file, every byte accounted for."""
    data = b"".join(b"line %d\r\n" % number for number in range(2000))
    write(tmp_path, "a.txt", "b/c.txt", data=data)
    splits = splits_of(lines(tmp_path, split_bytes=1000))
    store = open_store(splits[0].root)
    streams = [Lines().read(split, store) for split in splits]
    found = [record for stream in streams for record in stream]
    assert found == [f"line {number}" for number in range(2000)] * 2
    assert sum(stream.owned_bytes for stream in streams) == 2 * len(data)


# --- the other kinds of input --------------------------------------------------------------------


def test_the_calls_make_the_readers(tmp_path: Path) -> None:
    """Options go to the reader, the URI stays as it is given."""
    assert csv("a", header=["x"], columns=["x"], delimiter=";").reader == Csv(
        ("x",), ("x",), dialect=Dialect(";")
    )
    assert jsonl("a", errors="replace").reader == JsonLines(errors="replace")
    assert blocks("a", block_bytes=5).reader == LineBlocks(5)
    assert records("a", record_bytes=8).reader == FixedRecords(8)
    assert objects("a", compression=None).reader == Objects(None)
    assert csv(tmp_path / "a").uris == (str(tmp_path / "a"),)


@pytest.mark.parametrize("options", [{"columns": "name"}, {"header": "name"}])
def test_one_str_is_not_a_list_of_columns(options: dict[str, str]) -> None:
    """It would be its letters."""
    with pytest.raises(ValueError, match=r"='name' is one str. Give a list"):
        csv("a", **options)  # type: ignore[arg-type]  # a str is an Iterable[str], alas


def test_a_call_without_a_uri_is_named() -> None:
    """So that the line is found."""
    with pytest.raises(ValueError, match=r"jsonl\(\) was given no URI"):
        jsonl()


def test_a_planner_is_chosen_by_name(tmp_path: Path) -> None:
    """BigLambda's leaves objects whole; a function of one's own is called with the sizes."""
    write(tmp_path, *"abcd", data=b"x" * 300_000)
    assert len(splits_of(lines(tmp_path))) == 8
    assert [len(task) for task in lines(tmp_path, planner="biglambda").tasks(2, 1)] == [2, 2]
    assert lines(tmp_path, planner=lambda sizes, *_: Cut(None, sum(sizes))).tasks(2, 1) == [
        splits_of(objects(tmp_path))
    ]
