"""Jobs as tasks of Ray: the longest remaining path first, as many at once as there is room for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol, TypeVar

from distill.cluster.estimates import Room, Scheduled, StageQueue
from distill.config import Cluster
from distill.errors import DistillError, Interrupted, TeacherAway, TrainingError
from distill.training.fit import fit_and_save
from distill.training.job import Job


@dataclass(frozen=True)
class RayTask:
    """Work on a job, in a process with the resources of the job's trainer.

    The task may be started again on another node, so ``work`` must resume from what is in the job's
    folder. Ray's tasks are called ``<verb>:<job>``.
    """

    job: Job
    work: Callable[[Job], None] = fit_and_save
    verb: str = "fit"
    seconds: float = 0.0
    """Estimated; it decides the order alone."""
    after: tuple[str, ...] = ()
    """Names of the tasks that must have ended before."""
    rest: float = 0.0
    """Estimated seconds of what is done after it, and is no task."""
    kind: str = ""
    """Of its model: see :class:`distill.cluster.estimates.Scheduled`."""
    is_background: bool = False
    """Whether it may run while the student is trained."""
    prepare: Callable[[Job], Job] | None = None
    """Completes the job, in this process, when it starts."""

    @property
    def name(self) -> str:
        return f"{self.verb}:{self.job.name}"

    @property
    def scheduled(self) -> Scheduled:
        trainer = self.job.trainer
        return Scheduled(
            self.name,
            self.seconds,
            self.after,
            trainer.num_cpus_per_worker,
            trainer.num_gpus_per_worker,
            self.rest,
            self.kind,
            self.is_background,
        )


Work = TypeVar("Work", contravariant=True)


class Launcher(Protocol[Work]):
    """Starts work in other processes: a task in one, or a worker group in several."""

    def start(self, work: Work, /) -> Any:
        """A handle of the started work, whose job is complete."""
        ...

    def wait(self, handles: list[Any], timeout_s: float) -> list[Any]:
        """At most one that has ended, within ``timeout_s``."""
        ...

    def check(self, handle: Any, name: str) -> None:
        """Raise the error of what has ended; ``name`` is its job's."""
        ...


class TaskLauncher(Launcher[RayTask], Protocol):
    """Where tasks run."""

    def resources(self) -> tuple[float, float]:
        """CPUs and GPUs there."""
        ...


class RayLauncher:
    """Needs a Ray that runs. Ray decides where, and when, a started task gets its resources."""

    def resources(self) -> tuple[float, float]:
        import ray

        have = ray.cluster_resources()
        return have.get("CPU", 0.0), have.get("GPU", 0.0)

    def start(self, task: RayTask, /) -> Any:
        job = task.job
        remote = _remote(task.work).options(
            num_cpus=job.trainer.num_cpus_per_worker,
            num_gpus=job.trainer.num_gpus_per_worker,
            label_selector=job.trainer.node_labels or None,
            max_retries=2,  # a lost worker: the fit resumes from its checkpoint
            name=task.name,
        )
        return remote.remote(job)

    def wait(self, handles: list[Any], timeout_s: float) -> list[Any]:
        import ray

        return ray.wait(handles, num_returns=1, timeout=timeout_s)[0]

    def check(self, handle: Any, name: str) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            ray.get(handle)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, DistillError):
                raise cause from None
            message = f"{type(cause).__name__}: {cause}"
            raise TrainingError(f"training {name!r} failed: {message}") from error
        except RayError as error:  # out of memory, a lost node
            raise TrainingError(f"training {name!r} was lost: {error}") from error


@cache
def _remote(work: Callable[[Job], None]) -> Any:
    """One remote function for each kind of work: Ray queues each apart."""
    import ray

    return ray.remote(work)


def whole_room(cluster: Cluster, launcher: TaskLauncher) -> Room:
    """For tasks while nothing else runs.

    A local cluster has a fixed size, and its tasks start when they fit. On one that was joined all
    tasks that ``cluster.max_tasks`` allows start at once and wait in Ray: it may add machines for
    those that wait.
    """
    max_tasks = float("inf") if cluster.max_tasks is None else cluster.max_tasks
    if cluster.address is not None:
        return Room(max_stages=max_tasks)
    return Room(*launcher.resources(), max_tasks)


class RayTasks:
    """Tasks that wait and run. ``poll`` until none is pending; a task's error comes out of ``poll``
    as itself."""

    def __init__(self, room: Room, launcher: TaskLauncher) -> None:
        self._queue = StageQueue(room=room)
        self._launcher = launcher
        self._tasks: dict[str, RayTask] = {}
        self._handles: dict[Any, tuple[RayTask, float]] = {}
        self._is_stopped = False
        self.ended: set[str] = set()
        """Names of the tasks that did their work."""

    def add(self, tasks: Sequence[RayTask]) -> None:
        self._tasks |= {task.name: task for task in tasks}
        self._queue.add([task.scheduled for task in tasks])

    def poll(self, timeout_s: float) -> Iterator[RayTask]:
        """Start the tasks that there is room for; those that ended within ``timeout_s``.

        A task that was interrupted has written its checkpoint: none starts after it, and the others
        go on to theirs. TeacherAway is raised, as errors are: the driver's run ends with it.
        """
        self._start()
        if not self._handles:
            return
        for handle in self._launcher.wait(list(self._handles), timeout_s):
            task, started = self._handles.pop(handle)
            self._queue.end(task.name, time.monotonic() - started)
            try:
                self._launcher.check(handle, task.job.name)
            except Interrupted as error:
                self.stop()
                if isinstance(error, TeacherAway):
                    raise
                continue
            except Exception:
                self.stop()
                raise
            self.ended.add(task.name)
            yield task
        self._start()

    def _start(self) -> None:
        if self._is_stopped:
            return
        for stage in self._queue.start():
            task = self._tasks[stage.name]
            try:
                if task.prepare is not None:
                    task = replace(task, job=task.prepare(task.job))
                handle = self._launcher.start(task)
            except Exception:
                self.stop()
                raise
            self._handles[handle] = task, time.monotonic()

    def stop(self) -> None:
        """Start no more."""
        self._is_stopped = True

    def set_room(self, room: Room, background: Room) -> None:
        """For all tasks, and for those in the background."""
        self._queue.room, self._queue.background = room, background

    @property
    def pending(self) -> list[str]:
        """Names of the tasks that run, or are still to start."""
        running = [task.name for task, _ in self._handles.values()]
        return running + ([] if self._is_stopped else list(self._queue.waiting))
