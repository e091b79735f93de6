"""Count the words of a text with map_reduce: `python examples/word_count.py [PATH_OR_URI]`."""

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import lambdamr

NOVEL = Path(__file__).parent / "data" / "pride_and_prejudice.txt"


def mapper(line: str) -> Iterator[tuple[str, int]]:
    for word in re.findall(r"[a-z']+", line.lower()):
        yield word, 1


def reducer(word: str, counts: Iterable[int]) -> int:  # noqa: ARG001  # a reducer is given its key
    return sum(counts)


def main() -> None:
    options = _parse_options()
    with lambdamr.Executor() as executor:
        job = executor.map_reduce(mapper, options.text, reducer)
        counts = job.result()

    print(
        f"The {options.top} most frequent of {len(counts):,} different words in {options.text}:\n"
    )
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: options.top]:
        print(f"{count:8,}  {word}")
    print("\nThe job's outputs:\n")
    for uri in job.outputs:
        print(f"  {uri}")
    print(f"\n{job.report()}")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count the words of a text with map_reduce.")
    parser.add_argument(
        "text", nargs="?", default=str(NOVEL), help="path or URI (default: %(default)s)"
    )
    parser.add_argument("--top", type=int, default=10, metavar="N", help="words to print")
    return parser.parse_args()


if __name__ == "__main__":
    main()
