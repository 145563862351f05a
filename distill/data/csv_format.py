"""CSV, separated by commas, semicolons or tabs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from pyarrow import fs as pafs

from distill.data.file_format import (
    BOM,
    Columns,
    Header,
    Kept,
    check_not_utf16,
    open_text,
    present,
    uncompressed,
    without_columns,
)
from distill.errors import DataError

BLOCK = 16 << 20  # bytes; a longer row is an error of Arrow's reader
TAB = "\t"
QUOTED = r'^"([^"]|"")*"$'
SEPARATORS = (",", ";", TAB)


def read_csv(
    filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns, kept: Kept
) -> Iterator[pa.RecordBatch]:
    """Every value as bytes: types guessed from the first block would fail in a later one."""
    first, has_rows = _first_record(filesystem, path, uri)
    names, separator = _separated(first, path, uri, columns)
    present_columns = present(names, columns)
    if first and not present_columns:
        yield without_columns(int(has_rows))
        return
    convert = csv.ConvertOptions(
        include_columns=present_columns,
        column_types={name: pa.binary() for name in present_columns},
        strings_can_be_null=False,
    )
    is_quoted = separator != TAB or _is_quoted(filesystem, path, names)
    with open_text(filesystem, path) as stream:
        yield from _open_csv(stream, separator, is_quoted, convert)


def csv_header(filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns) -> Header:
    first, _ = _first_record(filesystem, path, uri)
    names, separator = _separated(first, path, uri, columns)
    return Header(names, separator=separator)


def _open_csv(
    stream: pa.NativeFile, separator: str, is_quoted: bool, convert: csv.ConvertOptions
) -> csv.CSVStreamingReader:
    return csv.open_csv(
        stream,
        read_options=csv.ReadOptions(block_size=BLOCK, use_threads=False),
        parse_options=csv.ParseOptions(
            delimiter=separator,
            quote_char='"' if is_quoted else False,
            newlines_in_values=is_quoted,
        ),
        convert_options=convert,
    )


def _is_quoted(filesystem: pafs.FileSystem, path: str, names: list[str]) -> bool:
    """Whether the quotes of a file separated by tabs enclose values, as pandas writes them.

    If they do, each is closed at the end of its value, with those inside it doubled; or the lines
    do not fit the header, for a value holds a tab or a newline. Else a quote is a character like
    any other (the media type text/tab-separated-values knows no quoting).
    """
    compute: Any = pc  # has functions that only run time knows
    convert = csv.ConvertOptions(column_types={name: pa.binary() for name in names})
    try:
        with open_text(filesystem, path) as stream:
            for batch in _open_csv(stream, TAB, False, convert):
                for column in batch.columns:
                    opened = column.filter(compute.starts_with(column, '"'))
                    is_closed = compute.match_substring_regex(opened, QUOTED)
                    if not compute.all(is_closed, min_count=0).as_py():
                        return False
    except pa.ArrowInvalid:
        pass
    return True


def _first_record(filesystem: pafs.FileSystem, path: str, uri: str) -> tuple[bytes, bool]:
    """The header of a CSV file, and whether anything follows it; b"" for a file without one."""
    with open_text(filesystem, path) as stream:
        head = stream.read(1 << 20)
        check_not_utf16(head, uri)
        head = head.removeprefix(BOM).lstrip(b"\r\n")
        while not (end := _end_of_record(head)):
            block = stream.read(1 << 20)
            if not block or len(head) > BLOCK:  # one line, or a quote that is no quotation
                end = len(re.split(rb"[\r\n]", head, maxsplit=1)[0])
                break
            head += block
        return head[:end], bool(head[end:].strip() or stream.read(1))


def _end_of_record(head: bytes) -> int:
    """Where the first record ends, at an end of line outside quotes; 0 if it does not end."""
    num_quotes = 0
    start = 0
    for match in re.finditer(rb"\r\n|\n|\r", head):
        num_quotes += head.count(b'"', start, match.start())
        start = match.end()
        if num_quotes % 2 == 0:
            return match.end()
    return 0


def _separated(first: bytes, path: str, uri: str, columns: Columns) -> tuple[list[str], str]:
    """A CSV header's names, and the separator that gives most of ``columns``.

    Of equal ones that which gives most names, then the one that the file's ending names.
    """
    first = first.rstrip(b"\r\n") + b"\n"
    is_tab = uncompressed(path.lower())[0].endswith(".tsv")
    found = []
    for separator in sorted(SEPARATORS, key=lambda s: (s == TAB) != is_tab):
        options = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        try:
            names = csv.read_csv(pa.BufferReader(first), parse_options=options).schema.names
        except pa.ArrowInvalid:  # no header, or one that Arrow refuses again where it is read
            names = []
        except UnicodeDecodeError:
            raise DataError(
                f"data.path: the header of {uri} is not UTF-8: convert the file to UTF-8"
            ) from None
        found.append((names, separator))
    return max(found, key=lambda f: (len(set(f[0]) & set(columns)), len(f[0])))
