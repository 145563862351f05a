"""One reader a file format: (file system, path, uri, columns, kept) → record batches.

A reader yields those of ``columns`` that the file has (None: all), in file order, in batches
that bound memory. Values keep their type; see strings.py, numbers.py and chats.py for what becomes
of them. ``kept`` are the columns that are no strings: JSON, which has no types, is told so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import csv, ipc, parquet
from pyarrow import fs as pafs

from distill.errors import DataError


class Kept(NamedTuple):
    """Columns that are not turned into strings as they are read."""

    numbers: tuple[str, ...] = ()
    """Features: numbers, or lists of them."""
    chats: tuple[str, ...] = ()
    """Lists of messages, or such a list as a string of JSON."""


Columns = tuple[str, ...] | None
Reader = Callable[[pafs.FileSystem, str, str, Columns, Kept], Iterator[pa.RecordBatch]]

NUM_ROWS = 4096  # of a batch read from Parquet or JSON, where its rows are small
NUM_BYTES = 4 << 20  # of such a batch, by the mean size of its rows; of a read from Parquet
CSV_BLOCK = 16 << 20  # bytes; a longer row is an error of Arrow's reader

ENDINGS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".jsonl.gz": "json",
    ".csv.gz": "csv",
}


def format_of(path: str) -> str | None:
    """The format that a file's ending stands for; None if it is not known."""
    return next((kind for end, kind in ENDINGS.items() if path.lower().endswith(end)), None)


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
    options: dict[str, Any] = {
        "read_options": csv.ReadOptions(block_size=CSV_BLOCK, use_threads=False),
        "parse_options": csv.ParseOptions(newlines_in_values=True),
    }
    with filesystem.open_input_stream(path) as stream, csv.open_csv(stream, **options) as reader:
        wanted = _present(reader.schema.names, columns)
    convert = csv.ConvertOptions(
        include_columns=wanted,
        column_types={name: pa.binary() for name in wanted},
        strings_can_be_null=False,
    )
    with filesystem.open_input_stream(path) as stream:
        yield from csv.open_csv(stream, convert_options=convert, **options)


def read_json(
    filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns, kept: Kept
) -> Iterator[pa.RecordBatch]:
    """JSON lines, or one JSON array (which is read whole). A key that a row lacks is null."""
    with filesystem.open_input_stream(path) as stream:
        rows = _json_rows(stream, uri)
        names: dict[str, None] = {}
        first_row = 1
        while block := list(islice(rows, NUM_ROWS)):
            names.update(dict.fromkeys(key for row in block for key in row))
            wanted = _present(list(names), columns)
            special = dict.fromkeys(kept.numbers, _json_numbers)
            special |= dict.fromkeys(kept.chats, _json_chats)
            values = {n: special.get(n, _json_values)(block, n, uri, first_row) for n in wanted}
            yield pa.RecordBatch.from_pydict(values)
            first_row += len(block)


def _json_rows(stream: pa.NativeFile, uri: str) -> Iterator[dict[str, Any]]:
    lines = _lines(stream)
    first = next(lines, b"").removeprefix(b"\xef\xbb\xbf")
    if first.lstrip().startswith(b"["):
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


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    """Lines with their end, split on \\n alone (texts may hold other line separators)."""
    rest = b""
    while block := stream.read(1 << 20):
        *whole, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _json_values(block: list[dict[str, Any]], name: str, uri: str, first_row: int) -> pa.Array:
    """One column; labels often mix strings and integers, so integers become strings here."""
    texts: list[str | None] = []
    for i, row in enumerate(block):
        value = row.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, str | int | None):
            kind = "fractions" if isinstance(value, float) else type(value).__name__
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


def _present(names: list[str], columns: tuple[str, ...] | None) -> list[str]:
    return names if columns is None else [name for name in columns if name in names]


READERS: dict[str, Reader] = {
    "parquet": read_parquet,
    "arrow": read_arrow,
    "csv": read_csv,
    "json": read_json,
}
