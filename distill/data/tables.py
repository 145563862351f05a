"""Data files read with all of their columns, and tables written: Parquet, Arrow, JSON lines or CSV.

A file is held in memory as a whole. CSV has no types: its values stay text, as they are written.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.types as pt
from pyarrow import csv, ipc, parquet

from distill.data.file_format import Kept
from distill.data.formats import READERS, TEXT
from distill.data.json_format import json_objects
from distill.data.source import File, column_names
from distill.errors import DataError

Content: TypeAlias = "pa.Table | list[dict[str, Any]]"
"""Rows of a file: of JSON the objects as they are, of other formats a table with its types."""
ENDINGS = (".parquet", ".arrow", ".jsonl", ".csv")
"""Of files that :func:`write_content` writes."""

LONE = re.compile("[\ud800-\udfff]")
"""A surrogate that JSON has escaped and that UTF-8 cannot hold."""


def read_content(file: File) -> Content:
    """Every row and column of a file, in order. Raises DataError for a file that is unreadable."""
    try:
        if file.format == "json":
            return json_objects(file.filesystem, file.path, file.uri)
        if file.format == "parquet":
            with file.filesystem.open_input_file(file.path) as stream:
                return parquet.read_table(stream)
        names = tuple(column_names(file))
        reader = READERS[file.format]
        batches = list(reader(file.filesystem, file.path, file.uri, names, Kept()))
        if not batches:
            return pa.table({name: pa.array([], pa.string()) for name in names})
        return _decoded(pa.Table.from_batches(batches), file)
    except (OSError, pa.ArrowException) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(f"data.path: {file.uri} cannot be read: {first}") from None


def _decoded(table: pa.Table, file: File) -> pa.Table:
    """CSV is read as bytes."""
    if file.format not in TEXT:
        return table
    for index, column in enumerate(table.schema):
        if pt.is_binary(column.type):
            try:
                text = table.column(index).cast(pa.string())
            except pa.ArrowInvalid:
                raise DataError(
                    f"data.path: column {column.name!r} of {file.uri} is not UTF-8: convert the "
                    "file to UTF-8"
                ) from None
            table = table.set_column(index, column.name, text)
    return table


def names_in(content: Content) -> list[str]:
    """The columns, in order of their first occurrence."""
    if isinstance(content, list):
        return list(dict.fromkeys(key for row in content for key in row))
    return content.column_names


def joined(contents: Sequence[Content]) -> Content:
    """The rows of several files; a column that one lacks is null there."""
    if all(isinstance(content, list) for content in contents):
        return [row for content in contents for row in content]  # type: ignore[misc]
    tables = [table_of(content) for content in contents]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(f"data.path: the columns of the files differ: {first}") from None


def table_of(content: Content) -> pa.Table:
    """Raises DataError for a column of objects with values of several types."""
    if isinstance(content, pa.Table):
        return content
    return pa.table({name: _array(content, name) for name in names_in(content)})


def _array(rows: list[dict[str, Any]], name: str) -> pa.Array:
    try:
        return pa.array([row.get(name) for row in rows])
    except UnicodeEncodeError:
        raise DataError(
            f"column {name!r} holds characters that are not UTF-8 (lone surrogates): write .jsonl, "
            "or correct them"
        ) from None
    except (pa.ArrowException, OverflowError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"column {name!r} holds values of several types ({first}): write .jsonl, or give the "
            "column one type"
        ) from None


def check_ending(path: str | Path) -> None:
    if not str(path).endswith(ENDINGS):
        raise DataError(
            f"{path} has an unsupported file extension: use one of {', '.join(ENDINGS)}"
        )


def write_content(content: Content, added: Mapping[str, Sequence[Any]], path: str | Path) -> Path:
    """Rows with the columns ``added`` behind their own, by the ending of ``path``; atomically.

    Floats that JSON does not know (NaN, infinite) are null there; CSV holds lists and objects as
    JSON.
    """
    path = Path(path)
    check_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    partial = Path(name)
    try:
        if path.suffix == ".jsonl":
            _write_json(content, added, partial)
        else:
            _write_table(with_columns(content, added), partial, path)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)  # mkstemp's 0600 would keep others from reading it
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def with_columns(content: Content, added: Mapping[str, Sequence[Any]]) -> pa.Table:
    table = table_of(content)
    if not table.column_names and added:
        return pa.table({name: pa.array(values) for name, values in added.items()})
    for name, values in added.items():
        table = table.append_column(name, pa.array(values))
    return table


def _write_json(content: Content, added: Mapping[str, Sequence[Any]], path: Path) -> None:
    rows = content if isinstance(content, list) else content.to_pylist()
    with path.open("w", encoding="utf-8") as file:
        for index, row in enumerate(rows):
            whole = row | {name: values[index] for name, values in added.items()}
            line = json.dumps(_plain(whole), ensure_ascii=False, default=str)
            if LONE.search(line):
                line = json.dumps(_plain(whole), default=str)
            file.write(line + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_table(table: pa.Table, path: Path, out: Path) -> None:
    """In the format of ``out``. Raises DataError for bytes, which CSV cannot hold."""
    if out.suffix == ".parquet":
        parquet.write_table(table, path)
    elif out.suffix == ".arrow":
        with ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        try:
            csv.write_csv(_flat(table), path)
        except pa.ArrowInvalid:
            raise DataError(
                f"{out} cannot be written: a column holds bytes that are not UTF-8; write .parquet"
            ) from None


def _flat(table: pa.Table) -> pa.Table:
    for index, column in enumerate(table.schema):
        if pt.is_nested(column.type):
            values = table.column(index).to_pylist()
            texts = [
                None if v is None else json.dumps(_plain(v), ensure_ascii=False, default=str)
                for v in values
            ]
            table = table.set_column(index, column.name, pa.array(texts, pa.string()))
        elif pt.is_dictionary(column.type):
            table = table.set_column(
                index, column.name, table.column(index).cast(column.type.value_type)
            )
    return table
