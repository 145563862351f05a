"""What a fit left in its folder: its log, and the evaluation of the weights that are exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distill.training.job import Job
from distill.training.log import Tail


def history(job: Job) -> list[dict[str, Any]]:
    """The lines of a fit's metrics.jsonl."""
    return Tail(Path(job.folder) / "metrics.jsonl").read()


def best_evaluation(job: Job) -> dict[str, float]:
    """The validation metrics of the weights that are exported."""
    return best_evaluation_in(Path(job.folder))


def best_evaluation_in(fit: Path) -> dict[str, float]:
    """The same, from the folder of the fit."""
    best_step = json.loads((fit / "done.json").read_text())["best_step"]
    metrics: dict[str, float] = {}
    for line in Tail(fit / "metrics.jsonl").read():
        if line["step"] == best_step:
            metrics |= {n: v for n, v in line["metrics"].items() if n.startswith("eval.")}
    return metrics
