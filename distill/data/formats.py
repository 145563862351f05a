"""One reader a file format: (file system, path, uri, columns, kept) → record batches.

A reader yields those of ``columns`` that the file has, in file order, in batches that bound memory.
Values keep their type; see strings.py, numbers.py and chats.py for what becomes of them. ``kept``
are the columns that are no strings, which JSON itself does not record. A batch of rows that have
none of ``columns`` has no columns, but rows. What a file declares about its columns, before its
rows are read, is its ``Header``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from pyarrow import csv, ipc, parquet
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
NUM_BYTES = 4 << 20  # of such a batch, by the mean size of its rows; of a read from Parquet
CSV_BLOCK = 16 << 20  # bytes; a longer row is an error of Arrow's reader

ENDINGS = {
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather"),
    "json": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv", ".tsv"),
}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}  # of text; Arrow's own names
TEXT = ("json", "csv")
TAB = "\t"
QUOTED = r'^"([^"]|"")*"$'
SEPARATORS = (",", ";", TAB)
BOM = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
UTF32_MARKS = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")


def format_of(path: str) -> str | None:
    """The format that a file's ending names; None if it is not known."""
    plain, compression = _uncompressed(path.lower())
    for kind, endings in ENDINGS.items():
        if plain.endswith(endings) and (compression is None or kind in TEXT):
            return kind
    return None


def endings() -> str:
    """All endings that are read, for messages."""
    known = ", ".join(end for kind in ENDINGS.values() for end in kind)
    packed = " or ".join(", ".join(COMPRESSIONS).rsplit(", ", 1))
    return f"{known} are read, text also with {packed} after it"


def _uncompressed(path: str) -> tuple[str, str | None]:
    """A path without the ending of its compression, and that compression."""
    for end, compression in COMPRESSIONS.items():
        if path.lower().endswith(end):
            return path[: -len(end)], compression
    return path, None


