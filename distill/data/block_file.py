"""Blocks of packed sequences on disk: written as a stream, memory-mapped, padded on request.

Shape suffixes: B blocks, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from distill.data.rows import RowsFile, write_rows

BLOCK_ROWS = 64  # of a record batch: a block may be a hundred times a classifier's text

Rows = Sequence[int] | np.ndarray | range
FIELDS = {
    "input_ids": pa.list_(pa.int32()),
    "targets": pa.list_(pa.uint8()),  # of each token
    "sizes": pa.list_(pa.int32()),  # tokens of each sequence
}


class PaddedBlocks(NamedTuple):
    """Blocks padded on the right to the longest of them.

    Positions restart at each sequence, and at the padding, which so is one more sequence.
    """

    input_ids_BT: np.ndarray  # int64
    position_ids_BT: np.ndarray  # int64
    targets_BT: np.ndarray  # bool: token t + 1 is to be predicted from token t


class BlockFile:
    """Opens the folder that ``write_blocks`` wrote."""

    def __init__(self, folder: Path, pad_id: int) -> None:
        self._file = RowsFile(folder / "blocks.arrow")
        self._lengths = np.load(folder / "lengths.npy", mmap_mode="r")
        self._num_targets = np.load(folder / "num_targets.npy", mmap_mode="r")
        self.pad_id = pad_id

    def lengths(self, rows: Rows) -> np.ndarray:
        """int64[n] tokens of each block."""
        return self._lengths[np.asarray(rows, np.int64)].astype(np.int64)

    def num_targets(self, rows: Rows) -> np.ndarray:
        """int64[n] positions of each block whose next token is to be predicted."""
        return self._num_targets[np.asarray(rows, np.int64)].astype(np.int64)

    def column(self, name: str, rows: Rows) -> Iterator[np.ndarray]:
        """One column of any blocks, in their order: views of mapped memory."""
        for row in np.asarray(rows, np.int64).tolist():
            values: Any = self._file.batch(row // BLOCK_ROWS).column(name)
            start, stop = values.offsets[row % BLOCK_ROWS : row % BLOCK_ROWS + 2].to_pylist()
            yield values.values.to_numpy()[start:stop]

    def padded(self, rows: Rows) -> PaddedBlocks:
        shape = (len(rows), int(self.lengths(rows).max(initial=0)))
        ids_BT = np.full(shape, self.pad_id, np.int64)
        positions_BT = np.empty(shape, np.int64)
        targets_BT = np.zeros(shape, bool)
        columns = [self.column(name, rows) for name in FIELDS]
        for b, (ids, targets, sizes) in enumerate(zip(*columns, strict=True)):
            ids_BT[b, : len(ids)] = ids
            targets_BT[b, : len(ids)] = targets
            positions_BT[b] = positions([*sizes.tolist(), shape[1] - len(ids)])
        return PaddedBlocks(ids_BT, positions_BT, targets_BT)


def positions(sizes: Sequence[int]) -> np.ndarray:
    """int64[sum of sizes] that restart at each sequence."""
    starts = np.cumsum(sizes) - sizes
    return np.arange(sum(sizes)) - np.repeat(starts, sizes)


def write_blocks(folder: Path, extra: dict[str, pa.DataType], blocks: Iterable[dict]) -> None:
    """Write blocks as they come: a list under each of FIELDS and of ``extra``."""
    schema = pa.schema(FIELDS | extra)
    lengths: list[int] = []
    num_targets: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        held: list[dict] = []
        for block in blocks:
            held.append(block)
            lengths.append(len(block["input_ids"]))
            num_targets.append(int(np.sum(block["targets"])))
            if len(held) == BLOCK_ROWS:
                yield _as_batch(held, schema)
                held = []
        if held:
            yield _as_batch(held, schema)

    write_rows(folder / "blocks.arrow", schema, batches())
    np.save(folder / "lengths.npy", np.array(lengths, np.int32))
    np.save(folder / "num_targets.npy", np.array(num_targets, np.int32))


def _as_batch(held: list[dict], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        values = [block[field.name] for block in held]
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
        flat = pa.array(np.concatenate(values), field.type.value_type)
        arrays.append(pa.ListArray.from_arrays(offsets, flat, type=field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
