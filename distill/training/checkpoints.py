"""The run folder of one fit: checkpoints, metrics, best weights, and the wish to stop.

    <folder>/metrics.jsonl                   one line a report, written by rank 0
    <folder>/checkpoints/step-00000200/      engine, cursor.json, rng-<rank>.pt, manifest.json;
                                             beside-<rank>.pt of text written ahead, of gates
    <folder>/waiting.json                    exists while the fit waits for a teacher
    <folder>/best.safetensors                the module's weights at the best evaluation

A checkpoint is written next to its place and renamed once its manifest (sha256 of every file)
stands, so that a folder called step-… is whole. Checkpoints are this program's own pickles: a
manifest proves that the bytes are those it wrote, not that a stranger's folder is safe to load.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from distill.errors import CheckpointError
from distill.records import Cursor
from distill.teachers.waiting import note_away
from distill.training.loop import Engine

VERSION = "aggregation_version"
"""In a checkpoint's cursor.json and the metadata of best.safetensors; absent, as older versions of
distill wrote them: 1."""


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]:
        """This rank's share."""
        ...

    def load_state_dicts(self, saved: Sequence[dict[str, Any]]) -> None:
        """Those of all ranks that saved, which may be more or fewer than there are now."""
        ...


class FolderStore:
    """Checkpoints of one fit. ``before_save`` runs first: it flushes the teacher cache.

    ``beside``: other objects with state (text that is written ahead, gates that learn).

    ``stop``: a file that the driver makes when the user asks to stop. ``version``: of the trained
    aggregation (aggregation/mixture.py).
    """

    def __init__(
        self,
        folder: Path,
        world_size: int = 1,
        keep: int = 2,
        before_save: Callable[[], None] = lambda: None,
        stop: Path | None = None,
        beside: Stateful | None = None,
        version: int = 1,
    ) -> None:
        self.folder = folder
        self._checkpoints = folder / "checkpoints"
        self._world_size = world_size
        self._keep = keep
        self._before_save = before_save
        self._stop = stop
        self._beside = beside
        self._version = version
        folder.mkdir(parents=True, exist_ok=True)

    def restore(self, engine: Engine) -> Cursor:
        """The newest checkpoint into ``engine`` and the random state; a new Cursor if none."""
        note_away(self.folder, None)  # of a process that has ended
        engine.barrier()
        checkpoint = newest(self._checkpoints)
        if checkpoint is None:
            if engine.rank == 0:
                self._rewind_log(0)
            return Cursor()
        verify(checkpoint)
        check_version(checkpoint, self._version)
        saved = _cursor_of(checkpoint)
        if engine.is_sharded and saved["world_size"] != self._world_size:
            raise CheckpointError(
                f"{checkpoint} is sharded over {saved['world_size']} ranks: resume with "
                f"trainer.num_workers {saved['world_size']}, not {self._world_size}"
            )
        engine.load(checkpoint)
        if self._beside is not None:
            shares = sorted(checkpoint.glob("beside-*.pt"))
            self._beside.load_state_dicts([torch.load(p, weights_only=True) for p in shares])
        if engine.rank == 0:
            self._rewind_log(saved["cursor"]["step"])
        random_state = checkpoint / f"rng-{engine.rank}.pt"
        if random_state.exists():  # absent on ranks that an enlarged group adds
            restore_random(torch.load(random_state, weights_only=True))
        return Cursor(**saved["cursor"])

    def save(self, engine: Engine, cursor: Cursor) -> None:
        self._before_save()
        final = self._checkpoints / f"step-{cursor.step:08d}"
        building = self._checkpoints / f"building-{cursor.step:08d}"
        if engine.rank == 0:
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir(parents=True)
        engine.barrier()
        engine.save(building)
        if self._beside is not None:
            torch.save(self._beside.state_dict(), building / f"beside-{engine.rank}.pt")
        torch.save(random_states(), building / f"rng-{engine.rank}.pt")
        engine.barrier()
        if engine.rank == 0:
            record = {
                "cursor": asdict(cursor),
                "world_size": self._world_size,
                VERSION: self._version,
            }
            (building / "cursor.json").write_text(json.dumps(record))
            files = sorted(p for p in building.rglob("*") if p.is_file())
            sums = {str(p.relative_to(building)): sha256(p) for p in files}
            (building / "manifest.json").write_text(json.dumps(sums, indent=1))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(building, final)
            for old in checkpoints(self._checkpoints)[: -self._keep]:
                shutil.rmtree(old)
        engine.barrier()

    def save_best(self, engine: Engine, cursor: Cursor) -> None:
        state = engine.module_state()
        if engine.rank == 0:
            state = {name: tensor.contiguous() for name, tensor in state.items()}
            partial = self.folder / "best.partial"
            about = {
                "step": str(cursor.best_step),
                "value": str(cursor.best_value),
                VERSION: str(self._version),
            }
            save_file(state, partial, metadata=about)
            os.replace(partial, self.folder / "best.safetensors")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        line = json.dumps({"step": step, "time": time.time(), "metrics": metrics})
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(line + "\n")

    def _rewind_log(self, step: int) -> None:
        rewind_log(self.folder, step)

    def should_stop(self) -> bool:
        return self._stop is not None and self._stop.exists()


