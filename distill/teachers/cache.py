"""What teachers have answered, kept in Arrow files: written once, read by every epoch and run.

A teacher has one folder, named after a fingerprint of all that decides its answers. In it every
writer adds *segments*, immutable Arrow IPC files whose names carry their SHA-256; nothing is ever
changed in place, so ranks and runs share a folder without locks. Payloads are kept as the wire
sent them. A row is answered in the batch that first met it; other batch shapes would round its
float32 logits differently in the last bits, so whoever needs the same bits shares the cache.

Shape suffixes: B rows requested, P positions, X a position's payload (any shape).
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from distill.config import Cache as CacheConfig
from distill.config import Cut
from distill.errors import CacheError
from distill.names import folder_name
from distill.records import Head
from distill.teachers.segments import CachedOutputs, Shelf, nothing, write_atomically

logger = logging.getLogger(__name__)

SEGMENT_ROWS = 8192
"""Rows held in memory before they are written out."""

HEAD = "head.safetensors"
HEAD_WAIT_S = 60.0
"""Longest wait of a process for the output layer that another one requests. The other may wait for
a teacher that is away: all then give up at the same time, not one after the other."""
LOCK_POLL_S = 0.05

SEGMENT_BYTES = 1 << 26
"""And bytes: a language model's rows are large."""

_WORDS = {
    "weights": "other weights",
    "data": "other data",
    "tokenizer": "another tokenizer",
    "wire": "another wire",
    "max_length": "another max_length",
    "cut": "another data.cut",
    "moe": "another moe.type",
    "shared": "a student with another tokenizer",
    "pooling": "rows that were read at their padding",
}


@dataclass(frozen=True)
class TeacherKey:
    """All that determines a teacher's output for a row id. Fingerprints are hex SHA-256."""

    weights: str
    data: str
    tokenizer: str
    wire: str
    max_length: int
    cut: Cut = "head"
    moe: str = "own"
    """Of mixtures of experts, which experts ran."""
    shared: str = ""
    """Which of the teacher's columns are compared; empty: all of them."""
    pooling: str = ""
    """Where a decoder's rows are read, if older versions read them elsewhere; see pooling.py."""

    @property
    def text(self) -> dict[str, Any]:
        """As manifests keep it: without those that are what older versions did."""
        older = {"cut": "head", "moe": "own", "shared": "", "pooling": ""}
        return {k: value for k, value in asdict(self).items() if older.get(k) != value}

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.text, sort_keys=True).encode()).hexdigest()


NO_KEY = TeacherKey("", "", "", "", 0)
"""Of a teacher whose outputs are not cached."""


class NoCache:
    """Caches no outputs: every row is requested again in every epoch."""

    messages: tuple[str, ...] = ()

    def __init__(self, cache_folders: Mapping[str, Path] | None = None) -> None:
        """``cache_folders``: folders of the output layers, which are kept all the same."""
        self._cache_folders = dict(cache_folders or {})

    def get(self, teacher: str, rows_B: np.ndarray) -> CachedOutputs:
        return nothing(len(rows_B))

    def put(
        self,
        teacher: str,
        rows_B: np.ndarray,
        payload_PX: np.ndarray,
        counts_B: np.ndarray | None = None,
    ) -> np.ndarray:
        """As of TeacherCache; a payload that is this process's own is not copied."""
        return payload_PX if payload_PX.flags.writeable else payload_PX.copy()

    def head(self, teacher: str, request: Callable[[], Head]) -> Head:
        cache_folder = self._cache_folders.get(teacher)
        return request() if cache_folder is None else _shared_head(cache_folder, request)

    def num_rows(self, teacher: str) -> int:
        return 0

    def flush(self) -> None:
        pass

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass


