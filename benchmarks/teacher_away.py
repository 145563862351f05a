"""A teacher that is away for longer than its deadline, at a student of two ranks on Ray.

    python -m benchmarks.teacher_away [--ranks 2] [--deadline-s 1]

A tiny student drafts, a tiny teacher verifies (SKD). The teacher's process is stopped (SIGSTOP)
after the third step, killed three deadlines later, and restarted by Ray. Then the same with a
``recovery_s`` that passes, and the command again. Both are compared with an undisturbed run, tensor
by tensor. The agreement of the ranks is measured apart: the time of one collective of 8 bytes on
the CPU between two processes. Writes benchmarks/results/teacher_away.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.multiprocessing.spawn import spawn

from distill.cluster.connect import connect
from distill.cluster.group import REFUSED, run_group
from distill.config import Cluster, Stream
from distill.errors import TeacherAway
from distill.teachers.replica_pool import RayTeacherPool
from distill.teachers.waiting import outage
from distill.training.engines import group_timeout, largest
from distill.training.job import Job
from tests.sampling.test_fits import SKD, sampled_job

RESULTS = Path("benchmarks/results/teacher_away")
STEP = 3
CALLS, ROUNDS = 1000, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--deadline-s", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, connect(Cluster(num_cpus=args.ranks + 1)):
        found = measure(Path(folder), args.ranks, args.deadline_s)
    found |= {
        "agreement_us": agreement_us(),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}",
    }
    RESULTS.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table(found))
    print(table(found))


def measure(root: Path, num_ranks: int, deadline_s: float) -> dict[str, Any]:
    stream = Stream(deadline_s=deadline_s, recovery_s=600)
    whole = job_of(root, "whole", num_ranks)
    with served(whole, stream) as (job, _):
        run(job)
    expected = weights(whole)

    waits = job_of(root, "waits", num_ranks)
    with served(waits, stream) as (job, pids):
        began = time.monotonic()
        group = started(lambda: run(job))
        stopped_at = stop_at_step(job, pids)
        noticed = wait_for(lambda: outage(Path(job.folder)))
        noticed_s = time.monotonic() - stopped_at
        time.sleep(max(0.0, 3 * deadline_s - noticed_s))
        kill(pids)
        wait_for(lambda: outage(Path(job.folder)) is None)
        away_s = time.monotonic() - stopped_at
        group.join()
    found: dict[str, Any] = {
        "ranks": num_ranks,
        "deadline_s": deadline_s,
        "reason": noticed.reason,
        "noticed_s": noticed_s,
        "away_s": away_s,
        "deadlines": away_s / deadline_s,
        "run_s": time.monotonic() - began,
        "checkpoints": steps_of(waits),
        "identical_after_a_wait": equal(weights(waits), expected),
    }

    stays = job_of(root, "stays", num_ranks)
    short = stream.model_copy(update={"recovery_s": 4 * deadline_s})
    with served(stays, short) as (job, pids):
        stops: list[TeacherAway] = []
        group = started(lambda: run(job, stops))
        stop_at_step(job, pids)
        group.join()
        found |= {
            "recovery_s": short.recovery_s,
            "stop": str(stops[0]) if stops else None,
            "checkpoint_of_the_stop": steps_of(stays)[-1],
            "is_refused": (Path(job.folder) / REFUSED).exists(),
        }
        kill(pids)
        run(job)
    found["identical_after_a_resume"] = equal(weights(stays), expected)
    return found


def job_of(root: Path, folder: str, num_ranks: int) -> Job:
    trainer = {"epochs": 1, "batch_size": 8, "log_every": 1, "eval_every": 100}
    job = sampled_job(root, folder, SKD, trainer=trainer)
    changes = {"num_workers": num_ranks, "num_cpus_per_worker": 0.5, "keep_checkpoints": 99}
    return replace(job, trainer=job.trainer.model_copy(update=changes))


class served:
    """The job with its teachers as actors, and the processes of the one that verifies."""

    def __init__(self, job: Job, stream: Stream) -> None:
        self._job, self._stream = job, stream

    def __enter__(self) -> tuple[Job, list[int]]:
        assert self._job.teacher_setup is not None
        self._pool = RayTeacherPool(self._job.teacher_setup.teachers)
        teacher_setup = replace(
            self._job.teacher_setup, client=self._pool.client(self._stream), stream=self._stream
        )
        return replace(self._job, teacher_setup=teacher_setup), self._pool.pids("films")

    def __exit__(self, *error: object) -> None:
        self._pool.close()


def run(job: Job, stops: list[TeacherAway] | None = None) -> None:
    try:
        run_group(job, job.trainer, Path(job.folder) / "ray")
    except TeacherAway as stop:
        if stops is None:
            raise
        stops.append(stop)


def started(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def stop_at_step(job: Job, pids: list[int]) -> float:
    """Stop the processes once the job has logged step ``STEP``; when."""
    path = Path(job.folder) / "metrics.jsonl"
    wait_for(lambda: path.exists() and len(path.read_text().splitlines()) >= STEP)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return time.monotonic()


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], Any], timeout_s: float = 120.0) -> Any:
    give_up = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"nothing happened within {timeout_s:g} s")
        time.sleep(0.01)
    return found


def weights(job: Job) -> dict[str, torch.Tensor]:
    return load_file(Path(job.folder) / "best.safetensors")


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], t) for n, t in theirs.items())


def steps_of(job: Job) -> list[int]:
    folders = (Path(job.folder) / "checkpoints").glob("step-*")
    return sorted(int(folder.name.removeprefix("step-")) for folder in folders)


def agreement_us() -> float:
    """Microseconds of one agreement of two ranks, median of ``ROUNDS`` means."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_agree, args=(folder,), nprocs=2)
        return json.loads((Path(folder) / "us.json").read_text())


def _agree(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store: Any = dist
    store = store.FileStore(f"{folder}/meeting", 2)
    timeout = group_timeout(0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timeout)
    means = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        for _ in range(CALLS):
            largest(0, None)
        means.append((time.perf_counter() - began) / CALLS * 1e6)
    if rank == 0:
        (Path(folder) / "us.json").write_text(json.dumps(statistics.median(means[1:])))
    dist.destroy_process_group()


def table(found: dict[str, Any]) -> str:
    yes = {True: "yes", False: "no"}
    rows = {
        "ranks": found["ranks"],
        "stream.deadline_s": f"{found['deadline_s']:g}",
        "away, s (deadlines)": f"{found['away_s']:.1f} ({found['deadlines']:.1f})",
        "checkpoint written after, s": f"{found['noticed_s']:.1f}",
        "checkpoints": ", ".join(map(str, found["checkpoints"])),
        "weights identical after the wait": yes[found["identical_after_a_wait"]],
        "recovery_s that passed": f"{found['recovery_s']:g}",
        "checkpoint of the stop": found["checkpoint_of_the_stop"],
        "recorded as a refusal": yes[found["is_refused"]],
        "weights identical after the same command": yes[found["identical_after_a_resume"]],
        "agreement of two ranks at each step, µs": f"{found['agreement_us']:.0f}",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    head = "# A teacher away for longer than its deadline\n\nSKD on tiny models; "
    head += "`python -m benchmarks.teacher_away`.\n\n| | |\n|---|---|\n"
    return head + "\n".join(lines) + f"\n\nMessage of the stop: {found['stop']}\n"


if __name__ == "__main__":
    main()
