"""Arrow IPC files of fixed-size record batches, memory-mapped: row i is in batch i // BATCH_ROWS.

Fixed sizes make random access a division, without an index; the files are written once into a
folder that appears under its name only when it is complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from pyarrow import ipc

BATCH_ROWS = 1024
Ids = Sequence[int] | np.ndarray | range


class Rows(Protocol):
    """The numbered rows of a data set, split, as one kind of task counts them.

    Ids count the rows of train, transfer, validation and test in this order.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def noun(self) -> str:
        """What the rows are called in messages."""
        ...

    @property
    def unit(self) -> str:
        """What has an output of its own."""
        ...

    @property
    def pooled_unit(self) -> str:
        """What a mean over positions is about."""
        ...

    @property
    def is_self_labelled(self) -> bool:
        """Whether the target of a position is in the row itself, so that no row lacks a label."""
        ...

    @property
    def label_names(self) -> tuple[str, ...]:
        """() of rows without classes."""
        ...

    @property
    def domain_names(self) -> tuple[str, ...]: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def num_dropped(self) -> int:
        """Empty texts, which are no rows."""
        ...

    @property
    def num_unlearnable(self) -> int:
        """Texts without a token to learn, which are in no row."""
        ...

    def rows(self, split: str) -> range: ...
    def labels_of(self, rows: Ids) -> np.ndarray:
        """int64[n], UNLABELLED where a row has none."""
        ...

    def domains_of(self, rows: Ids) -> np.ndarray:
        """int64[n] indices into domain_names, -1 for a row without a domain."""
        ...

    def place_of(self, row: int, split: str) -> str:
        """For messages: the position of a row in its split, from 1, without dropped rows."""
        ...

    def domain_teachers_of(self, rows: Ids, names: tuple[str, ...] | list[str]) -> np.ndarray:
        """int64[n] which of ``names`` is the row's domain, -1 where none is."""
        ...


class RowsFile:
    """Read access to one file; cheap to open, and pages are loaded only as they are touched."""

    def __init__(self, path: Path) -> None:
        self._reader = ipc.open_file(pa.memory_map(str(path)))
        self.num_batches = self._reader.num_record_batches

    def batch(self, index: int) -> pa.RecordBatch:
        return self._reader.get_batch(index)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return (self.batch(i) for i in range(self.num_batches))

    def int64(self, column: str) -> np.ndarray:
        """A whole integer column, int64[num_rows] (copied: 8 bytes a row)."""
        parts = [batch.column(column).to_numpy().astype(np.int64) for batch in self]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


def streamed(path: Path) -> Iterator[pa.RecordBatch]:
    """All batches of a file in order, each read into memory and let go with the caller's."""
    with pa.OSFile(str(path)) as source, ipc.open_file(source) as reader:
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)


def fixed_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly BATCH_ROWS, the last one shorter."""
    held: list[pa.RecordBatch] = []
    num_held = 0
    for batch in batches:
        held.append(batch)
        num_held += batch.num_rows
        if num_held < BATCH_ROWS:
            continue
        table = pa.Table.from_batches(held, schema).combine_chunks()
        num_whole = num_held - num_held % BATCH_ROWS
        yield from table.slice(0, num_whole).to_batches(BATCH_ROWS)
        held = table.slice(num_whole).to_batches()
        num_held -= num_whole
    if num_held:
        yield from pa.Table.from_batches(held, schema).combine_chunks().to_batches()


def write_rows(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write ``batches`` as they come, whose sizes are BATCH_ROWS already; returns the rows."""
    num_rows = 0
    with pa.OSFile(str(path), "wb") as sink, ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            num_rows += batch.num_rows
    return num_rows


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` when the block ends well.

    Two processes may build the same folder at once: the content is the same, so the first one
    to finish is kept and the other's work is dropped.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield building
        try:
            building.chmod(0o755)  # mkdtemp's 0700 would hide a shared cache from other users
            os.rename(building, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
