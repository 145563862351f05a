"""The student's worker group: Ray Train around :func:`distill.training.fit.fit`."""

from __future__ import annotations

import os
import threading
import uuid
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from distill.config import Trainer
from distill.errors import DistillError, Interrupted, TeacherAway, TrainingError
from distill.training.engines import group_timeout
from distill.training.fit import fit, is_done
from distill.training.job import Job
from distill.training.loop import Report

REFUSED = "refused.txt"
"""Why a rank refused its input, in the fit's folder: a restart would not help."""
AWAY = "away.txt"
"""Which teacher stayed away, in the fit's folder: the group has ended, and can be resumed."""


class GroupLauncher:
    """Worker groups, each called in a thread: the calling thread draws the progress and receives
    Ctrl-C. The threads are daemons: a group that waits for resources for ever must not keep the
    process.

    ``storage``: the folder of Ray Train's own files.
    """

    def __init__(self, storage: Path) -> None:
        self._storage = storage

    def start(self, job: Job, /) -> Future[None]:
        """The group of ``job.trainer``."""
        group: Future[None] = Future()

        def run() -> None:
            try:
                group.set_result(run_group(job, job.trainer, self._storage))
            except BaseException as error:
                group.set_exception(error)

        threading.Thread(target=run, name="student-group", daemon=True).start()
        return group

    def wait(self, handles: list[Future[None]], timeout_s: float) -> list[Future[None]]:
        return list(wait_for(handles, timeout_s, FIRST_COMPLETED).done)

    def check(self, handle: Future[None], name: str) -> None:
        handle.result()


def run_group(
    job: Job, trainer: Trainer, storage: Path, costs: dict[str, float] | None = None
) -> None:
    """Train ``job`` on ``trainer.num_workers`` ranks; blocks until done.

    Inside a trial of a sweep, ``costs`` are reported to Ray Tune with every evaluation.
    Ray Train's own checkpoints are not used: a restarted group finds the fit's folder, which must
    be on storage that every rank sees. Raises the rank's own DistillError where it was one,
    TrainingError otherwise; TeacherAway, which uses up no restart, where a teacher stayed away, and
    Interrupted after a requested stop.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

    use_gpu = trainer.num_gpus_per_worker > 0
    resources: dict[str, float] = {"CPU": trainer.num_cpus_per_worker}
    if use_gpu:
        resources["GPU"] = trainer.num_gpus_per_worker
    group = TorchTrainer(
        train_loop_per_worker=_rank,
        # A reference: Ray Train's controller holds the configuration too, and would import
        # transformers to unpickle the job, seconds before it starts a rank.
        train_loop_config={"job": ray.put(replace(job, trainer=trainer)), "costs": costs},
        torch_config=_meeting_in_a_file(),
        scaling_config=ScalingConfig(
            num_workers=trainer.num_workers,
            use_gpu=use_gpu,
            resources_per_worker=resources,
            label_selector=trainer.node_labels or None,
        ),
        run_config=RunConfig(
            name="student",
            storage_path=str(storage.resolve()),
            failure_config=FailureConfig(max_failures=trainer.max_failures),
            callbacks=None if costs is None else [_to_tune()],
        ),
    )
    away = Path(job.folder) / AWAY
    for old in (away, Path(job.folder) / REFUSED):
        old.unlink(missing_ok=True)
    try:
        group.fit()
    except WorkerGroupError as error:
        raise _own_error(list(error.worker_failures.values())) from error
    except TrainingFailedError as error:
        raise TrainingError(f"the student's worker group failed: {error}") from error
    if not is_done(job):
        if away.exists():
            raise TeacherAway(away.read_text("utf-8"))
        raise Interrupted(f"{job.name} was stopped")


def _rank(config: dict[str, Any]) -> None:
    import ray
    import ray.train

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    context = ray.train.get_context()
    job: Job = ray.get(config["job"])
    refused = Path(job.folder) / REFUSED
    if refused.exists():
        # Ray Train restarts a group whatever failed; what is wrong with the input stays wrong.
        raise TrainingError(refused.read_text())
    report: Report = lambda cursor: None  # noqa: E731
    if config["costs"] is not None:
        from distill.search.reporter import Reporter

        report = Reporter(lambda metrics, _: ray.train.report(metrics), config["costs"])
    backend = "nccl" if job.trainer.num_gpus_per_worker > 0 else "gloo"
    _meet(Path(job.folder), backend, group_timeout(job.recovery_s))
    run_rank(job, context.get_world_rank(), context.get_world_size(), report)


def run_rank(job: Job, rank: int, world_size: int, report: Report) -> None:
    """One rank's fit, or the rest of it; returns after a stop that can be resumed."""
    if rank == 0:  # of an earlier attempt; before it has joined the fit, no rank gives up
        (Path(job.folder) / AWAY).unlink(missing_ok=True)
    try:
        fit(job, rank, world_size, report)
    except TeacherAway as error:
        (Path(job.folder) / AWAY).write_text(str(error), "utf-8")
    except Interrupted:
        # All ranks agreed on this step, so all end here; an exception would count as a failure.
        return
    except DistillError as error:
        (Path(job.folder) / REFUSED).write_text(str(error))
        raise


def _meeting_in_a_file() -> Any:
    """A TorchConfig that leaves the process group to :func:`_meet`.

    Ray's own has the ranks meet over TCP, and torch's store then listens on every interface.
    """
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    class FileBackend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            pass

    class FileConfig(TorchConfig):
        @property
        def backend_cls(self) -> type:
            return FileBackend

    return FileConfig()


def _meet(folder: Path, backend: str, timeout: timedelta) -> None:
    """Join the process group through a file of the fit's folder, which every rank sees."""
    import torch.distributed as dist
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    store: Any = dist
    context = get_context()
    # What torchrun would set: DeepSpeed and others look for it.
    os.environ["RANK"] = str(context.get_world_rank())
    os.environ["WORLD_SIZE"] = str(context.get_world_size())
    os.environ["LOCAL_RANK"] = str(context.get_local_rank())
    os.environ["LOCAL_WORLD_SIZE"] = str(context.get_local_world_size())
    name = broadcast_from_rank_zero(uuid.uuid4().hex)  # another one each time a group starts
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f"meeting-{name}").absolute()
    dist.init_process_group(
        backend,
        store=store.FileStore(str(path), context.get_world_size()),
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        timeout=timeout,
    )
    if context.get_world_rank() == 0:
        for old in folder.glob("meeting-*"):  # of groups that are gone
            if old != path:
                old.unlink(missing_ok=True)


def _to_tune() -> Any:
    """Forwards what ranks report to the trial that the group is in."""
    from ray.tune.integration.ray_train import TuneReportCallback

    return TuneReportCallback()


def _own_error(failures: list[Exception]) -> DistillError:
    """The first error of ours among the ranks' failures and their causes."""
    for failure in failures:
        error: BaseException | None = failure
        while error is not None:
            if isinstance(error, DistillError):
                return error
            error = getattr(error, "_base_exc", None) or error.__cause__
    return TrainingError(f"a rank of the student was lost: {failures[0]}")
