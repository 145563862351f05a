"""What a file format consists of: a reader of rows, and of what the file declares about columns.

A reader maps (file system, path, uri, columns, kept) to record batches: those of ``columns`` that
the file has, in file order, in batches that bound memory. Values keep their type; see strings.py,
numbers.py and chats.py for what becomes of them. ``kept`` are the columns that are no strings,
which JSON itself does not record. A batch of rows that have none of ``columns`` has no columns, but
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs as pafs

from distill.errors import DataError


class Kept(NamedTuple):
    """Columns that are not turned into strings as they are read."""

    numbers: tuple[str, ...] = ()
    """Features: numbers, or lists of them."""
    chats: tuple[str, ...] = ()
    """Lists of messages, or such a list as a string of JSON."""
    groups: tuple[str, ...] = ()
    """Read as strings, but dates, times and decimals too: what rows are grouped by."""


@dataclass(frozen=True)
class Header:
    """What a file declares about its columns."""

    names: list[str]
    nested: dict[str, list[str]] = field(default_factory=dict)
    """Columns of objects, or of lists of them: the names of their fields."""
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """ClassLabel columns, as Hugging Face ``datasets`` declares them in a schema's metadata."""
    separator: str | None = None
    """Of CSV: what separates two columns."""


Columns = tuple[str, ...]
Reader = Callable[[pafs.FileSystem, str, str, Columns, Kept], Iterator[pa.RecordBatch]]
HeaderReader = Callable[[pafs.FileSystem, str, str, Columns], Header]

NUM_ROWS = 4096  # of a batch read from Parquet or JSON, where its rows are small
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}  # of text; Arrow's own names
BOM = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
UTF32_MARKS = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")


def present(names: Collection[str], columns: Columns) -> list[str]:
    return [name for name in columns if name in names]


def without_columns(num_rows: int) -> pa.RecordBatch:
    rows: Any = pa.array([{}] * num_rows, pa.struct([]))
    return pa.RecordBatch.from_struct_array(rows)


def uncompressed(path: str) -> tuple[str, str | None]:
    """A path without the ending of its compression, and that compression."""
    for end, compression in COMPRESSIONS.items():
        if path.lower().endswith(end):
            return path[: -len(end)], compression
    return path, None


def open_text(filesystem: pafs.FileSystem, path: str) -> pa.NativeFile:
    return filesystem.open_input_stream(path, compression=uncompressed(path)[1])


def check_not_utf16(head: bytes, uri: str) -> None:
    """Raises DataError by the first four bytes: a byte order mark, or NUL as every other byte."""
    is_zero = [byte == 0 for byte in head[:4]]
    if head.startswith(UTF32_MARKS):
        encoding = "UTF-32"
    elif head.startswith(UTF16_MARKS) or is_zero in ([True, False] * 2, [False, True] * 2):
        encoding = "UTF-16"
    else:
        return
    raise DataError(f"data.path: {uri} is {encoding}: convert the file to UTF-8")
