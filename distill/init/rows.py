"""What a data set holds, as far as ``distill init`` can find out: columns, labels, splits.

Kinds of columns come from the first rows of the first file. Labels, domains and splits come from
all rows, and so do the texts, of which every batch gives a few.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any, Literal

import pyarrow as pa

from distill.config import SPLITS, Data
from distill.data.file_format import Kept
from distill.data.formats import READERS
from distill.data.source import File, column_names, columns_shown, find_files, read_batches
from distill.data.split_names import KEYWORDS, assign_splits
from distill.data.usual_columns import USUAL
from distill.errors import DataError

Kind = Literal["text", "number", "numbers", "chat", "other"]
NUM_ROWS = 1000  # from which the kinds of columns are found
PER_BATCH = 250  # texts of a record batch from which lengths are found
MAX_TEXTS = 4000
MAX_CLASSES = 200
MAX_DOMAINS = 50


@dataclass(frozen=True)
class Column:
    name: str
    kind: Kind
    values: tuple[str, ...]
    """Different values in the first rows, as strings; of texts and numbers alone."""
    num_chars: float = 0.0
    """Mean length of a text."""


@dataclass(frozen=True)
class Table:
    """The files of ``data.path`` and the columns of the first one."""

    files: tuple[File, ...]
    columns: dict[str, Column]

    def of_kind(self, *kinds: Kind) -> list[str]:
        return [name for name, column in self.columns.items() if column.kind in kinds]

    def usual(self, key: str, kinds: Sequence[Kind], taken: Sequence[str | None] = ()) -> list[str]:
        """Columns of these kinds that are usually called ``key``, the most usual first."""
        folded = {name.casefold(): name for name in self.of_kind(*kinds) if name not in taken}
        return [folded[name] for name in USUAL[key] if name in folded]

    @property
    def shown(self) -> str:
        return columns_shown(self.files[0])


@dataclass
class DataCounts:
    """Counts over all rows."""

    num_rows: int = 0
    labels: Counter[str | None] = field(default_factory=Counter)
    domains: Counter[str | None] = field(default_factory=Counter)
    splits: Counter[str | None] = field(default_factory=Counter)
    num_empty: int = 0
    texts: list[tuple[tuple[str, ...], str | None]] = field(default_factory=list)
    """Some rows: the values of their text columns, and the label."""

    @property
    def num_unlabelled(self) -> int:
        return self.labels[None]

    @property
    def label_names(self) -> list[str]:
        found = [label for label in self.labels if label is not None]
        is_numeric = all(name.removeprefix("-").isdecimal() for name in found)
        return sorted(found, key=lambda n: (int(n) if is_numeric else 0, n))


def open_table(path: str) -> Table:
    """Raises DataError for a path without readable rows."""
    files = find_files(path)
    with suppress(DataError):  # a column may give the splits; else ``distill check`` refuses
        files = assign_splits(files, Data(path=path))
    names = column_names(files[0])
    if not names:
        raise DataError(f"data.path: {files[0].uri} has no columns that can be read")
    rows = _first_rows(files[0], tuple(names))
    columns = {}
    for name in names:
        if name in files[0].folder_columns:
            values = {f.folder_columns.get(name) for f in files} - {None}
            columns[name] = Column(name, "text", tuple(sorted(map(str, values))))
        else:
            columns[name] = _column(name, [row.get(name) for row in rows])
    return Table(tuple(files), columns)


def is_label(column: Column) -> bool:
    """Whether a classifier can have these values as classes."""
    if column.kind == "number":
        is_whole = all(float(value).is_integer() for value in column.values)
        return is_whole and 1 < len(column.values) <= MAX_CLASSES
    return column.kind == "text" and 1 < len(column.values) <= MAX_CLASSES


def read_contents(
    table: Table,
    texts: Sequence[str],
    label: str | None,
    domain: str | None,
    split: str | None,
    chats: Sequence[str] = (),
) -> DataCounts:
    """One pass over all rows. ``chats``: columns that are read as JSON instead of ``texts``."""
    found = DataCounts()
    groups = tuple(n for n in (domain,) if n is not None)
    kept = Kept(chats=tuple(chats), groups=groups)
    named = [*texts, label, domain, split]
    names = tuple(dict.fromkeys(name for name in named if name is not None))
    shown = list(chats or texts)
    for file in table.files:
        if not chats and not names:
            return found
        for batch in read_batches(file, names, kept):
            _count(found, batch, shown, label, domain, split, file)
    return found


def split_names(values: Sequence[str]) -> dict[str, str] | None:
    """Of the values of a column of splits: the split of each; None where one is not known."""
    found = {}
    for value in values:
        known = [s for s in SPLITS if value.casefold() in KEYWORDS[s]]
        if len(known) != 1:
            return None
        found[value] = known[0]
    return found if len(set(found.values())) == len(found) else None


def _count(
    found: DataCounts,
    batch: pa.RecordBatch,
    texts: Sequence[str],
    label: str | None,
    domain: str | None,
    split: str | None,
    file: File,
) -> None:
    def values(name: str | None) -> list[Any]:
        if name is None or name not in batch.schema.names:
            return [None] * batch.num_rows
        return batch.column(name).to_pylist()

    labels = [_stripped(value) for value in values(label)]
    in_transfer = file.split == "transfer"
    found.num_rows += batch.num_rows
    if label is not None and not in_transfer:
        splits = values(split)
        found.labels.update(
            value
            for value, where in zip(labels, splits, strict=True)
            if where is None or where.casefold() not in KEYWORDS["transfer"]
        )
    if domain is not None:
        found.domains.update(_stripped(value) for value in values(domain))
    if split is not None:
        found.splits.update(values(split))
    if not texts:
        return
    columns = [values(name) for name in texts]
    found.num_empty += sum(not value for value in columns[0])
    # Random: rows that alternate between kinds would all be of one kind at every second row.
    num = min(PER_BATCH, batch.num_rows)
    for i in sorted(Random(batch.num_rows).sample(range(batch.num_rows), num)):
        if len(found.texts) < MAX_TEXTS:
            row = tuple(column[i] or "" for column in columns)
            found.texts.append((row, labels[i]))


def _stripped(value: str | None) -> str | None:
    return (value or "").strip() or None


def _first_rows(file: File, names: tuple[str, ...]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    kept = Kept(chats=names) if file.format == "json" else Kept()
    for batch in READERS[file.format](file.filesystem, file.path, file.uri, names, kept):
        rows += islice(_rows(batch, file), NUM_ROWS - len(rows))
        if len(rows) >= NUM_ROWS:
            break
    return rows


def _rows(batch: pa.RecordBatch, file: File) -> Iterator[dict[str, Any]]:
    for row in batch.slice(0, NUM_ROWS).to_pylist():
        yield {name: _plain(value, file.format) for name, value in row.items()}


def _plain(value: Any, kind: str) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        value = value.strip()
        # What JSON lines hold arrives as JSON; of other formats a list of chats may be text.
        if value[:1] in ("[", "{") and (kind == "json" or '"' in value):
            try:
                return json.loads(value)
            except ValueError:
                return value
        return value or None
    is_nan = isinstance(value, float) and math.isnan(value)  # pandas' missing number
    return None if is_nan else value


def _column(name: str, values: list[Any]) -> Column:
    given = [value for value in values if value is not None]
    kind = _kind(given)
    if kind not in ("text", "number"):
        return Column(name, kind, ())
    texts = [str(int(v)) if isinstance(v, bool) else str(v) for v in given]
    mean = sum(map(len, texts)) / max(len(texts), 1)
    return Column(name, kind, tuple(dict.fromkeys(texts)), mean)


def _kind(values: list[Any]) -> Kind:
    if not values:
        return "other"
    if all(isinstance(value, list) for value in values):
        items = [item for value in values for item in value]
        if items and all(isinstance(item, dict) for item in items):
            return "chat" if all("role" in i or "from" in i for i in items) else "other"
        return "numbers" if items and all(_is_number(item) for item in items) else "other"
    if all(_is_number(value) for value in values):
        return "number"
    return "text" if all(isinstance(value, str) for value in values) else "other"


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return value.strip().casefold() not in ("nan", "inf", "-inf", "infinity")
    return isinstance(value, int | float)
