"""Attack throughput: samples a minute at 50 queries each, whole `distill` attacks on one student.

    python benchmarks/attack_throughput.py STUDENT --data FILE --language cpp --split-column split

STUDENT: an exported folder. Each method attacks the same 200 rows, three times; the median counts.
Writes benchmarks/results/attack_throughput.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from datetime import date
from pathlib import Path

import torch

from distill import __version__
from distill.config import Columns, Data, SplitNames
from distill.data.corpus import build_corpus
from distill.driver.evaluate.subjects import served, student_of
from distill.evaluation.assess import EvaluationTask
from distill.evaluation.attacked import attack_model
from distill.evaluation.attacks import METHODS
from distill.evaluation.classifiers import probs_of
from distill.evaluation.samples import read_samples
from distill.evaluation.settings import Evaluation, parse_kind, parse_settings

NUM_SAMPLES, BUDGET, NUM_RUNS = 200, 50, 3


class Quiet:
    """Prints nothing."""

    def say(self, message: str) -> None: ...
    def update(self, label: str, done: float | None = None, total: float | None = None) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student")
    parser.add_argument("--data", required=True)
    parser.add_argument("--language", default="cpp")
    parser.add_argument("--text-column", default="code")
    parser.add_argument("--split-column")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attack_throughput"))
    args = parser.parse_args()
    student = student_of(args.student, None)
    columns = Columns(text=args.text_column, split=args.split_column)
    data = Data(path=args.data, columns=columns, splits=SplitNames())
    corpus = build_corpus(data, labels=student.label_names, only="test")
    samples = read_samples(corpus, corpus.rows("test"))
    task = EvaluationTask(samples, student.label_names, (), parse_kind(args.language))
    rows = []
    with served([student], Evaluation()) as (model,):
        probs_RC = probs_of(model, samples)
        for method in METHODS:
            rows.append(timed(model, task, probs_RC, method))
            print(json.dumps(rows[-1]), flush=True)
    text = {
        "date": date.today().isoformat(),
        "distill": __version__,
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "student_mb": round(
            sum(f.stat().st_size for f in Path(args.student).glob("*.safetensors")) / 1e6, 2
        ),
        "max_length": student.parts[0].max_length,
        "samples": NUM_SAMPLES,
        "budget": BUDGET,
        "runs": NUM_RUNS,
        "methods": rows,
    }
    args.out.with_suffix(".json").write_text(json.dumps(text, indent=1) + "\n")


def timed(model, task: EvaluationTask, probs_RC, method: str) -> dict:  # type: ignore[no-untyped-def]
    settings = parse_settings(
        [
            f"attack.methods=[{method}]",
            f"attack.budget={BUDGET}",
            f"attack.num_samples={NUM_SAMPLES}",
        ]
    )
    seconds = []
    for _ in range(NUM_RUNS):
        started = time.perf_counter()
        found = attack_model(model, task, probs_RC, settings, Quiet())
        seconds.append(time.perf_counter() - started)
    attacked = found.by_method[method]
    queries = sum(one.queries for one in attacked)
    median_s = statistics.median(seconds)
    return {
        "method": method,
        "attacked": len(attacked),
        "queries": queries,
        "seconds": [round(s, 1) for s in seconds],
        "samples_per_minute": round(len(attacked) / median_s * 60),
        "queries_per_s": round(queries / median_s),
        "asr": round(sum(one.is_flipped for one in attacked) / len(attacked), 3),
    }


if __name__ == "__main__":
    main()
