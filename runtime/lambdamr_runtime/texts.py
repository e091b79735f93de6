r"""Text of lines: which encodings can be cut at bytes, and how runs of lines are decoded.

Text that decodes strictly is the same under every error handler. Other text is decoded line by
line: codecs report a character that its line's end cuts off in one way at the end of the bytes and
in another before it, and lines must not depend on where a run ends.
"""

import codecs
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NoReturn

from lambdamr_runtime.blocks import Content
from lambdamr_runtime.errors import CorruptInput

SHOWN_BYTES = 16
"""Undecodable bytes that a message shows."""

SHOWN_CHARS = 60
"""Characters of a bad record that a message shows."""

_SPLITTABLE_NAMES = """
    utf-8 ascii cp932 cp949 cp950 gb2312 gbk gb18030 big5 big5hkscs euc_jp euc_jis_2004
    euc_jisx0213 euc_kr shift_jis shift_jis_2004 shift_jisx0213
    iso8859-1 iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-9
    iso8859-10 iso8859-11 iso8859-13 iso8859-14 iso8859-15 iso8859-16
    cp437 cp737 cp775 cp850 cp852 cp855 cp857 cp858 cp860 cp861 cp862 cp863 cp865 cp866 cp869
    cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 koi8-r koi8-t koi8-u
    kz1048 ptcp154 tis-620 hp-roman8 mac-cyrillic mac-greek mac-iceland mac-latin2 mac-roman
    mac-turkish
"""

SPLITTABLE_ENCODINGS = frozenset(_SPLITTABLE_NAMES.split())
r"""Encodings whose `\n` is the byte 0x0A and whose other characters never hold it, by the names
that codecs.lookup gives. Each is tested; others are read whole."""

_OWN_BOM = frozenset({"utf-16", "utf-32"})
"""Codecs that consume the BOM themselves: what follows it is text."""

_BOM = "\ufeff"

ON_BAD_RECORD = ("raise", "skip")


def encoding_name(encoding: str) -> str:
    """Return the name codecs.lookup gives; utf-8-sig is utf-8, whose BOM is dropped anyway.

    Raises:  ValueError: Python knows no such text encoding.
    """
    try:
        name = codecs.lookup(encoding).name
        b"a".decode(name, "ignore")
    except UnicodeError:
        pass
    except LookupError as error:
        raise ValueError(
            f"encoding={encoding!r} is no text encoding of Python: {error}. Give one of "
            "https://docs.python.org/3/library/codecs.html, or None for bytes."
        ) from error
    return "utf-8" if name == "utf-8-sig" else name


def check_error_handler(errors: str) -> None:
    try:
        codecs.lookup_error(errors)
    except LookupError as error:
        raise ValueError(
            f"errors={errors!r} is no error handler. Give 'strict', 'replace', 'ignore', "
            "'backslashreplace', 'surrogateescape' or one that codecs.register_error knows."
        ) from error


def check_on_bad_record(on_bad_record: str, encoding: str | None) -> None:
    """Raise ValueError for an unknown policy, or one that the encoding makes impossible."""
    if on_bad_record not in ON_BAD_RECORD:
        raise ValueError(f"on_bad_record must be 'raise' or 'skip', got {on_bad_record!r}")
    if on_bad_record == "skip" and encoding not in SPLITTABLE_ENCODINGS and encoding is not None:
        raise ValueError(
            f"on_bad_record='skip' cannot tell where an undecodable line of {encoding} ends. "
            "Give errors='replace' instead."
        )


def text_of(run: bytes, at: int, encoding: str) -> str:
    """Return the text of a run that begins at offset *at*; a BOM at offset 0 is dropped.

    Raises:  UnicodeDecodeError.
    """
    text = run.decode(encoding)
    return text[1:] if at == 0 and text.startswith(_BOM) else text


