"""Finished fits and teachers' outputs in a folder that experiments share.

<memory.path>/fits/<content key>/        done.json, best.safetensors, metrics.jsonl, shape.json: all
                                         that is_done and load_best need; job.json: the description
                                         that the key was made of; manifest.json: sha256 and bytes
<memory.path>/answers/<fingerprint>/     see teachers/cache.py

<folder of a fit>/content-key            the key that it was started with

An entry appears by a rename, complete, and is never changed; any number of runs use the folder at
once. Nothing in it is unpickled. The exported model is not kept: it is written again from the best
weights, with the new job's name.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from distill.config import Cache
from distill.config.memory import SharedMemory
from distill.driver.memory.content import Contents, content_key, description
from distill.driver.memory.entries import MANIFEST, Entry, entries
from distill.errors import CacheError
from distill.models.shape import FILE as SHAPE
from distill.models.shape import is_begun
from distill.training.checkpoints import sha256
from distill.training.fit import is_done
from distill.training.job import Job
from distill.wording import counted

BEST, DONE, LOG = "best.safetensors", "done.json", "metrics.jsonl"
KEPT = (BEST, LOG, SHAPE, DONE)
"""The files of a fit, in the order in which they are placed: ``done.json`` last."""

KEY = "content-key"
"""In the folder of a fit that was started with a shared memory: the key at its start."""

Say = Callable[[str], None]


class NoMemory:
    """Shares nothing: every run keeps its outputs and trains its fits itself."""

    def answers(self, cache: Cache) -> Path | None:
        return None

    def hold(self, folder: Path) -> None:
        pass

    def restore(self, job: Job) -> bool:
        return False

    def keep(self, job: Job) -> None:
        pass

    def count(self, timings: Mapping[str, float]) -> None:
        pass

    def metrics(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass


class Memory:
    """One run's view of the folder ``settings.path``. Not thread-safe.

    ``say`` gets a line for each fit that is found, removed or cannot be kept.
    """

    def __init__(self, settings: SharedMemory, say: Say) -> None:
        assert settings.path is not None
        self._root = Path(settings.path).absolute()
        self._limit = settings.limit_mb * 1e6
        self._limit_mb = settings.limit_mb
        self._say = say
        self._contents = Contents()
        self._locks: list[int] = []
        self._trained: set[str] = set()  # folders of the fits that this run trains
        self._fits = {"hits": 0, "accesses": 0}
        self._answers = {"hits": 0.0, "accesses": 0.0}
        self.trim()

    # ---- teachers' outputs

    def answers(self, cache: Cache) -> Path | None:
        """The folder of teachers' outputs, by their content; None: the run uses its own, or that
        of ``cache.path``."""
        is_shared = cache.type == "arrow" and cache.path is None
        return self._root / "answers" if is_shared else None

    def hold(self, folder: Path) -> None:
        """Use a teacher's outputs until the run ends: they are not removed meanwhile.

        Raises CacheError for a folder that cannot be written.
        """
        entry = Entry(folder)
        try:
            self._locks.append(entry.create())
            entry.touch()
        except OSError as error:
            raise CacheError(
                f"memory.path {self._root} cannot be written ({error}): set a folder that you can "
                "write to, or cache.path for the teachers' outputs alone"
            ) from None

    def count(self, timings: Mapping[str, float]) -> None:
        """Add the rows of a stream's timings: ``teacher.<name>.rows`` and ``….cached_rows``."""
        for name, value in timings.items():
            if name.startswith("teacher.") and name.endswith(".cached_rows"):
                computed = timings.get(f"{name.removesuffix('.cached_rows')}.rows", 0.0)
                self._answers["hits"] += value
                self._answers["accesses"] += value + computed

    # ---- fits

    def restore(self, job: Job) -> bool:
        """Place the finished fit of an equal job into ``job.folder``, if there is one.

        A folder that is finished, or has checkpoints of its own, is not touched. A job is looked up
        once, however often this is called.
        """
        if is_done(job) or job.folder in self._trained:
            return False
        if is_begun(Path(job.folder)):
            self._trained.add(job.folder)
            return False
        self._fits["accesses"] += 1
        key = content_key(job, self._contents)
        if not self._place(job, key):
            self._trained.add(job.folder)
            Path(job.folder).mkdir(parents=True, exist_ok=True)
            (Path(job.folder) / KEY).write_text(key)
            return False
        self._fits["hits"] += 1
        self._say(f"{job.name}: found in the shared memory, not trained again")
        return True

    def keep(self, job: Job) -> None:
        """Keep the fit of ``job``, if it is finished, for later runs.

        Not one that was started without the memory, or as another job, which a run that resumes may
        change it to (ranks; other weights in the same folder).
        """
        if not is_done(job):
            return
        if job.folder in self._trained:
            self._trained.remove(job.folder)
            self._count_answers(job)
        key, begun = content_key(job, self._contents), Path(job.folder) / KEY
        entry = self._entry(key)
        if entry.folder.exists() or not begun.exists() or begun.read_text() != key:
            return
        num_bytes = sum(path.stat().st_size for path in _files(Path(job.folder)))
        if num_bytes > self._limit:
            self._say(
                f"{job.name} is not kept in the shared memory: it has {_mb(num_bytes)}, more than "
                f"memory.limit_mb {self._limit_mb:g}"
            )
            return
        try:
            self._write(job, entry.folder)
        except OSError as error:
            self._say(f"{job.name} could not be kept in the shared memory {self._root}: {error}")

    def _entry(self, key: str) -> Entry:
        return Entry(self._root / "fits" / key)

    def _place(self, job: Job, key: str) -> bool:
        entry = self._entry(key)
        try:
            lock = entry.share()
            if lock is None:
                return False
            try:
                if (fault := _fault(entry.folder)) is None:
                    entry.touch()
                    _copy(entry.folder, Path(job.folder))
                    return True
            finally:
                os.close(lock)
            entry.remove()
        except OSError as error:  # of another user, or on storage that fails
            fault = str(error)
        self._say(
            f"{job.name}: its fit in the shared memory cannot be used ({fault}): trained again"
        )
        return False

    def _write(self, job: Job, folder: Path) -> None:
        building = Entry(folder.with_name(f".building-{uuid4().hex}"))
        lock = building.create()
        try:
            sums = {}
            for path in _files(Path(job.folder)):
                kept = building.folder / path.name
                _link(path, kept)
                sums[path.name] = {"sha256": sha256(kept), "bytes": kept.stat().st_size}
            described = json.dumps(description(job, self._contents), indent=1, sort_keys=True)
            (building.folder / "job.json").write_text(described, "utf-8")
            manifest = {"job": job.name, "made": time.time(), "files": sums}
            content = json.dumps(manifest, indent=1, ensure_ascii=False)
            (building.folder / MANIFEST).write_text(content, "utf-8")
            building.touch()
            try:
                os.rename(building.folder, folder)
            except OSError:
                if not folder.exists():
                    raise
                # Another run was first: its entry is as good.
        finally:
            os.close(lock)
            shutil.rmtree(building.folder, ignore_errors=True)

    def _count_answers(self, job: Job) -> None:
        if job.teacher_setup is not None:
            for line in (Path(job.folder) / LOG).read_text("utf-8").splitlines():
                self.count(json.loads(line)["metrics"])

    # ---- the limit, and the end

    def trim(self) -> None:
        """Remove the least recently used entries until the rest is within the limit."""
        try:
            self._trim()
        except OSError as error:  # an entry of another user
            self._say(f"shared memory: {self._root} could not be brought within its limit: {error}")

    def _trim(self) -> None:
        found = [e for kind in ("answers", "fits") for e in entries(self._root / kind)]
        for entry in [entry for entry in found if entry.is_hidden]:
            entry.remove()  # left behind by a killed process, unless it is in use
            found.remove(entry)
        sizes = {entry: entry.num_bytes for entry in found}
        total = sum(sizes.values())
        for entry in sorted(found, key=lambda entry: entry.used):
            if total <= self._limit:
                return
            name, size = entry.name, sizes[entry]
            if entry.remove():
                total -= size
                is_alone = size > self._limit
                why = "it alone is larger than" if is_alone else "least recently used, above"
                self._say(
                    f"shared memory: removed {name} ({_mb(size)}): {why} memory.limit_mb "
                    f"{self._limit_mb:g}"
                )
        if total > self._limit:
            self._say(
                f"shared memory: {_mb(total)} are in use by other runs, above memory.limit_mb "
                f"{self._limit_mb:g}"
            )

    def metrics(self) -> dict[str, float]:
        """``memory.…``: what this run found, and what it looked for."""
        return {
            "memory.students.hits": float(self._fits["hits"]),
            "memory.students.accesses": float(self._fits["accesses"]),
            "memory.answers.hits": self._answers["hits"],
            "memory.answers.accesses": self._answers["accesses"],
        }

    def close(self) -> None:
        """Print what was found, and give back what the run used."""
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()
        if any(self.metrics().values()):
            fits = counted(self._fits["accesses"], "fit")
            rows = counted(int(self._answers["accesses"]), "teacher output")
            self._say(
                f"shared memory: {self._fits['hits']} of {fits} found, "
                f"{int(self._answers['hits']):,} of {rows} read from the cache"
            )
        self.trim()


def open_memory(settings: SharedMemory, say: Say) -> Memory | NoMemory:
    """The memory that the configuration asks for."""
    return NoMemory() if settings.path is None else Memory(settings, say)


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in KEPT if (folder / name).exists()]


def _fault(folder: Path) -> str | None:
    """What is wrong with an entry: every file must have the bytes that were written."""
    try:
        sums: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        names = {path.name for path in _files(folder)}
        if names != sums.keys() or not {BEST, DONE} <= names:
            return f"its files are not those in {MANIFEST}"
        for name, kept in sums.items():
            if sha256(folder / name) != kept["sha256"]:
                return f"the sha256 of {name} differs"
    except OSError as error:
        return str(error)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is unreadable"
    return None


def _copy(source: Path, folder: Path) -> None:
    """Atomic: the fit is finished once ``done.json`` is there, which is placed last."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in _files(source):
        partial = folder / f"{path.name}.partial"
        partial.unlink(missing_ok=True)
        _link(path, partial)
        os.replace(partial, folder / path.name)


def _link(source: Path, target: Path) -> None:
    """The same bytes: weights, which no one writes in place, as a hard link where that is possible;
    the log, to which lines are appended, as a copy."""
    if source.name == BEST:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(source, target)


def _mb(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
