"""The columns of one record batch, checked: texts, optional values, and the split of every row."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from distill.config import SPLITS, Data
from distill.data.refusals import RowLocation, absent_column
from distill.data.source import File
from distill.data.split_names import remaining_holdout
from distill.data.splits import split_of
from distill.errors import DataError


def texts_in(batch: pa.RecordBatch, name: str, key: str, file: File, first_row: int) -> list[str]:
    """A text column, which must be there and hold no null; ``key`` is what configures it."""
    if name not in batch.schema.names:
        raise absent_column(key, name, file)
    column = batch.column(name)
    if column.null_count:
        row = first_row + pc.index(column.is_null(), True).as_py()
        raise DataError(
            f"{key} {name!r} is null in {RowLocation(file, row)}: give every row a text, or remove "
            "the row"
        )
    return column.to_pylist()


def values_in(
    batch: pa.RecordBatch, name: str | None, key: str, file: File, may_lack: bool = False
) -> list[str | None]:
    """A column that may hold nulls; the empty string is one, for CSV knows no other."""
    if name is not None and name in batch.schema.names:
        return [value or None for value in batch.column(name).to_pylist()]
    if name is not None and not may_lack:
        raise absent_column(key, name, file)
    return [None] * batch.num_rows


class Splitter:
    """Finds which split a row is in: by column, by the file's name, or by ``data.holdout``."""

    def __init__(self, data: Data, only: str | None = None, files: Sequence[File] = ()) -> None:
        """``only``: every row is in this split; where there is a column of splits, those that
        ``data.splits`` calls by its name, and no others are read. ``files`` have their splits
        assigned, all or none of them; what they do not give is cut from train."""
        self._data = data
        self._holdout = remaining_holdout(data, files)
        self._is_cutting = any(getattr(self._holdout, name) for name in SPLITS[1:])
        self._only = None if only is None else SPLITS.index(only)
        self._index: dict[str, int] = {}
        for i, split in enumerate(SPLITS):
            name = getattr(data.splits, split)
            if name in self._index and only is None:
                raise DataError(
                    f"data.splits.{SPLITS[self._index[name]]} and data.splits.{split} are both "
                    f"{name!r}: a row can be in one split only"
                )
            self._index[name] = i

    @property
    def columns(self) -> list[str | None]:
        """What it reads besides the texts."""
        split = self._data.columns.split
        return [split] if self._only is not None else [split, self._data.holdout.group]

    def is_cut(self, batch: pa.RecordBatch, file: File) -> bool:
        """Whether a hash decides about the rows of this batch, not their file or a column."""
        name = self._data.columns.split
        if self._only is not None or (name is not None and name in batch.schema.names):
            return False
        if file.split is None:
            return name is None
        return file.split == "train" and self._is_cutting

    def source(self, split: str, batch: pa.RecordBatch, file: File) -> str:
        """Where rows of a split come from, in words."""
        name = self._data.columns.split
        if name is not None and name in batch.schema.names:
            return f"{file.uri}, column {name}"
        if not self.is_cut(batch, file):
            return file.uri
        if split == "train":
            return f"{file.uri}, without data.holdout"
        share = 100 * getattr(self._holdout, split)
        return f"{file.uri}, {share:.3g} % of its rows (data.holdout.{split})"

    def of(
        self, batch: pa.RecordBatch, file: File, first_row: int, texts: list[str]
    ) -> Sequence[int | None]:
        """Index into SPLITS of every row, None where it is not read; ``texts`` are hashed where
        nothing else decides."""
        name = self._data.columns.split
        if self._only is not None:
            return self._where_split_is(batch, file)
        if name is not None and name in batch.schema.names:
            values = batch.column(name).to_pylist()
        elif self.is_cut(batch, file):
            return self._held_out(batch, file, first_row, texts)
        elif file.split is not None:
            return [SPLITS.index(file.split)] * batch.num_rows
        else:
            assert name is not None
            raise absent_column("data.columns.split", name, file)
        for i, value in enumerate(values):
            if value not in self._index:
                named = ", ".join(f"{s}: {getattr(self._data.splits, s)}" for s in SPLITS)
                raise DataError(
                    f"the split of {RowLocation(file, first_row + i)} is {value!r}, which is not a "
                    f"name in data.splits ({named}): set its split, such as "
                    f"data.splits.validation={value}"
                )
        return [self._index[value] for value in values]

    def _where_split_is(self, batch: pa.RecordBatch, file: File) -> Sequence[int | None]:
        assert self._only is not None
        name = self._data.columns.split
        if name is None:
            return [self._only] * batch.num_rows
        if name not in batch.schema.names:
            raise absent_column("data.columns.split", name, file)
        split = getattr(self._data.splits, SPLITS[self._only])
        values = batch.column(name).to_pylist()
        return [self._only if value == split else None for value in values]

    def _held_out(
        self, batch: pa.RecordBatch, file: File, first_row: int, texts: list[str]
    ) -> list[int]:
        group = self._data.holdout.group
        if group is None:
            return [split_of(text, self._holdout) for text in texts]
        splits = []
        for i, value in enumerate(values_in(batch, group, "data.holdout.group", file)):
            if value is None:
                raise DataError(
                    f"data.holdout.group {group!r} is null in {RowLocation(file, first_row + i)}: "
                    "give every row a group, or leave data.holdout.group out"
                )
            splits.append(split_of(value, self._holdout))
        return splits
