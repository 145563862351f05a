"""Entries of the shared memory: folders with a lock, a time of last use, a size.

<entry>/lock   whoever uses the entry holds a shared lock on it, which ends with the process
<entry>/used   seconds since 1970 of the last use, as text: not every file system keeps the
               time of a file's last access

An entry is removed by renaming it first, so that nobody finds half of one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

LOCK, USED, MANIFEST = "lock", "used", "manifest.json"


@dataclass(frozen=True)
class Entry:
    folder: Path

    @property
    def is_hidden(self) -> bool:
        """Being made or removed, or left behind by a killed process."""
        return self.folder.name.startswith(".")

    @property
    def name(self) -> str:
        """For messages: of the fit or teacher that the entry was made for."""
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text("utf-8"))
            return str(manifest.get("job") or f"outputs of {manifest['teacher']}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return self.folder.name

    @property
    def used(self) -> float:
        """Seconds since 1970; 0 if it was never recorded."""
        try:
            return float((self.folder / USED).read_text())
        except (OSError, ValueError):
            return 0.0

    @property
    def num_bytes(self) -> int:
        total = 0
        for path in self.folder.rglob("*"):
            try:
                total += path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:  # renamed by its writer
                continue
        return total

    def touch(self) -> None:
        """Record that the entry is used now."""
        partial = self.folder / f".{USED}-{uuid4().hex}"
        partial.write_text(str(time.time()))
        os.replace(partial, self.folder / USED)

    def share(self) -> int | None:
        """A descriptor with a shared lock, to be closed after use; None if there is no entry."""
        while True:
            try:
                lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                return None
            fcntl.flock(lock, fcntl.LOCK_SH)
            if self._is_ours(lock):
                return lock
            os.close(lock)  # it was removed before the lock was ours

    def create(self) -> int:
        """As :meth:`share`, of a folder that is made where there is none."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self.share()
            if lock is not None:
                return lock

    def remove(self) -> bool:
        """Remove the entry unless it is in use; whether it is gone."""
        try:
            lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            return not self.folder.exists()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_ours(lock):
                removed = self.folder.with_name(f".removed-{uuid4().hex}")
                os.replace(self.folder, removed)
                shutil.rmtree(removed, ignore_errors=True)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    def _is_ours(self, lock: int) -> bool:
        """Whether the lock is still that of the folder with this name."""
        try:
            return os.path.samestat(os.stat(self.folder / LOCK), os.fstat(lock))
        except FileNotFoundError:
            return False


def entries(folder: Path) -> list[Entry]:
    """All in ``folder``, hidden ones too."""
    return [Entry(path) for path in sorted(folder.iterdir())] if folder.is_dir() else []
