"""Make an index of a book: which word is in which chapters.

`python examples/inverted_index.py darcy wickham`
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import lambdamr

NOVEL = Path(__file__).parent / "data" / "pride_and_prejudice.txt"

Chapter = tuple[int, str]


def chapters(text: str) -> list[Chapter]:
    """Return (number, text) of each chapter: headings are lines that begin with "Chapter"."""
    parts = re.split(r"(?mi)^ *chapter [ivxlc\d]+\b.*$", text)
    return list(enumerate(parts[1:], 1))


def mapper(chapter: Chapter) -> Iterator[tuple[str, int]]:
    number, text = chapter
    for word in set(re.findall(r"[a-z']+", text.lower())):
        yield word, number


def reducer(word: str, numbers: Iterator[int]) -> list[int]:  # noqa: ARG001  # a reducer is given its key
    return sorted(numbers)


def main() -> None:
    options = _parse_options()
    with lambdamr.Executor() as executor:
        book = chapters(options.text.read_text(encoding="utf-8"))
        index = executor.map_reduce(mapper, book, reducer).result()
    print(f"{len(index):,} words in {len(book)} chapters")
    for word in options.words:
        found = index.get(word.lower(), [])
        print(f"{word}: {', '.join(map(str, found)) or 'nowhere'}")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tell in which chapters words are.")
    parser.add_argument("words", nargs="*", default=["pemberley"])
    parser.add_argument("--text", type=Path, default=NOVEL)
    return parser.parse_args()


if __name__ == "__main__":
    main()