class TeacherCache:
    """One writer's view of the folder. Thread-safe.

    ``segment_rows`` are written at once; ``memory`` is the folder to let go of at the end.
    ``by_content``: see :func:`cache_folder_of`. ``writer_id`` names this writer's files
    (``rank0``).
    ``messages`` holds what the user should know, e.g. why an existing cache was not used. Raises
    CacheError for a damaged file.
    """

    def __init__(
        self,
        folder: str | Path,
        keys: dict[str, TeacherKey],
        writer_id: str,
        *,
        segment_rows: int = SEGMENT_ROWS,
        memory: "MemoryFolder | None" = None,
        by_content: bool = False,
    ) -> None:
        self.messages: list[str] = []
        self._lock = threading.Lock()
        self._segment_rows = segment_rows
        self._memory = memory
        # One thread: the student does not wait while a segment is hashed and written.
        self._writer = ThreadPoolExecutor(1, "cache-writer")
        self._shelves: dict[str, Shelf] = {}
        for teacher, key in keys.items():
            cache_folder = cache_folder_of(folder, teacher, key, by_content)
            if not (cache_folder / "manifest.json").exists():
                if not by_content:  # whose folder has many other keys
                    self._say_what_changed(Path(folder), teacher, key)
                _write_manifest(cache_folder, teacher, key)
            self._shelves[teacher] = Shelf(cache_folder, writer_id)
        self.refresh()

    def get(self, teacher: str, rows_B: np.ndarray) -> CachedOutputs:
        """Which rows are known, and the payloads of these."""
        with self._lock:
            return self._shelves[teacher].get(np.asarray(rows_B))

    def put(
        self,
        teacher: str,
        rows_B: np.ndarray,
        payload_PX: np.ndarray,
        counts_B: np.ndarray | None = None,
    ) -> np.ndarray:
        """Keep answers; they are served at once, and written when ``segment_rows`` are held.

        ``counts_B``: positions of each row; None: one each. Returns the copy that is kept, to be
        read in place of the payload: a view of that would keep the whole answer in Ray's object
        store. Raises what writing an earlier segment raised.
        """
        counts_B = np.ones(len(rows_B), np.int64) if counts_B is None else counts_B
        assert counts_B.sum() == len(payload_PX)
        with self._lock:
            shelf = self._shelves[teacher]
            kept_PX = np.array(payload_PX)
            shelf.hold(np.asarray(rows_B), kept_PX, counts_B)
            if len(shelf.held) >= self._segment_rows or shelf.held_bytes >= SEGMENT_BYTES:
                shelf.write_in_background(self._writer)
        return kept_PX

    def head(self, teacher: str, request: Callable[[], Head]) -> Head:
        """The output layer that belongs to this teacher's hidden states.

        Requested and written once for all processes that share the folder. They map the same file,
        so that those of a node have one copy of it in memory; nothing may write into it.
        """
        shelf = self._shelves.get(teacher)
        return request() if shelf is None else _shared_head(shelf.folder, request)

    def num_rows(self, teacher: str) -> int:
        with self._lock:
            return self._shelves[teacher].num_rows

    def flush(self) -> None:
        """Write everything held, one segment a teacher; other writers see it on refresh."""
        with self._lock:
            for shelf in self._shelves.values():
                shelf.flush()

    def refresh(self) -> None:
        """Take up what other ranks and runs have written. Raises CacheError for a damaged file."""
        with self._lock:
            for shelf in self._shelves.values():
                shelf.refresh()

    def close(self) -> None:
        """Write what is held; a cache in memory is gone once its last user has closed it."""
        try:
            if self._memory is None:
                self.flush()
        finally:
            self._writer.shutdown()
        if self._memory is not None:
            self._memory.close()

    def _say_what_changed(self, folder: Path, teacher: str, key: TeacherKey) -> None:
        changes = []
        for manifest in sorted(folder.glob(f"{folder_name(teacher)}-*/manifest.json")):
            found = _read_manifest(manifest)
            if found.get("teacher") == teacher:
                old = found.get("key", {})
                text = key.text
                changes.append([w for k, w in _WORDS.items() if old.get(k) != text.get(k)])
        if changes:
            nearest = " and ".join(min(changes, key=len))
            message = f"teacher cache of {teacher!r} was made for {nearest}: building a new one"
            self.messages.append(message)
            logger.warning(message)


Cache = TeacherCache | NoCache