def rewind_log(folder: Path, step: int) -> None:
    """Drop the lines of a fit's metrics.jsonl after ``step``: those steps are run again."""
    path = folder / "metrics.jsonl"
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept))
        os.replace(partial, path)


def resumed_step(folder: Path) -> int:
    """The step that a fit in ``folder`` would go on from; 0: it would start."""
    checkpoint = newest(folder / "checkpoints")
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))


def _step_of(line: str) -> float:
    """Of a line of metrics.jsonl; infinite for one that a crash tore."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def check_version(path: Path, version: int) -> None:
    """Raise CheckpointError where the checkpoint or best.safetensors in ``path`` was written with
    another version of the aggregation than ``version``: parameters and loss differ."""
    if path.is_dir():
        found = _cursor_of(path).get(VERSION, 1)
    else:
        with safe_open(path, "pt") as file:
            found = int((file.metadata() or {}).get(VERSION, 1))
    if found != version:
        raise _of_other_version(path)


def check_is_recent(folder: Path, version: int) -> None:
    """Raise CheckpointError where the fit in ``folder`` was started by a version of distill that
    knew only version 1 of each aggregation, and ``version`` is a later one."""
    checkpoint = newest(folder / "checkpoints")
    if checkpoint is None or version == 1:
        return
    try:
        is_marked = VERSION in _cursor_of(checkpoint)
    except (OSError, ValueError):
        return  # unreadable: the fit refuses it, and names the file
    if not is_marked:
        raise _of_other_version(checkpoint)


def _cursor_of(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "cursor.json").read_text())


def _of_other_version(path: Path) -> CheckpointError:
    fit = path.parent.parent if path.is_dir() else path.parent
    return CheckpointError(
        f"{path} was written by another version of distill, in which this aggregation.type trained "
        "another network: start a new run with another output, or delete "
        f"{fit} to train the student again (experts and cached teacher outputs are kept). A "
        "student that is already exported can be used as before"
    )


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(folder.glob("step-*"))


def newest(folder: Path) -> Path | None:
    found = checkpoints(folder)
    return found[-1] if found else None


def verify(checkpoint: Path) -> None:
    """Raise CheckpointError unless every file is there and has the bytes that were written."""
    way_out = f"delete {checkpoint} to resume from the checkpoint before it"
    try:
        sums: dict[str, str] = json.loads((checkpoint / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}/manifest.json is unreadable ({error}): {way_out}"
        ) from None
    for name, expected in sums.items():
        path = checkpoint / name
        if not path.is_file():
            raise CheckpointError(f"checkpoint file {path} is missing: {way_out}")
        if sha256(path) != expected:
            raise CheckpointError(f"checkpoint file {path} is corrupt (sha256 differs): {way_out}")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def random_states() -> dict[str, Any]:
    """Every generator that training draws from, as tensors and plain containers."""
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    keys, position, has_gauss, cached = states["numpy"]
    numpy_keys = keys.numpy().astype(np.uint32)
    np.random.set_state(("MT19937", numpy_keys, position, has_gauss, cached))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
