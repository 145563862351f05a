"""Rows for a student that is at hand: lists and tables as a file for the time of a call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill.api.tables import path_of
from distill.errors import DataError
from distill.export.kinds import kind_of
from distill.export.locate import Located
from distill.export.request import ColumnOptions
from distill.models.load import read_config

TEXT, PAIR, PROMPT, MESSAGES = "text", "pair", "prompt", "messages"


@contextmanager
def as_file(data: Any) -> Iterator[Any]:
    """A path as it is, None too; a table as a file that is gone afterwards."""
    if data is None or isinstance(data, str | Path):
        yield None if data is None else str(data)
        return
    with tempfile.TemporaryDirectory(prefix="distill-") as folder:
        path = path_of(data, Path(folder))
        if not isinstance(path, str):
            raise DataError("data is a list of paths: give one path, or a glob")
        yield path


def table_of_list(data: Any, student: Located) -> pa.Table | None:
    """A list of texts, pairs, chats or rows of numbers under the names of :func:`columns_of`.

    None for other data. A student of features names its columns itself.
    """
    if isinstance(data, np.ndarray) or _is_numbers(data):
        return _features(np.asarray(data, np.float64), student)
    if not isinstance(data, list) or not data:
        return None
    if all(isinstance(row, str) for row in data):
        return pa.table({kind_of(student.folder).text_column: data})
    if all(isinstance(row, list) and row and isinstance(row[0], dict) for row in data):
        return pa.table({MESSAGES: data})
    if all(isinstance(row, list | tuple) and list(map(type, row)) == [str, str] for row in data):
        return pa.table({TEXT: [row[0] for row in data], PAIR: [row[1] for row in data]})
    return None


def columns_of(table: pa.Table, named: ColumnOptions) -> ColumnOptions:
    """Which column of such a table is what."""
    fields = {"text": TEXT, "pair": PAIR, "prompt": PROMPT, "messages": MESSAGES}
    there = {field: name for field, name in fields.items() if name in table.column_names}
    return replace(named, **there) if there else named


def _is_numbers(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(
            isinstance(row, list | tuple) and row and isinstance(row[0], int | float)
            for row in data
        )
    )


def _features(rows_RD: np.ndarray, student: Located) -> pa.Table:
    columns = list(getattr(read_config(student.folder), "columns", None) or ())
    if not columns:
        raise DataError(f"data has numbers, but {student.folder} reads text: give text")
    if rows_RD.ndim != 2:
        raise DataError(f"data has the shape {list(rows_RD.shape)}: give [rows, features]")
    if len(columns) == 1:
        return pa.table({columns[0]: list(rows_RD)})
    if rows_RD.shape[1] != len(columns):
        raise DataError(
            f"data has {rows_RD.shape[1]} features, {student.folder} reads {len(columns)}: "
            f"{', '.join(columns)}"
        )
    return pa.table(dict(zip(columns, rows_RD.T, strict=True)))