def _shared_head(
    cache_folder: Path, request: Callable[[], Head], wait_s: float = HEAD_WAIT_S
) -> Head:
    path = cache_folder / HEAD
    if not path.exists():
        cache_folder.mkdir(parents=True, exist_ok=True)
        with open(cache_folder / ".head-lock", "w") as lock:
            _lock(lock, wait_s)
            if not path.exists():
                _write_head(path, request())
    return _read_head(path)


def _lock(file: TextIO, wait_s: float) -> None:
    """Without the lock after ``wait_s``, or on a file system that has none: the output layer is
    then requested more than once, which is only slower."""
    give_up = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return
            time.sleep(LOCK_POLL_S)
        except OSError:
            return


def _read_head(path: Path) -> Head:
    try:
        kept = load_file(path)  # mapped, not copied
    except (SafetensorError, OSError):
        raise CacheError(
            f"teacher cache file {path} is damaged: delete it and run again: the teacher sends "
            "it again"
        ) from None
    return Head(kept["weight"], kept.get("bias"))


def _write_head(path: Path, head: Head) -> None:
    tensors = {"weight": head.weight_VH, "bias": head.bias_V}
    write_atomically(path, save({n: t.contiguous() for n, t in tensors.items() if t is not None}))


def cache_folder_of(
    folder: str | Path, teacher: str, key: TeacherKey, by_content: bool = False
) -> Path:
    """The folder of one teacher's outputs in a cache.

    ``by_content``: the same for equal teachers with different names, as in the shared memory.
    """
    name = "" if by_content else f"{folder_name(teacher)}-"
    return Path(folder) / f"{name}{key.fingerprint[: 32 if by_content else 12]}"


def open_cache(
    cache: CacheConfig,
    folder: str | Path,
    keys: dict[str, TeacherKey],
    writer_id: str,
    by_content: bool = False,
) -> Cache:
    """The cache that the configuration asks for; ``folder`` is used if it names none.

    A cache in memory is shared by all processes of a node that open it with the same folder.
    ``by_content``: see :func:`cache_folder_of`.
    """
    folder = Path(cache.path or folder)
    if cache.type == "none":
        return NoCache(
            {name: cache_folder_of(folder, name, key, by_content) for name, key in keys.items()}
        )
    if cache.type == "memory":
        memory = MemoryFolder(folder)
        return TeacherCache(memory.path, keys, writer_id, memory=memory)
    return TeacherCache(folder, keys, writer_id, by_content=by_content)


def _write_manifest(cache_folder: Path, teacher: str, key: TeacherKey) -> None:
    manifest = {"teacher": teacher, "fingerprint": key.fingerprint, "key": key.text}
    write_atomically(cache_folder / "manifest.json", json.dumps(manifest, indent=2).encode())


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise CacheError(
            f"teacher cache file {path} is damaged: delete the folder {path.parent} and run "
            "again: the teachers are queried again only for the missing rows"
        ) from None


class MemoryFolder:
    """A folder in RAM that stands for ``folder``; its last user removes it.

    Every user holds a shared lock, which ends with its process: what a killed run left behind is
    taken up by the same run when it is resumed, and removed by any other.
    """

    def __init__(self, folder: str | Path, root: str | Path | None = None) -> None:
        shared_memory = Path("/dev/shm")
        in_ram = shared_memory.is_dir() and os.access(shared_memory, os.W_OK)
        root = Path(root or (shared_memory if in_ram else tempfile.gettempdir()))
        place = hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16]
        # The user in the name: another's folder could neither be read nor removed.
        self.path = root / f"distill-cache-{os.getuid()}-{place}"
        for other in root.glob(f"distill-cache-{os.getuid()}-*"):
            if other != self.path:
                _remove_if_unused(other)
        self._lock: int | None = _share(self.path)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            _remove_if_unused(self.path)


def _share(folder: Path) -> int:
    """A descriptor that holds a shared lock on the folder."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # its last user is just removing it
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            if os.path.samestat(os.stat(folder / "lock"), os.fstat(lock)):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)


def _remove_if_unused(folder: Path) -> None:
    try:
        lock = os.open(folder / "lock", os.O_RDWR)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # in use
    finally:
        os.close(lock)
