"""Experts, router and baselines of one run: one task after the other, and two at once.

    python benchmarks/parallel_pipeline.py configs/quickstart.yaml OVERRIDES

The committed result names its overrides.

Trains the experts, measures their losses, trains the router and the baselines, and tests those, as
``distill train`` does before it serves the teachers: with cluster.max_tasks 1 and 2, alternating,
each time in a new folder. A task has one CPU. Ray is started once, and a short run before the first
measurement starts its worker processes. Writes the medians of the wall times and their ratio, and
compares the ratio with the prediction of the simulation (distill/cluster/estimates.py): from the
estimates that decide the order, and from the times that the tasks took one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from distill import __version__
from distill.cluster.connect import connect
from distill.cluster.estimates import Room, Scheduled, makespan
from distill.cluster.ray_tasks import RayLauncher, RayTask
from distill.config import Cluster, load
from distill.driver.pipeline import driver, opened
from distill.driver.run_jobs import jobs_of, own_job
from distill.driver.stages import task_stages
from distill.driver.task_stages import TaskStages
from distill.report.progress import Progress

WORKERS = (1, 2)
SMALL = (
    "data.limit={train: 200, transfer: 200, validation: 50, test: 150}",
    "experts.router.targets=lowest_loss",
    "trainer.engine=torch",
    "trainer.epochs=6",
    "tracking.system_metrics=false",
)
WARM_UP = (
    "data.limit={train: 64, transfer: 64, validation: 16, test: 16}",
    "experts.epochs=1",
    "experts.router.epochs=1",
    "trainer.epochs=1",
)


class Timed(RayLauncher):
    """With the seconds from each task's start to its end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started: dict[Any, tuple[str, float]] = {}

    def start(self, task: RayTask, /) -> Any:
        handle = super().start(task)
        self._started[handle] = task.name, time.perf_counter()
        return handle

    def check(self, handle: Any, name: str) -> None:
        task, started = self._started[handle]
        self.seconds[task] = time.perf_counter() - started
        super().check(handle, name)


@dataclass(frozen=True)
class Measured:
    wall_s: float
    stages: list[Scheduled]
    """With their estimated seconds."""
    seconds: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/parallel-pipeline"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/parallel_pipeline"))
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    overrides = [*SMALL, *args.overrides]
    found: dict[int, list[Measured]] = {workers: [] for workers in WORKERS}
    with Progress() as progress, connect(Cluster(num_cpus=max(WORKERS))):
        run(args.config, [*overrides, *WARM_UP], args.work / "warm-up", max(WORKERS), progress)
        for repeat in range(args.repeats):
            for workers in WORKERS if repeat % 2 == 0 else reversed(WORKERS):
                folder = args.work / f"{repeat}-{workers}"
                measured = run(args.config, overrides, folder, workers, progress)
                print(f"max_tasks {workers}: {measured.wall_s:.1f} s", flush=True)
                found[workers].append(measured)
    write(args.out, " ".join([args.config, *overrides]), found)


def run(
    config: str, overrides: Sequence[str], folder: Path, workers: int, progress: Progress
) -> Measured:
    shutil.rmtree(folder, ignore_errors=True)
    own = [
        f"output={folder}",
        f"tracking.uri=sqlite:///{folder.parent.absolute()}/mlflow.db",
        f"cluster.max_tasks={workers}",
        f"cluster.num_cpus={max(WORKERS)}",
    ]
    with opened(load(config, [*overrides, *own]), progress) as work, driver(work) as d:
        launcher = Timed()
        stages = task_stages(d.plan, jobs_of(d, own_job(d)))
        with TaskStages(d, launcher) as tasks:
            planned = tasks.planned(stages)
            before = time.perf_counter()
            tasks.run(stages)
            wall_s = time.perf_counter() - before
    return Measured(wall_s, [task.scheduled for task in planned], launcher.seconds)


def ratio(stages: Sequence[Scheduled]) -> float:
    """Predicted time on two workers / on one."""
    one, two = (makespan(stages, Room(max_stages=workers)) for workers in WORKERS)
    return two / one


def write(out: Path, config: str, found: dict[int, list[Measured]]) -> None:
    one, two = (statistics.median(m.wall_s for m in found[workers]) for workers in WORKERS)
    stages = found[1][0].stages
    names = [stage.name for stage in stages]
    took = {name: statistics.median(m.seconds[name] for m in found[1]) for name in names}
    estimated = {stage.name: stage.seconds for stage in stages}
    result = {
        "config": config,
        "date": date.today().isoformat(),
        "distill": __version__,
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "wall_s": {str(w): [round(m.wall_s, 1) for m in found[w]] for w in WORKERS},
        "median_s": {"1": round(one, 1), "2": round(two, 1)},
        "ratio": round(two / one, 3),
        "ratio_by_estimates": round(ratio(stages), 3),
        "ratio_by_times": round(ratio([replace(s, seconds=took[s.name]) for s in stages]), 3),
        "estimated_s": {name: round(seconds, 2) for name, seconds in estimated.items()},
        "alone_s": {name: round(seconds, 2) for name, seconds in took.items()},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        f"# Experts, router and baselines on one and two workers, {len(found[1])} repeats",
        "",
        f"`{config}`. Workers of one CPU each, {os.cpu_count()} CPU cores, "
        f"{date.today().isoformat()}, torch {torch.__version__}.",
        "",
        "| | seconds, median | of one worker |",
        "|---|---|---|",
        f"| `cluster.max_tasks: 1` | {one:.1f} | 1 |",
        f"| `cluster.max_tasks: 2` | {two:.1f} | {two / one:.2f} |",
        f"| predicted from the estimates | | {result['ratio_by_estimates']:.2f} |",
        f"| predicted from the times on one worker | | {result['ratio_by_times']:.2f} |",
        "",
        "| task | estimated, s | alone, s |",
        "|---|---|---|",
        *(f"| {name} | {estimated[name]:.2f} | {took[name]:.2f} |" for name in names),
    ]
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
