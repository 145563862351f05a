"""Work on jobs as Ray tasks: as many at once as the cluster has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from distill.errors import DistillError, Interrupted, TrainingError
from distill.fit import Job, fit_and_save


class Tasks:
    """Started jobs. ``poll`` until it is empty; a job's error comes out of ``poll`` as itself.

    ``work`` is done with each, on what the job's training asks for. It may be started again on
    another node, so it must go on from what is in the job's folder. Ray's tasks are called
    ``<verb>:<job>``.
    """

    def __init__(
        self, jobs: list[Job], work: Callable[[Job], None] = fit_and_save, verb: str = "fit"
    ) -> None:
        import ray

        self._running: dict[Any, Job] = {}
        for job in jobs:
            task = ray.remote(work).options(
                num_cpus=job.trainer.num_cpus_per_worker,
                num_gpus=job.trainer.num_gpus_per_worker,
                label_selector=job.trainer.node_labels or None,
                max_retries=2,  # a lost worker: the fit resumes from its checkpoint
                name=f"{verb}:{job.name}",
            )
            self._running[task.remote(job)] = job

    def poll(self, timeout_s: float) -> Iterator[Job]:
        """Jobs that ended within ``timeout_s``."""
        if not self._running:
            return
        import ray
        from ray.exceptions import RayError, RayTaskError

        ended, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        for ref in ended:
            job = self._running.pop(ref)
            try:
                ray.get(ref)
            except RayTaskError as error:
                cause = error.cause
                if isinstance(cause, Interrupted):
                    continue  # the others are still writing their checkpoints
                if isinstance(cause, DistillError):
                    raise cause from None
                told = f"{type(cause).__name__}: {cause}"
                raise TrainingError(f"training {job.name!r} failed: {told}") from error
            except RayError as error:  # out of memory, a lost node
                raise TrainingError(f"training {job.name!r} was lost: {error}") from error
            yield job

    @property
    def is_empty(self) -> bool:
        return not self._running
