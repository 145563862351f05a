"""One teacher's answers in one folder: immutable Arrow IPC files, and an index over them.

Shape suffixes: B rows asked about, N rows found or written, X a row's payload (any shape).
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from distill.errors import CacheError

NO_ROWS = np.empty(0, np.int64)


class Shelf:
    """One teacher's segments, their index, and what is not yet written."""

    def __init__(self, home: Path, writer_id: str) -> None:
        self.home = home
        self.writer_id = writer_id
        self.held: dict[int, np.ndarray] = {}
        self.rows = NO_ROWS  # sorted, unique
        self._segment = NO_ROWS  # of each row: which segment, and where in it
        self._position = NO_ROWS
        self._payloads: list[np.ndarray] = []  # memory-mapped [N, …], one a segment
        self._loaded: set[str] = set()

    def get(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at_B = np.searchsorted(self.rows, rows_B)
        at_B = np.minimum(at_B, max(0, len(self.rows) - 1))
        stored_B = self.rows[at_B] == rows_B if len(self.rows) else np.zeros(len(rows_B), bool)
        held_B = np.array([row in self.held for row in rows_B.tolist()], bool) & ~stored_B
        hit_B = stored_B | held_B
        if not hit_B.any():
            return hit_B, NO_ROWS
        like = next(iter(self.held.values())) if held_B.any() else self._payloads[0][0]
        found_BX = np.empty((len(rows_B), *like.shape), like.dtype)
        segment_B = np.where(stored_B, self._segment[at_B] if len(self.rows) else 0, -1)
        for segment in np.unique(segment_B[stored_B]):
            here_B = segment_B == segment
            found_BX[here_B] = self._payloads[segment][self._position[at_B[here_B]]]
        for b in np.flatnonzero(held_B):
            found_BX[b] = self.held[int(rows_B[b])]
        return hit_B, found_BX[hit_B]

    def flush(self) -> None:
        if not self.held:
            return
        rows_N = np.fromiter(self.held, np.int64, len(self.held))
        payload_NX = np.stack(list(self.held.values()))
        path = _write_segment(self.home, self.writer_id, rows_N, payload_NX)
        self._add(path, check=False)
        self.held.clear()

    def refresh(self) -> None:
        for path in sorted(self.home.glob("segment-*.arrow")):
            if path.name not in self._loaded:
                self._add(path, check=True)

    def _add(self, path: Path, check: bool) -> None:
        if check and _digest(path) != path.stem.split("-")[-1]:
            raise CacheError(
                f"teacher cache file {path} fails its checksum (cut or damaged): delete it, or "
                f"the folder {path.parent}, and run again: the teachers are asked again only for "
                "what is missing"
            )
        rows_N, payload_NX = _read_segment(path)
        self._loaded.add(path.name)
        self._payloads.append(payload_NX)
        segment_N = np.full(len(rows_N), len(self._payloads) - 1)
        rows = np.concatenate([self.rows, rows_N])
        # unique keeps the first: what this process has served once, it serves again.
        self.rows, first = np.unique(rows, return_index=True)
        self._segment = np.concatenate([self._segment, segment_N])[first]
        self._position = np.concatenate([self._position, np.arange(len(rows_N))])[first]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_segment(home: Path, writer_id: str, rows_N: np.ndarray, payload_NX: np.ndarray) -> Path:
    shape = payload_NX.shape[1:]
    row_bytes = payload_NX.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    schema = pa.schema(
        [("row", pa.int64()), ("payload", pa.binary(row_bytes))],
        metadata={"dtype": str(payload_NX.dtype), "shape": json.dumps(shape)},
    )
    values = pa.py_buffer(np.ascontiguousarray(payload_NX))
    payload = pa.Array.from_buffers(pa.binary(row_bytes), len(rows_N), [None, values])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array(rows_N), payload], schema=schema))
    content = sink.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return write_whole(home / f"segment-{writer_id}-{digest}.arrow", content)


def _read_segment(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Row ids [N] and payloads [N, …], memory-mapped."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    metadata: dict[bytes, bytes] = batch.schema.metadata or {}
    dtype, shape = np.dtype(metadata[b"dtype"].decode()), json.loads(metadata[b"shape"])
    values = batch.column(1).buffers()[1]
    assert values is not None
    payload_NX = np.frombuffer(values, dtype, len(batch) * int(np.prod(shape, dtype=np.int64)))
    return batch.column(0).to_numpy(), payload_NX.reshape(len(batch), *shape)


def write_whole(path: Path, content: bytes | pa.Buffer) -> Path:
    """Whole or not at all: a temporary file beside it, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(temporary, 0o644)  # mkstemp's 0600 would shut out others who share the folder
    os.replace(temporary, path)
    return path
