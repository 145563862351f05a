"""What a queue of many deadlines at a slow healthy teacher does: requests sent again, requests that
fail, and wall time.

Clients of the real pool, without students, each with several requests in flight; replicas that
sleep for each row, at one or several speeds. The deadline is short compared with the queue.

    ideal = seconds of all requests at one replica, over replicas at their speeds: n / Σ (1 / s_i)

A request that fails is counted, and its client goes on to the next one. Every configuration is
measured in turns, before (an old checkout, with `--before`) and after; the table has medians.

    git worktree add ../before COMMIT
    RAY_worker_niceness=0 python benchmarks/stream_load.py --before ../before

"before" is without the replicas' shared load and without control calls: COMMIT is b52591b or older.
Teachers and clients sleep, so that a machine with other work can run it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from distill.cluster.connect import connect
from distill.config import Cluster, Serving, Stream
from distill.errors import TeacherError
from distill.teachers.requests import TeacherRequest

NUM_ROWS, NUM_LABELS, IN_FLIGHT = 4, 3, 5
DEADLINE_S, LIMIT = 1.0, 1.05
"""``LIMIT``: of the wall time, compared with the ideal one."""


class Load(NamedTuple):
    """``request_s`` of each replica."""

    num_clients: int
    request_s: tuple[float, ...]
    num_requests: int  # of each client

    @property
    def ideal_s(self) -> float:
        return self.num_clients * self.num_requests / sum(1 / s for s in self.request_s)

    @property
    def queue_deadlines(self) -> float:
        """When all requests in flight wait."""
        return self.num_clients * IN_FLIGHT / sum(1 / s for s in self.request_s) / DEADLINE_S


ONE = (0.1,)
LOADS = (
    Load(1, ONE, 40),
    Load(8, ONE, 10),
    Load(16, ONE, 8),
    Load(32, ONE, 6),
    Load(16, (0.1, 0.3), 12),
    Load(16, (0.1, 0.1, 0.2, 0.4), 24),
)


class Slow:
    """Sleeps for each row. Each process of several takes one of the speeds."""

    def __init__(self, request_s: tuple[float, ...], folder: str) -> None:
        self._request_s = request_s
        self._folder = folder
        self._row_s: float | None = None

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if self._row_s is None:
            self._row_s = next(self._free()) / NUM_ROWS
        for _ in input_ids:
            time.sleep(self._row_s)
        return torch.zeros(len(input_ids), NUM_LABELS)

    def _free(self) -> Iterator[float]:
        for number, seconds in enumerate(self._request_s):
            try:
                Path(self._folder, str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            yield seconds


def measure(loads: list[Load]) -> list[dict[str, float]]:
    """Loads on replicas of the same speeds share one pool."""
    from distill.teachers.replica_pool import RayTeacherPool
    from distill.teachers.served import ServedTeacher

    found: dict[Load, dict[str, float]] = {}
    for request_s in dict.fromkeys(load.request_s for load in loads):
        num_replicas = len(request_s)
        with tempfile.TemporaryDirectory() as folder:
            serving = Serving(num_cpus=0.1, replicas=num_replicas)
            spec = ServedTeacher("slow", "", serving, NUM_LABELS, model=Slow(request_s, folder))
            with RayTeacherPool([spec]) as pool:
                meet(pool, num_replicas, folder)
                for load in (load for load in loads if load.request_s == request_s):
                    stream = Stream(deadline_s=DEADLINE_S)
                    clients = [pool.client(stream, rank) for rank in range(load.num_clients)]
                    found[load] = pressed(clients, load)
    return [found[load] for load in loads]


def meet(pool: Any, num_replicas: int, folder: str) -> None:
    """A first request at each replica, which takes its speed; and connections are made."""
    clients = [pool.client(Stream(deadline_s=600.0), rank) for rank in range(num_replicas)]
    while len(os.listdir(folder)) < num_replicas:
        with ThreadPoolExecutor(num_replicas) as threads:
            list(threads.map(lambda client: client.call("slow", request("first")), clients))


def pressed(clients: list[Any], load: Load) -> dict[str, float]:
    def answered(client: Any, request_id: str) -> bool:
        try:
            client.call("slow", request(request_id))
        except TeacherError:
            return False
        return True

    started = time.perf_counter()
    pools = [ThreadPoolExecutor(IN_FLIGHT) for _ in clients]
    futures = [
        threads.submit(answered, client, f"{rank}/{number}")
        for rank, (client, threads) in enumerate(zip(clients, pools, strict=True))
        for number in range(load.num_requests)
    ]
    num_failed = sum(not future.result() for future in futures)
    wall_s = time.perf_counter() - started
    return {
        "wall_s": round(wall_s, 2),
        "sent_again": sum(client.stats()["teacher.slow.retries"] for client in clients),
        "failed": num_failed,
    }


def request(request_id: str) -> TeacherRequest:
    ids_BT = np.ones((NUM_ROWS, 64), np.int64)
    return TeacherRequest(request_id, np.arange(NUM_ROWS), ids_BT, ids_BT)


def in_turns(before: Path | None, turns: int, loads: tuple[Load, ...]) -> dict[str, list[Any]]:
    """Of each side, all measurements of each load; every turn is a process of its own."""
    here = Path(__file__).resolve().parent.parent
    sides = {"after": here} if before is None else {"before": before.resolve(), "after": here}
    found: dict[str, list[Any]] = {side: [[] for _ in loads] for side in sides}
    for _ in range(turns):
        for side, folder in sides.items():
            script = [sys.executable, str(Path(__file__).resolve()), "--measure", json.dumps(loads)]
            done = subprocess.run(
                script,
                env=os.environ | {"PYTHONPATH": str(folder)},
                cwd=folder,  # which Ray's workers import from first
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            for kept, one in zip(
                found[side], json.loads(done.stdout.splitlines()[-1]), strict=True
            ):
                kept.append(one)
            print(side, json.dumps([kept[-1] for kept in found[side]]), flush=True)
    return found


def summary(load: Load, measured: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: statistics.median(one[key] for one in measured) for key in measured[0]}
    return {
        "turns": measured,
        "median": medians,
        "wall_over_ideal": round(medians["wall_s"] / load.ideal_s, 3),
    }


def table(cases: list[dict[str, Any]]) -> str:
    lines = [
        f"Deadline {DEADLINE_S:g} s, {IN_FLIGHT} requests in flight for each client; medians of "
        f"{len(cases[0]['after']['turns'])}. A wall time below the ideal is that of failed "
        "requests, which are not computed. The ideal of several replicas is without the end, when "
        "not all have work.",
        "",
        "| clients | replicas, s a request | queue, deadlines | requests | | sent again | failed |"
        " wall, s | ideal, s | wall / ideal |",
        "|---:|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for case in cases:
        speeds = ", ".join(f"{s:g}" for s in case["request_s"])
        for side in ("before", "after"):
            if side in case:
                median = case[side]["median"]
                lines.append(
                    f"| {case['clients']} | {speeds} | {case['queue_deadlines']:.1f} | "
                    f"{case['requests']} | {side} | {median['sent_again']:g} | "
                    f"{median['failed']:g} | {median['wall_s']:.1f} | {case['ideal_s']:.1f} | "
                    f"{case[side]['wall_over_ideal']:.2f} |"
                )
    most = max(case["after"]["wall_over_ideal"] for case in cases)
    turns = [one for case in cases for one in case["after"]["turns"]]
    num_lost = sum(one["sent_again"] + one["failed"] for one in turns)
    lines += [
        "",
        f"After, in all turns: {num_lost:g} sent again or failed (goal: 0); the largest median of "
        f"wall / ideal is {most:.3f} (goal: at most {LIMIT}).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="a queue of many deadlines at a slow teacher")
    parser.add_argument("--before", type=Path, help="an old checkout to compare with")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--loads", type=int, nargs="*", default=range(len(LOADS)))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    out = Path(__file__).parent / "results" / "stream_load"
    parser.add_argument("--results", type=Path, default=out)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        loads = [Load(n, tuple(s), k) for n, s, k in json.loads(arguments.measure)]
        with connect(Cluster(num_cpus=2)):
            print(json.dumps(measure(loads)))
        return
    loads = tuple(LOADS[i] for i in arguments.loads)
    load_average = round(os.getloadavg()[0], 2)
    found = in_turns(arguments.before, arguments.turns, loads)
    cases = [
        {
            "clients": load.num_clients,
            "request_s": load.request_s,
            "requests": load.num_clients * load.num_requests,
            "queue_deadlines": round(load.queue_deadlines, 2),
            "ideal_s": round(load.ideal_s, 2),
            **{side: summary(load, measured[i]) for side, measured in found.items()},
        }
        for i, load in enumerate(loads)
    ]
    import ray

    report = {
        "date": date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "ray": ray.__version__,
            "torch": torch.__version__,
        },
        "machine": {
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "load_average_before": load_average,
            "ray_worker_niceness": int(os.environ.get("RAY_worker_niceness", "15")),  # noqa: SIM112
        },
        "deadline_s": DEADLINE_S,
        "in_flight": IN_FLIGHT,
        "cases": cases,
    }
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    arguments.results.with_suffix(".md").write_text(table(cases))
    print(table(cases))


if __name__ == "__main__":
    main()