def line_text(line: bytes, at: int, encoding: str, errors: str, content: Content) -> str:
    """Return the text of one line without its end, decoded by itself; a BOM as above.

    Raises:  CorruptInput: the handler *errors* refuses it.
    """
    try:
        text = line.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise_undecodable(content, encoding, error, at)
    return text.removeprefix(_BOM) if at == 0 else text


def whole_texts(content: Content, encoding: str, errors: str) -> Iterator[tuple[str, int]]:
    """Yield (text of whole lines, bytes read for it) of an object that is decoded from its start.

    For encodings that hide the newlines from a byte search. Text may be empty.

    Raises:  CorruptInput.
    """
    held: list[str] = []
    for text, raw_bytes in _decoded(content, encoding, errors):
        cut = text.rfind("\n") + 1
        if not cut:
            held.append(text)
            yield "", raw_bytes
            continue
        held.append(text[:cut])
        lines = "".join(held)
        held = [text[cut:]]
        yield lines, raw_bytes
    yield "".join(held), 0


def _decoded(content: Content, encoding: str, errors: str) -> Iterator[tuple[str, int]]:
    """Yield (text, bytes that were read for it), the BOM dropped."""
    decode = codecs.getincrementaldecoder(encoding)(errors).decode
    bom_expected = encoding not in _OWN_BOM
    end = 0
    for at, block in chain(content.blocks(), ((-1, b""),)):
        end = at + len(block) if block else end  # the last one flushes the decoder
        try:
            text = decode(block, not block)
        except UnicodeDecodeError as error:
            raise_undecodable(content, encoding, error, end - len(error.object))
        if bom_expected and text:
            bom_expected = False
            text = text.removeprefix(_BOM)
        yield text, len(block)


def raise_undecodable(
    content: Content, encoding: str, error: UnicodeDecodeError, base: int
) -> NoReturn:
    """Raise CorruptInput; *base* is the offset in the content of the first byte that was given."""
    bad = error.object[error.start : max(error.end, error.start + 1)][:SHOWN_BYTES]
    raise CorruptInput(
        f"{content.uri} is not {encoding} text: bytes {bad!r} at "
        f"{content.place(base + error.start)} ({error.reason}). Give the right encoding=, "
        "errors='replace' or on_bad_record='skip'."
    ) from error


def text_lines(text: str) -> list[str]:
    """Return the lines of non-empty text; never str.splitlines, which ends lines elsewhere too."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    if text.endswith("\n"):
        lines.pop()
    return lines


def bytes_lines(run: bytes) -> list[bytes]:
    if b"\r" in run:
        run = run.replace(b"\r\n", b"\n")
    lines = run.split(b"\n")
    if run.endswith(b"\n"):
        lines.pop()
    return lines


def raw_lines(run: bytes) -> Iterator[bytes]:
    """Yield the lines of a run with their ends."""
    start = 0
    while start < len(run):
        end = run.find(b"\n", start) + 1 or len(run)
        yield run[start:end]
        start = end


def line_by_line(
    run: bytes, at: int, parse: Callable[[bytes, int], list[Any]], skip: bool
) -> tuple[list[Any], int]:
    """Return what *parse* makes of each line of a run, and how many lines it refused.

    Args:     parse: (line without its end, its offset) -> records; Any: what the reader makes.
              skip: a line that parse refuses is counted; else its CorruptInput is raised.
    """
    records: list[Any] = []
    bad = 0
    for raw in raw_lines(run):
        try:
            records += parse(bytes_lines(raw)[0], at)
        except CorruptInput:
            if not skip:
                raise
            bad += 1
        at += len(raw)
    return records, bad


def bad_record(
    content: Content, kind: str, place: str, reason: object, shown: str = ""
) -> CorruptInput:
    """Return the error for a record that is not what the reader reads."""
    cut = f": {shown[:SHOWN_CHARS]!r}{'…' if len(shown) > SHOWN_CHARS else ''}" if shown else ""
    return CorruptInput(
        f"{content.uri} is no {kind} at {place} ({reason}){cut}. Mend it, give other options, or "
        "on_bad_record='skip' to leave such records out and count them."
    )
