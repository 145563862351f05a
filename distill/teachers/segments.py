"""One teacher's outputs in one folder: immutable Arrow IPC files, and an index over them.

A row has one position, or, of a language model, as many as it has tokens to predict.

Shape suffixes: B rows requested, N rows found or written, P their positions, X a position's
payload (any shape).
"""

import hashlib
import json
import os
import tempfile
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from distill.errors import CacheError

NO_ROWS = np.empty(0, np.int64)


class CachedOutputs(NamedTuple):
    """What is cached of the requested rows."""

    hit_B: np.ndarray  # bool
    payload_PX: np.ndarray  # of the hits, in the order of the rows
    counts_N: np.ndarray  # int64: positions of each hit


def nothing(num_rows: int) -> CachedOutputs:
    return CachedOutputs(np.zeros(num_rows, bool), NO_ROWS, NO_ROWS)


class _Segment(NamedTuple):
    payload_PX: np.ndarray  # memory-mapped
    starts: np.ndarray  # int64[N + 1]: where each row's positions begin and end


class Shelf:
    """One teacher's segments, their index, and what is not yet written."""

    def __init__(self, folder: Path, writer_id: str) -> None:
        self.folder = folder
        self.writer_id = writer_id
        self.held: dict[int, np.ndarray] = {}  # of each row [P, …]
        self.held_bytes = 0
        self._sealed: dict[int, np.ndarray] = {}  # rows of the segment that is being written
        self._written: Future[Path] | None = None  # where
        self.rows = NO_ROWS  # sorted, unique
        self._segment = NO_ROWS  # of each row: which segment, and where in it
        self._position = NO_ROWS
        self._segments: list[_Segment] = []
        self._loaded: set[str] = set()

    def hold(self, rows_B: np.ndarray, payload_PX: np.ndarray, counts_B: np.ndarray) -> None:
        """Keep answers until they are written. Raises what writing the last segment raised."""
        self._settle(wait=False)
        parts = np.split(payload_PX, np.cumsum(counts_B)[:-1])
        self.held.update(zip(rows_B.tolist(), parts, strict=True))
        self.held_bytes += payload_PX.nbytes

    @property
    def num_rows(self) -> int:
        in_memory = np.array([*self._sealed, *self.held], np.int64)
        return len(np.union1d(self.rows, in_memory))

    def get(self, rows_B: np.ndarray) -> CachedOutputs:
        at_B = np.searchsorted(self.rows, rows_B)
        at_B = np.minimum(at_B, max(0, len(self.rows) - 1))
        stored_B = self.rows[at_B] == rows_B if len(self.rows) else np.zeros(len(rows_B), bool)
        parts: dict[int, np.ndarray] = {}  # by place in rows_B: those that are not in a file yet
        for b in np.flatnonzero(~stored_B).tolist():
            row = int(rows_B[b])
            # What was met first is served again.
            part = self._sealed.get(row, self.held.get(row))
            if part is not None:
                parts[b] = part
        hit_B = stored_B.copy()
        hit_B[list(parts)] = True
        if not hit_B.any():
            return nothing(len(rows_B))
        segment_B = np.where(stored_B, self._segment[at_B] if len(self.rows) else 0, -1)
        counts_B = np.zeros(len(rows_B), np.int64)
        begins_B = np.zeros(len(rows_B), np.int64)  # where in its segment
        for index in np.unique(segment_B[stored_B]):
            here_B = segment_B == index
            starts, places = self._segments[index].starts, self._position[at_B[here_B]]
            begins_B[here_B], counts_B[here_B] = starts[places], np.diff(starts)[places]
        for b, part in parts.items():
            counts_B[b] = len(part)
        like = next(iter(parts.values())) if parts else self._segments[0].payload_PX
        found_PX = np.empty((int(counts_B.sum()), *like.shape[1:]), like.dtype)
        into_B = np.cumsum(counts_B) - counts_B
        for index in np.unique(segment_B[stored_B]):
            here_B = segment_B == index
            payload_PX = self._segments[index].payload_PX
            places = _ranges(begins_B[here_B], counts_B[here_B])
            found_PX[_ranges(into_B[here_B], counts_B[here_B])] = payload_PX[places]
        for b, part in parts.items():
            found_PX[into_B[b] : into_B[b] + counts_B[b]] = part
        return CachedOutputs(hit_B, found_PX, counts_B[hit_B])

    def write_in_background(self, writer: Executor) -> None:
        """Have ``writer`` write what is held, which is served meanwhile. One segment at a time: if
        the last one is not written yet, wait for it, so that memory stays bounded."""
        self._settle(wait=True)
        self._sealed, self.held, self.held_bytes = self.held, {}, 0
        self._written = writer.submit(_write_rows, self.folder, self.writer_id, self._sealed)

    def flush(self) -> None:
        """Write all that is held."""
        self._settle(wait=True)
        if not self.held:
            return
        self._add(_write_rows(self.folder, self.writer_id, self.held), check=False)
        self.held = {}
        self.held_bytes = 0

    def _settle(self, wait: bool) -> None:
        """Read the segment written behind from its file from now on, if it is whole."""
        if self._written is None or not (wait or self._written.done()):
            return
        self._add(self._written.result(), check=False)
        self._sealed, self._written = {}, None

    def refresh(self) -> None:
        self._settle(wait=True)
        for path in sorted(self.folder.glob("segment-*.arrow")):
            if path.name not in self._loaded:
                self._add(path, check=True)

    def _add(self, path: Path, check: bool) -> None:
        if check and _digest(path) != path.stem.split("-")[-1]:
            raise CacheError(
                f"teacher cache file {path} fails its checksum (cut or damaged): delete it, or "
                f"the folder {path.parent}, and run again: the teachers are queried again only for "
                "what is missing"
            )
        rows_N, found = _read_segment(path)
        self._loaded.add(path.name)
        self._segments.append(found)
        segment_N = np.full(len(rows_N), len(self._segments) - 1)
        rows = np.concatenate([self.rows, rows_N])
        # unique keeps the first: what this process has served once, it serves again.
        self.rows, first = np.unique(rows, return_index=True)
        self._segment = np.concatenate([self._segment, segment_N])[first]
        self._position = np.concatenate([self._position, np.arange(len(rows_N))])[first]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ranges(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """begins[0], begins[0] + 1, … (counts[0] of them), begins[1], …"""
    skipped = begins - (np.cumsum(counts) - counts)
    return np.repeat(skipped, counts) + np.arange(int(counts.sum()))


def _write_rows(folder: Path, writer_id: str, rows: dict[int, np.ndarray]) -> Path:
    rows_N = np.fromiter(rows, np.int64, len(rows))
    counts_N = np.array([len(part) for part in rows.values()], np.int64)
    return _write_segment(folder, writer_id, rows_N, np.concatenate(list(rows.values())), counts_N)


def _write_segment(
    folder: Path, writer_id: str, rows_N: np.ndarray, payload_PX: np.ndarray, counts_N: np.ndarray
) -> Path:
    shape = payload_PX.shape[1:]
    position_bytes = payload_PX.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    values = pa.py_buffer(np.ascontiguousarray(payload_PX))
    if (counts_N == 1).all():
        kind, buffers = pa.binary(position_bytes), [None, values]
    else:
        ends = np.concatenate([[0], np.cumsum(counts_N)]) * position_bytes
        kind, buffers = pa.large_binary(), [None, pa.py_buffer(ends), values]
    schema = pa.schema(
        [("row", pa.int64()), ("payload", kind)],
        metadata={"dtype": str(payload_PX.dtype), "shape": json.dumps(shape)},
    )
    payload = pa.Array.from_buffers(kind, len(rows_N), buffers)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array(rows_N), payload], schema=schema))
    content = sink.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return write_atomically(folder / f"segment-{writer_id}-{digest}.arrow", content)


def _read_segment(path: Path) -> tuple[np.ndarray, _Segment]:
    """Row ids [N] and their payloads, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    metadata: dict[bytes, bytes] = batch.schema.metadata or {}
    dtype, shape = np.dtype(metadata[b"dtype"].decode()), json.loads(metadata[b"shape"])
    column = batch.column(1)
    values = column.buffers()[-1]
    assert values is not None
    numbers = int(np.prod(shape, dtype=np.int64))
    if pa.types.is_large_binary(column.type):
        offsets = np.frombuffer(column.buffers()[1], np.int64, len(batch) + 1)
        starts = offsets // (dtype.itemsize * numbers)
    else:
        starts = np.arange(len(batch) + 1)
    payload_PX = np.frombuffer(values, dtype, int(starts[-1]) * numbers)
    return batch.column(0).to_numpy(), _Segment(payload_PX.reshape(-1, *shape), starts)


def write_atomically(path: Path, content: bytes | pa.Buffer) -> Path:
    """Atomic: a temporary file next to it, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(temporary, 0o644)  # mkstemp's 0600 would shut out others who share the folder
    os.replace(temporary, path)
    return path
