"""Tasks without Ray: started in this process, ended in the order that a test states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.cluster.ray_tasks import RayTask
from distill.experts.losses import losses_file
from distill.tasks.classification.comparison import predictions_file
from distill.training.job import Job


class Scripted:
    """A launcher on a machine with ``num_cpus``. Each ``wait`` ends one task: the first of
    ``order`` that runs, or else the one that was started first. ``errors``: of tasks that fail."""

    def __init__(
        self,
        num_cpus: float,
        order: Sequence[str] = (),
        errors: dict[str, Exception] | None = None,
    ) -> None:
        self.num_cpus, self.order, self.errors = num_cpus, order, errors or {}
        self.events: list[str] = []
        """``+name`` of a start, ``-name`` of an end."""
        self.most_at_once = 0
        self.jobs: dict[str, Job] = {}
        self._running: list[str] = []

    def resources(self) -> tuple[float, float]:
        return self.num_cpus, 0.0

    def start(self, task: RayTask, /) -> Any:
        self.events.append(f"+{task.name}")
        self.jobs[task.name] = task.job
        self._running.append(task.name)
        self.most_at_once = max(self.most_at_once, len(self._running))
        return task.name

    def wait(self, handles: list[Any], timeout_s: float) -> list[Any]:
        assert set(handles) == set(self._running)
        ended = next((name for name in self.order if name in self._running), self._running[0])
        self._running.remove(ended)
        return [ended]

    def check(self, handle: Any, name: str) -> None:
        self.events.append(f"-{handle}")
        if handle in self.errors:
            raise self.errors[handle]
        write_results(self.jobs[handle])


def write_results(job: Job) -> None:
    """What the work on a job leaves, and no model."""
    folder = Path(job.folder)
    job.model_folder.mkdir(parents=True, exist_ok=True)
    (folder / "done.json").write_text(json.dumps({"step": 1, "best_step": 1, "best": 0.5}))
    corpus: Any = job.data.open()
    sizes = {split: len(corpus.corpus.rows(split)) for split in ("train", "validation", "test")}
    np.save(predictions_file(job), np.zeros(sizes["test"], np.int64))
    losses = {split: np.full(sizes[split], float(len(job.name))) for split in sizes}
    np.savez(losses_file(job), **losses)  # type: ignore[arg-type]
