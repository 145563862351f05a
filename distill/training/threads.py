"""Threads of a rank: a function of the step and of the configuration, never of timing.

From the second epoch on every teacher output is read from the cache, and the teachers' CPUs are
idle. The student's ranks then compute with them: how many threads that is, is decided once, before
the first step, and kept in the fit's folder, so that a resumed fit has the same number of threads
in the same steps. Another number of threads changes the last digits of sums.

    <fit>/threads.json   the decision, and the settings that it was made for
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.config import Serving, Trainer
from distill.models.shape import is_begun

FILE = "threads.json"
MIN_OPERATIONS = 5e9
"""Floating-point operations of one forward and backward of a rank from which ``auto`` uses more
threads, about 60 ms on one: below, starting and joining the threads takes what they save."""


@dataclass(frozen=True)
class Threads:
    """Of one rank."""

    first: int
    """In the first epoch, and wherever teachers are queried."""
    cached: int
    """From step ``steps_per_epoch`` on."""
    steps_per_epoch: int

    def at(self, step: int) -> int:
        """Of ``step``, counted from 0, and of the evaluation and checkpoint right before it."""
        return self.cached if step >= self.steps_per_epoch else self.first

    def use_at(self, step: int) -> None:
        torch.set_num_threads(self.at(step))


def own_threads(trainer: Trainer) -> int:
    return max(1, int(trainer.num_cpus_per_worker))


def threads_of(trainer: Trainer, steps_per_epoch: int, are_cached: bool) -> Threads:
    """``are_cached``: whether no teacher is queried after the first epoch. An ``auto`` that was
    not decided, as of trials of a sweep, is the number of the first epoch."""
    own, cached = own_threads(trainer), trainer.num_threads_cached
    if not are_cached or not isinstance(cached, int):
        cached = own
    return Threads(own, cached, steps_per_epoch)


def decided(
    trainer: Trainer,
    folder: Path,
    processes: Sequence[Serving],
    num_usable: int,
    operations: float,
    are_cached: bool,
) -> Trainer:
    """The settings with a number of threads for ``num_threads_cached``.

    ``folder``: of the fit; the decision is kept there. A fit that an older version of distill
    began, which has a checkpoint and no decision, goes on as it began. ``processes``: of each of
    the teachers' processes how it is served, all its replicas; ``num_usable``: CPUs of this
    machine that may be used, 0 on a cluster; ``operations``: see MIN_OPERATIONS.
    """
    found = trainer.num_threads_cached or own_threads(trainer)
    if found == "auto":
        found = _kept(trainer, folder) if are_cached else own_threads(trainer)
    if found is None:
        found = own_threads(trainer)
        is_on_cpu = trainer.num_gpus_per_worker == 0 and trainer.device != "cuda"
        if is_on_cpu and operations >= MIN_OPERATIONS:
            found = shared_threads(trainer, processes, num_usable)
        _keep(trainer, folder, found)
    return trainer.model_copy(update={"num_threads_cached": found})


def shared_threads(trainer: Trainer, processes: Sequence[Serving], num_usable: int) -> int:
    """Of one rank: its own CPUs and an equal share of the teachers', at most an equal share of the
    machine's; never fewer than its own."""
    num_replicas = sum(serving.replicas for serving in processes)
    idle = sum(serving.replicas * serving.cpus for serving in processes)
    # num_cpus: auto is rounded down to hundredths.
    each = trainer.num_cpus_per_worker + (idle + 0.01 * num_replicas) / trainer.num_workers
    most = num_usable / trainer.num_workers
    return max(own_threads(trainer), math.floor(min(each, most) + 1e-6))


def usable_cpus(num_cpus: float) -> int:
    """Of the ``num_cpus`` of a local cluster, those that this process may run on."""
    found = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on a Mac
        found = len(os.sched_getaffinity(0))
    return max(1, min(found, int(num_cpus)))


def _settings(trainer: Trainer) -> dict[str, Any]:
    """What makes an earlier decision invalid: with other ranks, sums differ anyway."""
    return trainer.model_dump(include={"num_workers", "num_cpus_per_worker"})


def _kept(trainer: Trainer, folder: Path) -> int | None:
    """None where it is to be decided."""
    path = folder / FILE
    if path.exists():
        kept = json.loads(path.read_text("utf-8"))
        return kept["num_threads_cached"] if kept["trainer"] == _settings(trainer) else None
    return own_threads(trainer) if is_begun(folder) else None


def _keep(trainer: Trainer, folder: Path, num_threads: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "threads.partial"
    kept = {"num_threads_cached": num_threads, "trainer": _settings(trainer)}
    partial.write_text(json.dumps(kept), "utf-8")
    os.replace(partial, folder / FILE)
