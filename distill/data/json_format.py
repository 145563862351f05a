"""JSON lines, or one JSON array."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from distill.data.file_format import (
    BOM,
    NUM_ROWS,
    Columns,
    Header,
    Kept,
    check_not_utf16,
    open_text,
    present,
    without_columns,
)
from distill.errors import DataError


def read_json(
    filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns, kept: Kept
) -> Iterator[pa.RecordBatch]:
    """JSON lines, or one JSON array (which is read whole). A key that a row lacks is null."""
    with open_text(filesystem, path) as stream:
        rows = _rows(stream, uri)
        names: dict[str, None] = {}
        first_row = 1
        while block := list(islice(rows, NUM_ROWS)):
            names.update(dict.fromkeys(key for row in block for key in row))
            present_columns = present(names, columns)
            special = dict.fromkeys(kept.numbers, _numbers)
            special |= dict.fromkeys(kept.chats, _chats)
            values = {n: special.get(n, _values)(block, n, uri, first_row) for n in present_columns}
            yield pa.RecordBatch.from_pydict(values) if values else without_columns(len(block))
            first_row += len(block)


def json_header(filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns) -> Header:
    """Of the first rows: a key that occurs later only is not among them."""
    nested: dict[str, list[str]] = {}
    names: dict[str, None] = {}
    with open_text(filesystem, path) as stream:
        for row in islice(_rows(stream, uri), NUM_ROWS):
            for name, value in row.items():
                names[name] = None
                item = value[0] if isinstance(value, list) and value else value
                if isinstance(item, dict):
                    nested.setdefault(name, list(item))
    return Header(list(names), nested)


def json_objects(filesystem: pafs.FileSystem, path: str, uri: str) -> list[dict[str, Any]]:
    """Every row of a JSON file as it is, all fields kept."""
    with open_text(filesystem, path) as stream:
        return list(_rows(stream, uri))


def _rows(stream: pa.NativeFile, uri: str) -> Iterator[dict[str, Any]]:
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
                    f"data.path: line {number} of {uri} is not valid JSON ({error}): write one "
                    "object per line"
                ) from None
            for row in parsed if isinstance(parsed, list) else [parsed]:
                if not isinstance(row, dict):
                    raise DataError(
                        f"data.path: line {number} of {uri} holds {type(row).__name__} "
                        f"{str(row)[:40]!r}: write one JSON object per row"
                    )
                yield row
        first = next(lines, b"")


def _lines(stream: pa.NativeFile, uri: str) -> Iterator[bytes]:
    """Lines with their end, split on \\n alone (texts may hold other line separators)."""
    rest = b""
    is_first = True
    while block := stream.read(1 << 20):
        if is_first:
            check_not_utf16(block, uri)
            is_first = False
        *whole, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _values(block: list[dict[str, Any]], name: str, uri: str, first_row: int) -> pa.Array:
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


def _numbers(block: list[dict[str, Any]], name: str, uri: str, first_row: int) -> pa.Array:
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


def _chats(block: list[dict[str, Any]], name: str, uri: str, first_row: int) -> pa.Array:
    """One column of chats as JSON, which is ASCII: whatever characters they hold."""
    values = [row.get(name) for row in block]
    texts = [v if isinstance(v, str | None) else json.dumps(v) for v in values]
    return pa.array(texts, pa.large_string())
