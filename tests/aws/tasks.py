"""What tests run in the cloud; shipped there, so it needs the standard library alone."""

from collections.abc import Iterator


def double(value: int) -> int:
    return 2 * value


def words(line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word, 1
