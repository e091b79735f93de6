"""URIs: which objects they name.

What a URI may be:

    s3://bucket/key          one object; the key is taken as it stands, nothing is unquoted
    s3://bucket/prefix/      every object under the prefix; so does s3://bucket
    https://host/dir/name    one object of a web server, which lists nothing; percent-decoded
    file:///dir/name         a local path, percent-decoded
    dir/name                 a local path; a directory means every file in it, at every depth
    s3://b/*/part-[0-9]?     a glob: * ? [ ] match within one name, ** any number of directories.
                             A leading dot is nothing special. [[] is a [ that is not a glob.

A local path that exists is taken literally, whatever characters it has.
"""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import unquote

from lambdamr_runtime.errors import InputNotFound, InvalidInput, StoreError
from lambdamr_runtime.store import Store, StoredObject

Uri = str | os.PathLike[str]
"""A URI or a local path; an os.PathLike is always a local path."""

OpenStore = Callable[[str], Store]
"""Opens the store of a root, as lambdamr_runtime.store.open_store does."""

_URI = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/]*)/?(.*)", re.DOTALL)
_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class InputObject:
    """One object that a job reads."""

    root: str
    """Root of its store: a directory or s3://bucket."""
    key: str
    size: int
    """Bytes."""
    etag: str

    @property
    def uri(self) -> str:
        return f"{self.root.rstrip('/')}/{self.key}"


def names_something(text: str) -> bool:
    """Return whether a text is a URI, an existing path, or a glob with a match."""
    if _URI.match(text):
        return True
    if not text or "\0" in text:
        return False
    return os.path.exists(text) or (bool(_GLOB.search(text)) and _matches_files(text))


def _matches_files(pattern: str) -> bool:
    found = glob.iglob(pattern, recursive=True, include_hidden=True)
    return any(os.path.isfile(path) for path in found)


def objects_of(uri: str, open_root: OpenStore) -> list[InputObject]:
    """Return the objects that a URI names, sorted by key.

    Raises:  InputNotFound: none. InvalidInput: a name that cannot be used.
    """
    scheme, host, path = _parsed(uri)
    if not scheme:
        return _local_objects(path, open_root)
    if scheme != "file":
        return _remote_objects(uri, open_root)
    if host not in ("", "localhost"):
        raise InvalidInput(
            f"{uri} names the host {host!r}. Write file:///path for a file of this machine."
        )
    return _local_objects("/" + unquote(path), open_root)


def _parsed(uri: str) -> tuple[str, str, str]:
    """Return (scheme, host or bucket, path without its first slash); a local path has no scheme."""
    parts = _URI.match(uri)
    return (parts[1].lower(), parts[2], parts[3]) if parts else ("", "", uri)


def _local_objects(path: str, open_root: OpenStore) -> list[InputObject]:
    """Return the files of a path: itself, those under a directory, or those of a glob."""
    if os.path.isfile(path):
        return _in_store(os.path.dirname(path), [os.path.basename(path)], open_root)
    if os.path.isdir(path):
        root, keys = path, _files_under(path)
    elif _GLOB.search(path):
        root, pattern = _literal_part(path)
        keys = _files_matching(root, pattern)
    else:
        raise InputNotFound(f"There is no file {_absolute(path)!r}. Check the path.")
    if not keys:
        raise InputNotFound(f"No file is in, or matches, {_absolute(path)!r}. Check the path.")
    return _in_store(root, keys, open_root)


def _absolute(path: str) -> str:
    return os.path.join(os.getcwd(), path)


def _literal_part(path: str) -> tuple[str, str]:
    """Split a glob into the directories before its first wildcard and the rest.

    A glob that ends in / stands for everything under what it matches.
    """
    cut = _GLOB.split(path, 1)[0].rfind("/") + 1
    return path[:cut], path[cut:] + "**" if path.endswith("/") else path[cut:]


def _files_matching(root: str, pattern: str) -> list[str]:
    """Return the files under *root* that match, relative to it, sorted; directories are no match.

    glob.glob does it where only the directories that match are to be listed; but with ** it
    would go round where a link leads back, and find files many times.
    """
    wanted = pattern.split("/")
    if not os.path.isdir(root or "."):
        return []
    if "**" in wanted:
        found = [key for key in _files_under(root) if _match(key.split("/"), wanted)]
    else:
        found = glob.glob(pattern, root_dir=root or ".", include_hidden=True)
    return sorted(key for key in found if not os.path.isdir(os.path.join(root, key)))


