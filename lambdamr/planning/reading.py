"""How many ranged reads the inputs of map tasks take: the arithmetic of the readers."""

from collections.abc import Iterable, Sequence

from lambdamr_runtime.compression import compression_of
from lambdamr_runtime.files import Objects
from lambdamr_runtime.opening import SMALL_BYTES
from lambdamr_runtime.records import FixedRecords, Reader
from lambdamr_runtime.splits import Split
from lambdamr_runtime.tables import Csv


def reads_of(reader: Reader, tasks: Iterable[Sequence[Split]]) -> tuple[int, bool]:
    """Return the reads of all splits, and whether they are known.

    They are where no line goes on for long behind the end of its split: each such line takes
    reads of its own. They are not where the mapper reads its files itself: then it is one read
    per object.
    """
    known = not isinstance(reader, Objects)
    return sum(_of_task(reader, splits) for splits in tasks), known


def _of_task(reader: Reader, splits: Sequence[Split]) -> int:
    small = [split for split in splits if split.is_whole and 0 < split.size <= SMALL_BYTES]
    if len(small) < 2:
        return sum(_of_split(reader, split) for split in splits)
    # Each small object is read once, before its turn.
    return len(small) + sum(_of_split(reader, s) for s in splits if s not in small)


def _of_split(reader: Reader, split: Split) -> int:
    if isinstance(reader, Objects):
        return 1 if split.size else 0
    block_bytes: int = reader.block_bytes  # type: ignore[attr-defined]  # all but Objects have it
    if split.is_whole and (compression_of(split.key, reader.compression) or not reader.splittable):
        return -(-split.size // block_bytes)
    if isinstance(reader, FixedRecords):
        width = reader.record_bytes
        start = -(-split.lo // width) * width
        stop = min(-(-split.hi // width) * width, split.size)
        return max(0, -(-(stop - start) // block_bytes))
    reads = -(-(split.hi - max(split.lo - 1, 0)) // block_bytes)
    if isinstance(reader, Csv) and reader.header is True and split.lo:
        reads += 1  # the header, which is at the beginning of the object
    return reads
