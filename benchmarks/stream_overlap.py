"""How much of the teachers' time hides behind the student's.

A simulated teacher (a Ray actor that sleeps t_T per answer) and a simulated student (sleeps t_S
per step), through the real stream and pool client. With N steps:

    T_seq = N (t_T + t_S)                      nothing overlaps
    T*    = N max(t_T, t_S) + min(t_T, t_S)    all that can overlap does
    η     = (T_seq − T_meas) / (T_seq − T*)    1 is perfect, 0 is sequential

    python benchmarks/stream_overlap.py [--steps 40] [--repetitions 5] [--out FILE]

On a machine with other work, set RAY_worker_niceness=0: Ray's workers are at 15 otherwise, and the
benchmark then measures who is nicer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from distill.cluster.connect import connect
from distill.config import Cluster, Serving, Stream
from distill.records import UNLABELLED, Batch
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.teachers.stream import TeacherStream

CASES = {(0.05, 0.05): 0.90, (0.2, 0.2): 0.97}
"""(t_T, t_S) in seconds, and the η that is asked for."""
NUM_ROWS, NUM_LABELS = 32, 3


class Tokens:
    def lengths(self, rows: np.ndarray) -> np.ndarray:
        return np.ones(len(rows), np.int64)

    def padded(self, rows: np.ndarray) -> TeacherRequest:
        ids_BT = np.ones((len(rows), 64), np.int64)
        return TeacherRequest("", rows, ids_BT, ids_BT)


class Batches(NamedTuple):
    steps_per_epoch: int

    def at(self, step: int) -> list[Batch]:
        ones_BT = torch.ones(NUM_ROWS, 64, dtype=torch.int64)
        return [
            Batch(
                rows_B=np.arange(step * NUM_ROWS, (step + 1) * NUM_ROWS),
                input_ids_BT=ones_BT,
                attention_mask_BT=ones_BT,
                labels_B=torch.full((NUM_ROWS,), UNLABELLED),
                domains_B=torch.full((NUM_ROWS,), -1),
                valid_B=torch.ones(NUM_ROWS, dtype=torch.bool),
                num_valid=NUM_ROWS,
                num_labelled=0,
            )
        ]


def seconds(client, num_steps: int, in_flight: int, student_s: float) -> float:
    """Wall time of ``num_steps`` steps; ``in_flight`` 0 asks only when the step before is done."""
    teachers = [ServedTeacher(name, "", Serving(), NUM_LABELS) for name in client.names]
    tokens = dict.fromkeys(client.names, Tokens())
    stream = TeacherStream(client, teachers, tokens, in_flight=in_flight)
    with stream:
        started = time.perf_counter()
        for _ in stream.feed(Batches(num_steps), 0, num_steps):
            time.sleep(student_s)
        return time.perf_counter() - started


def measure(num_steps: int, num_repetitions: int, teacher_s: float, student_s: float) -> dict:
    from distill.teachers.replica_pool import RayTeacherPool

    def simulated(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        time.sleep(teacher_s)
        return torch.zeros(len(input_ids), NUM_LABELS)

    with RayTeacherPool(
        [ServedTeacher("simulated", "", Serving(), NUM_LABELS, model=simulated)]
    ) as pool:
        client = pool.client(Stream())
        seconds(client, 3, 4, 0.0)  # connections are made on the first calls
        sequential = [seconds(client, num_steps, 0, student_s) for _ in range(num_repetitions)]
        overlapped = [seconds(client, num_steps, 4, student_s) for _ in range(num_repetitions)]
    seq_s = num_steps * (teacher_s + student_s)
    best_s = num_steps * max(teacher_s, student_s) + min(teacher_s, student_s)
    etas = [(seq_s - s) / (seq_s - best_s) for s in overlapped]
    return {
        "teacher_s": teacher_s,
        "student_s": student_s,
        "num_steps": num_steps,
        "in_flight": 4,
        "sequential_s": round(seq_s, 3),
        "sequential_measured_s": [round(s, 3) for s in sequential],
        "best_possible_s": round(best_s, 3),
        "overlapped_s": [round(s, 3) for s in overlapped],
        "eta": [round(eta, 4) for eta in etas],
        "eta_median": round(statistics.median(etas), 4),
        "eta_required": CASES[teacher_s, student_s],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="overlap of teachers and student")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=5)
    out = Path(__file__).parent / "results" / "stream_overlap.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    with connect(Cluster(num_cpus=4)):
        import ray

        version = ray.__version__
        cases = [measure(arguments.steps, arguments.repetitions, *durations) for durations in CASES]
    report = {
        "date": date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "ray": version,
            "torch": torch.__version__,
        },
        "machine": {
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "load_average_before": load,
            "niceness": os.nice(0),
            "ray_worker_niceness": int(os.environ.get("RAY_worker_niceness", "15")),  # noqa: SIM112
        },
        "cases": cases,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    for case in cases:
        print(
            f"{case['teacher_s'] * 1000:.0f}/{case['student_s'] * 1000:.0f} ms, "
            f"N={case['num_steps']}: T_seq {case['sequential_s']:.2f} s (measured "
            f"{statistics.median(case['sequential_measured_s']):.2f}), T* "
            f"{case['best_possible_s']:.2f}, T_meas "
            f"{statistics.median(case['overlapped_s']):.2f}, η = {case['eta_median']:.3f} "
            f"(asked for: {case['eta_required']})"
        )


if __name__ == "__main__":
    main()
