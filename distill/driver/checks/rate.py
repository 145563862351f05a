"""The speed of this machine, measured for a moment."""

from __future__ import annotations

import math
import time

import torch

from distill.config import Experiment

RATE_S = 0.2
REPEATS = 4


def device_of(experiment: Experiment) -> str:
    """Of the student."""
    return "cuda" if experiment.trainer.num_gpus_per_worker > 0 else "cpu"


def measured_rate(num_rows: int, width: int, device: str) -> float:
    """Floating-point operations a second of [rows, width] · [width, 4 · width], the largest product
    of a transformer's layer: on one thread, or on the GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        left = torch.randn(max(1, min(num_rows, 4096)), width, device=device)
        right = torch.randn(width, 4 * width, device=device)
        torch.matmul(left, right)  # the first one allocates
        best, started = math.inf, time.perf_counter()
        while (before := time.perf_counter()) < started + RATE_S:
            for _ in range(REPEATS):
                torch.matmul(left, right)
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, (time.perf_counter() - before) / REPEATS)  # others use this CPU too
    finally:
        torch.set_num_threads(threads)
    return 2 * left.shape[0] * width * 4 * width / best