def _files_under(root: str) -> list[str]:
    """Return every file under a directory, at any depth, relative to it, sorted.

    Links to directories are followed, except back to a directory that holds them.
    """
    root = root or "."
    found = _walk(root, (os.path.realpath(root),))
    return sorted(os.path.relpath(path, root) for path in found)


def _walk(directory: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yield what is no directory under *directory*; *above*: its real path and its holders'."""
    for entry in os.scandir(directory):
        if not entry.is_dir():
            yield entry.path
            continue
        real = os.path.realpath(entry.path)
        if real not in above:
            yield from _walk(entry.path, (*above, real))


def _in_store(directory: str, keys: Iterable[str], open_root: OpenStore) -> list[InputObject]:
    """Return the files of a directory as objects of the store whose root it is."""
    root = os.path.realpath(directory or ".")
    store = open_root(root)
    return [_object(root, _local_head(store, root, key)) for key in keys]


def _local_head(store: Store, root: str, key: str) -> StoredObject:
    """Look up a file. obstore's local store has no keys for some names that file systems allow."""
    if not os.path.isfile(os.path.join(root, key)):
        raise InvalidInput(
            f"{key!r} in {root} is no regular file, but a link that leads nowhere or a device. "
            "Remove it, or name the other files by a glob."
        )
    try:
        return store.head(key)
    except (StoreError, ValueError) as error:
        raise InvalidInput(
            f"The file {key!r} in {root} has a name that the object store layer cannot hold "
            "(control characters, '#' and a number at its end, '..', or no UTF-8). Rename it, or "
            "name the other files by a glob."
        ) from error


def _remote_objects(uri: str, open_root: OpenStore) -> list[InputObject]:
    """Return the objects of a key, a prefix (it ends in /) or a glob, sorted by key."""
    scheme, bucket, path = _parsed(uri)
    root = f"{scheme}://{bucket}"
    if scheme in ("http", "https"):
        path = _web_key(uri, path)
    if "//" in f"/{path}":
        raise InvalidInput(
            f"{uri} has an empty name between two slashes, which the object store layer cannot "
            "hold. Remove a slash, or copy the object to another key."
        )
    try:
        found = _stored_objects(open_root(root), path)
    except FileNotFoundError:
        found = []
    except StoreError as error:
        if not any(code in str(error) for code in _NO_BUCKET):
            raise
        raise InputNotFound(
            f"There is no bucket {bucket!r}, which {uri} names. Check its name."
        ) from error
    except ValueError as error:
        raise InvalidInput(
            f"{uri!r} is a name that the object store layer cannot hold: {error}. "
            "Copy the object to another key."
        ) from error
    if not found:
        raise InputNotFound(
            f"No object is named by {uri}. Check the bucket and the name; "
            "a prefix ends in '/', and * does not go beyond one."
        )
    return [_object(root, each) for each in sorted(found, key=lambda each: each.key)]


def _web_key(uri: str, path: str) -> str:
    """Return the key of an object of a web server.

    Raises:  InvalidInput: a folder or a glob, which it cannot list, or a query.
    """
    if not path or path.endswith("/") or re.search(r"[*[]", path):
        raise InvalidInput(
            f"{uri} names several objects, and a web server does not list what it has. Name each "
            "one, in a list."
        )
    if re.search(r"[?#]", path):
        raise InvalidInput(
            f"{uri} has a query or a fragment, which the object store layer cannot hold. Download "
            "the object, or copy it to S3."
        )
    return unquote(path)


_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
"""What S3 and Azure answer to a list; a lookup of one object is not told."""


def _stored_objects(store: Store, path: str) -> list[StoredObject]:
    if _GLOB.search(path):
        prefix, pattern = _literal_part(path)
        wanted = pattern.split("/")
        return [each for each in store.list(prefix) if _fits(each, prefix, wanted)]
    if not path or path.endswith("/"):
        return list(store.list(path))
    return [store.head(path)]


def _fits(each: StoredObject, prefix: str, pattern: Sequence[str]) -> bool:
    return _match(each.key[len(prefix) :].split("/"), pattern)


def _match(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the names of a path match the parts of a glob one by one; ** takes any."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_match(names[skip:], pattern[1:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _match(names[1:], pattern[1:])


def _object(root: str, stored: StoredObject) -> InputObject:
    return InputObject(root, stored.key, stored.size, stored.etag)