def read_parquet(
    filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns, kept: Kept
) -> Iterator[pa.RecordBatch]:
    with filesystem.open_input_file(path) as stream:
        # By itself pyarrow keeps what it reads ahead: in the end the whole file.
        reader = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=NUM_BYTES)
        wanted = _present(reader.schema_arrow.names, columns)
        groups = [reader.metadata.row_group(i) for i in range(reader.metadata.num_row_groups)]
        row_bytes = sum(g.total_byte_size for g in groups) // max(reader.metadata.num_rows, 1)
        num_rows = max(1, min(NUM_ROWS, NUM_BYTES // max(row_bytes, 1)))
        yield from reader.iter_batches(num_rows, columns=wanted)


def read_arrow(
    filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns, kept: Kept
) -> Iterator[pa.RecordBatch]:
    """Both IPC formats: ``datasets`` writes streams under the ending that others use for files."""
    with filesystem.open_input_file(path) as stream:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if not is_file:
            with ipc.open_stream(stream) as reader:
                for batch in reader:
                    yield batch.select(_present(batch.schema.names, columns))
            return
        with ipc.open_file(stream) as reader:
            for i in range(reader.num_record_batches):
                batch = reader.get_batch(i)
                yield batch.select(_present(batch.schema.names, columns))


def read_csv(
    filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns, kept: Kept
) -> Iterator[pa.RecordBatch]:
    """Every value as bytes: types guessed from the first block would fail in a later one."""
    first, has_rows = _first_record(filesystem, path, uri)
    names, separator = _separated(first, path, uri, columns)
    wanted = _present(names, columns)
    if first and not wanted:
        yield _without_columns(int(has_rows))
        return
    convert = csv.ConvertOptions(
        include_columns=wanted,
        column_types={name: pa.binary() for name in wanted},
        strings_can_be_null=False,
    )
    is_quoted = separator != TAB or _is_quoted(filesystem, path, names)
    with _text(filesystem, path) as stream:
        yield from _open_csv(stream, separator, is_quoted, convert)


def _open_csv(
    stream: pa.NativeFile, separator: str, is_quoted: bool, convert: csv.ConvertOptions
) -> csv.CSVStreamingReader:
    return csv.open_csv(
        stream,
        read_options=csv.ReadOptions(block_size=CSV_BLOCK, use_threads=False),
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
        with _text(filesystem, path) as stream:
            for batch in _open_csv(stream, TAB, False, convert):
                for column in batch.columns:
                    opened = column.filter(compute.starts_with(column, '"'))
                    is_closed = compute.match_substring_regex(opened, QUOTED)
                    if not compute.all(is_closed, min_count=0).as_py():
                        return False
    except pa.ArrowInvalid:
        pass
    return True


def read_json(
    filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns, kept: Kept
) -> Iterator[pa.RecordBatch]:
    """JSON lines, or one JSON array (which is read whole). A key that a row lacks is null."""
    with _text(filesystem, path) as stream:
        rows = _json_rows(stream, uri)
        names: dict[str, None] = {}
        first_row = 1
        while block := list(islice(rows, NUM_ROWS)):
            names.update(dict.fromkeys(key for row in block for key in row))
            wanted = _present(names, columns)
            special = dict.fromkeys(kept.numbers, _json_numbers)
            special |= dict.fromkeys(kept.chats, _json_chats)
            values = {n: special.get(n, _json_values)(block, n, uri, first_row) for n in wanted}
            yield pa.RecordBatch.from_pydict(values) if values else _without_columns(len(block))
            first_row += len(block)


def json_objects(filesystem: pafs.FileSystem, path: str, uri: str) -> list[dict[str, Any]]:
    """Every row of a JSON file as it is, all fields kept."""
    with _text(filesystem, path) as stream:
        return list(_json_rows(stream, uri))


def parquet_header(filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns) -> Header:
    with filesystem.open_input_file(path) as stream:
        return _schema_header(parquet.read_schema(stream))


def arrow_header(filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns) -> Header:
    with filesystem.open_input_file(path) as stream:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        with (ipc.open_file if is_file else ipc.open_stream)(stream) as reader:
            return _schema_header(reader.schema)


def csv_header(filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns) -> Header:
    first, _ = _first_record(filesystem, path, uri)
    names, separator = _separated(first, path, uri, columns)
    return Header(names, separator=separator)


def json_header(filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns) -> Header:
    """Of the first rows: a key that occurs later only is not among them."""
    nested: dict[str, list[str]] = {}
    names: dict[str, None] = {}
    with _text(filesystem, path) as stream:
        for row in islice(_json_rows(stream, uri), NUM_ROWS):
            for name, value in row.items():
                names[name] = None
                item = value[0] if isinstance(value, list) and value else value
                if isinstance(item, dict):
                    nested.setdefault(name, list(item))
    return Header(list(names), nested)


def _schema_header(schema: pa.Schema) -> Header:
    nested = {}
    for column in schema:
        kind = column.type
        if pt.is_list(kind) or pt.is_large_list(kind):
            kind = kind.value_type
        if pt.is_struct(kind):
            nested[column.name] = [kind.field(i).name for i in range(kind.num_fields)]
    raw = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(raw)["info"]["features"]
    except (ValueError, KeyError, TypeError):  # another writer's: no names are declared
        features = None
    return Header(schema.names, nested, class_names(features))


def class_names(features: Any) -> dict[str, tuple[str, ...]]:
    """The names of each ClassLabel column of ``datasets`` features as JSON."""
    return {
        name: tuple(feature["names"])
        for name, feature in (features if isinstance(features, dict) else {}).items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        if isinstance(feature.get("names"), list)
    }


def _without_columns(num_rows: int) -> pa.RecordBatch:
    rows: Any = pa.array([{}] * num_rows, pa.struct([]))
    return pa.RecordBatch.from_struct_array(rows)


def _text(filesystem: pafs.FileSystem, path: str) -> pa.NativeFile:
    return filesystem.open_input_stream(path, compression=_uncompressed(path)[1])


def _refuse_utf16(head: bytes, uri: str) -> None:
    """Raises DataError by the first four bytes: a byte order mark, or NUL as every other byte."""
    is_zero = [byte == 0 for byte in head[:4]]
    if head.startswith(UTF32_MARKS):
        encoding = "UTF-32"
    elif head.startswith(UTF16_MARKS) or is_zero in ([True, False] * 2, [False, True] * 2):
        encoding = "UTF-16"
    else:
        return
    raise DataError(f"data.path: {uri} is {encoding}: convert the file to UTF-8")


def _first_record(filesystem: pafs.FileSystem, path: str, uri: str) -> tuple[bytes, bool]:
    """The header of a CSV file, and whether anything follows it; b"" for a file without one."""
    with _text(filesystem, path) as stream:
        head = stream.read(1 << 20)
        _refuse_utf16(head, uri)
        head = head.removeprefix(BOM).lstrip(b"\r\n")
        while not (end := _end_of_record(head)):
            block = stream.read(1 << 20)
            if not block or len(head) > CSV_BLOCK:  # one line, or a quote that is no quotation
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
    is_tab = _uncompressed(path.lower())[0].endswith(".tsv")
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


def _json_rows(stream: pa.NativeFile, uri: str) -> Iterator[dict[str, Any]]:
    lines = _lines(stream, uri)
    first = next(lines, b"").removeprefix(BOM)
    # One array, or one object over many lines.
    if first.lstrip().startswith(b"[") or first.strip() == b"{":
        first += b"".join(lines)
    number = 0
    while first or number == 0:
        number += 1
        if first.strip():
            try:
                parsed = json.loads(first.decode("utf-8"))
            except UnicodeDecodeError:
                raise DataError(
                    f"data.path: line {number} of {uri} is not UTF-8: convert the file to UTF-8"
                ) from None
            except ValueError as error:
                raise DataError(
                    f"data.path: line {number} of {uri} is not valid JSON ({error}): "
                    "write one object a line"
                ) from None
            for row in parsed if isinstance(parsed, list) else [parsed]:
                if not isinstance(row, dict):
                    raise DataError(
                        f"data.path: line {number} of {uri} holds {type(row).__name__} "
                        f"{str(row)[:40]!r}: write one JSON object a row"
                    )
                yield row
        first = next(lines, b"")


def _lines(stream: pa.NativeFile, uri: str) -> Iterator[bytes]:
    """Lines with their end, split on \\n alone (texts may hold other line separators)."""
    rest = b""
    is_first = True
    while block := stream.read(1 << 20):
        if is_first:
            _refuse_utf16(block, uri)
            is_first = False
        *whole, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _json_values(block: list[dict[str, Any]], name: str, uri: str, first_row: int) -> pa.Array:
    """One column; labels often mix strings and integers, so integers become strings here.

    NaN, which Python writes where pandas has no value, is null.
    """
    texts: list[str | None] = []
    for i, row in enumerate(block):
        value = row.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        elif isinstance(value, float) and math.isnan(value):
            value = None
        if not isinstance(value, str | int | None):
            kind = "non-integer numbers" if isinstance(value, float) else type(value).__name__
            raise DataError(
                f"data.path: column {name!r} of {uri} holds {kind} in row {first_row + i}: "
                "a string, integer or boolean is needed"
            )
        texts.append(str(int(value)) if isinstance(value, int) else value)
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError as error:
        raise DataError(
            f"data.path: column {name!r} of {uri} is not UTF-8 (lone surrogate "
            f"{error.object[error.start]!r} in rows {first_row} to {first_row + len(block) - 1}): "
            "convert the file to UTF-8"
        ) from None


def _json_numbers(block: list[dict[str, Any]], name: str, uri: str, first_row: int) -> pa.Array:
    """One column of numbers, or of lists of numbers; what a row lacks is null."""
    values = [row.get(name) for row in block]
    is_lists = isinstance(next((v for v in values if v is not None), None), list)
    for i, value in enumerate(values):
        items = value if is_lists and isinstance(value, list) else [value]
        if not all(isinstance(item, int | float | None) for item in items):
            kind = "lists of numbers" if is_lists else "numbers"
            raise DataError(
                f"data.columns.features {name!r} holds {json.dumps(value)[:40]} in row "
                f"{first_row + i} of {uri}: {kind} are needed in every row"
            )
    return pa.array(values, pa.list_(pa.float64()) if is_lists else pa.float64())


def _json_chats(block: list[dict[str, Any]], name: str, uri: str, first_row: int) -> pa.Array:
    """One column of chats as JSON, which is ASCII: whatever characters they hold."""
    values = [row.get(name) for row in block]
    texts = [v if isinstance(v, str | None) else json.dumps(v) for v in values]
    return pa.array(texts, pa.large_string())


def _present(names: Collection[str], columns: Columns) -> list[str]:
    return [name for name in columns if name in names]


READERS: dict[str, Reader] = {
    "parquet": read_parquet,
    "arrow": read_arrow,
    "csv": read_csv,
    "json": read_json,
}
HEADERS: dict[str, HeaderReader] = {
    "parquet": parquet_header,
    "arrow": arrow_header,
    "csv": csv_header,
    "json": json_header,
}
