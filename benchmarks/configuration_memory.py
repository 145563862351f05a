"""How far the configuration memory's first proposal is from the best of a random search.

    python -m distill.samples.sentiment --out data/sentiment
    python benchmarks/configuration_memory.py --sentiment data/sentiment

For each task and seed: the defaults of distill/config.py, and a random search over the ranges of
the memory. Then, leaving one task out at a time, the memory is filled with the random searches of
all other tasks, queried for this one, and its first proposal is trained. Everything runs through
distill's own loop, in this process. Finished trials in --work are not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import sklearn
import torch
from memory_tasks import DOMAINS, TABLES, TASKS, Task, prepare

from distill import __version__
from distill.config import KD, Optimizer, Trainer
from distill.data.batches import Batches
from distill.evaluation.predict import predict
from distill.fit import Job, fit, load_best
from distill.objectives import ForwardKL
from distill.search.memory import AXES, KEYS, Experience, Memory

BATCH_SIZE = 16
DEFAULTS = {
    "kd.temperature": KD().temperature,
    "kd.alpha": KD().alpha,
    "optimizer.lr": Optimizer().lr,
    "optimizer.weight_decay": Optimizer().weight_decay,
}
PROPOSALS = {
    "memory": "the memory's first proposal",
    "others": "without neighbours: the mean of all other tasks",
    "family": "the memory without any text task (text tasks only)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentiment", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--steps", type=int, default=240, help="optimizer steps of a trial")
    parser.add_argument("--work", type=Path, default=Path("runs/configuration-memory"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/configuration_memory"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("distill").setLevel(logging.ERROR)
    args.work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(args.work, args.steps)
    metas = {}
    for seed in args.seeds:
        tasks = {n: prepare(n, seed, args.sentiment, args.work / "tasks") for n in args.tasks}
        metas[seed] = {name: task.meta for name, task in tasks.items()}
        searched = {}
        for name, task in tasks.items():
            ledger.run(task, seed, "default", DEFAULTS)
            searched[name] = [
                ledger.run(task, seed, f"random-{i:02d}", values)
                for i, values in enumerate(drawn(args.trials, seed, name))
            ]
        for name, task in tasks.items():
            for kind, values in proposals(name, tasks, searched).items():
                ledger.run(task, seed, kind, values)
    write(args.out, args.tasks, args.seeds, args.trials, ledger, metas)


@dataclass(frozen=True)
class Run:
    """One student."""

    task: str
    seed: int
    name: str
    values: dict[str, float]
    validation: float
    """Accuracy of the best evaluation, which picks the weights."""
    test: float
    """Accuracy of those weights."""
    seconds: float
    cpu_seconds: float


class Ledger:
    """Finished trials, a line each, so that an interrupted benchmark goes on where it was."""

    def __init__(self, work: Path, num_steps: int) -> None:
        self.num_steps = num_steps
        self._work = work
        self._path = work / f"trials-of-{num_steps}-steps.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.runs = [Run(**json.loads(line)) for line in lines]

    def run(self, task: Task, seed: int, name: str, values: dict[str, float]) -> Run:
        """The trial, trained unless it has been with the same values."""
        found = self.find(task.name, seed, name)
        if found is not None and found.values == values:
            return found
        self.runs = [run for run in self.runs if run is not found]
        done = trained(task, seed, name, values, self.num_steps, self._work / "trial")
        self.runs.append(done)
        with self._path.open("a") as file:
            file.write(json.dumps(vars(done)) + "\n")
        told = f"{done.validation:.3f} in {done.seconds:.1f} s"
        print(f"{len(self.runs)}: {task.name} {seed} {name}: {told}", flush=True)
        return done

    def find(self, task: str, seed: int, name: str) -> Run | None:
        """The last one that was written."""
        found = [r for r in self.runs if (r.task, r.seed, r.name) == (task, seed, name)]
        return found[-1] if found else None


def trained(
    task: Task, seed: int, name: str, values: dict[str, float], num_steps: int, folder: Path
) -> Run:
    """One student under these values; same first weights and batches for all of a seed."""
    shutil.rmtree(folder, ignore_errors=True)
    started, cpu_started = time.perf_counter(), time.process_time()
    corpus = task.corpus
    # One epoch: its end costs the stream more than all the steps of so small a table.
    rows = np.arange(corpus.rows("train").start, corpus.rows("transfer").stop)
    job = Job(
        name=name,
        folder=str(folder),
        seed=seed,
        model=task.model,
        data=task.data,
        train_rows=np.tile(rows, -(-num_steps * BATCH_SIZE // len(rows))),
        validation_rows=corpus.rows("validation"),
        optimizer=Optimizer(
            lr=values["optimizer.lr"], weight_decay=values["optimizer.weight_decay"]
        ),
        trainer=Trainer(
            engine="torch",
            batch_size=BATCH_SIZE,
            eval_every=num_steps // 5,
            log_every=num_steps,
            checkpoint_every=num_steps,
        ),
        num_steps=num_steps,
        objective=ForwardKL(),
        kd=KD(temperature=values["kd.temperature"], alpha=values["kd.alpha"]),
        guidance=task.guidance,
    )
    validation = fit(job).best_value
    held_out = corpus.rows("test")
    batches = Batches(job.data.open(), held_out, 256, 0, shuffle=False)
    predicted = predict(load_best(job), batches)
    test = float((predicted.student_R == corpus.labels_of(held_out)).mean())
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    return Run(task.name, seed, name, values, validation, test, seconds, cpu)


def drawn(num: int, seed: int, task: str) -> list[dict[str, float]]:
    """Uniform on each axis' own scale, over the memory's ranges; others for every task."""
    rng = np.random.default_rng([seed, TASKS.index(task)])

    def one() -> dict[str, float]:
        return {
            a.key: a.value(rng.uniform(a.coordinate(a.low), a.coordinate(a.high))) for a in AXES
        }

    return [one() for _ in range(num)]


def proposals(
    name: str, tasks: dict[str, Task], searched: dict[str, list[Run]]
) -> dict[str, dict[str, float]]:
    """What is proposed for a task by all others' runs."""

    def memory(names: Sequence[str]) -> Memory:
        return Memory(
            Experience(n, tasks[n].meta, run.values, run.validation)
            for n in names
            for run in searched[n]
        )

    others = [n for n in tasks if n != name]
    meta = tasks[name].meta
    found = {"memory": memory(others).propose(meta, DEFAULTS).values}
    best = memory(others).experiments
    found["others"] = {
        a.key: a.value(statistics.fmean(a.coordinate(e.values[a.key]) for e in best)) for a in AXES
    }
    strangers = [n for n in others if n in TABLES]
    if name in DOMAINS and strangers:
        found["family"] = memory(strangers).propose(meta, DEFAULTS).values
    return found


# ---- what it came to -------------------------------------------------------------------------


def gaps(ledger: Ledger, task: str, seed: int, num: int, split: str) -> dict[str, float]:
    """Points of accuracy that each is below the best of the random search (picked on validation).

    Negative: above it.
    """
    search = [ledger.find(task, seed, f"random-{i:02d}") for i in range(num)]
    known = [run for run in search if run is not None]
    best = max(known, key=lambda run: run.validation)
    found = {"random": statistics.fmean(getattr(run, split) for run in known)}
    for name in ("default", *PROPOSALS):
        run = ledger.find(task, seed, name)
        if run is not None:
            found[name] = getattr(run, split)
    return {name: 100 * (getattr(best, split) - value) for name, value in found.items()}


def spread(values: Sequence[float]) -> str:
    sd = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):.1f} ± {sd:.1f}"


def verdict(memory: Sequence[float], default: Sequence[float], tasks: Sequence[str]) -> str:
    """One sentence; ``memory`` and ``default`` are mean gaps by task."""
    won = [t for t, m, d in zip(tasks, memory, default, strict=True) if m < d]
    lost = [t for t, m, d in zip(tasks, memory, default, strict=True) if m > d]
    gains = [d - m for m, d in zip(memory, default, strict=True)]
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else float("nan")
    told = f"{statistics.fmean(gains):+.1f} ± {error:.1f} points (standard error over tasks)"
    is_clear = statistics.fmean(gains) > 2 * error and len(won) > len(lost)
    claim = "beats the default" if is_clear else "**does not clearly beat the default**"
    return (
        f"The memory's first proposal {claim}: better on {len(won)} of {len(tasks)} tasks, worse "
        f"on {len(lost)}, {told}."
    )


def write(
    out: Path,
    tasks: Sequence[str],
    seeds: Sequence[int],
    num: int,
    ledger: Ledger,
    metas: dict[int, dict[str, dict[str, float]]],
) -> None:
    """A JSON with every trial, and Markdown tables of the gaps."""
    about = {
        "date": date.today().isoformat(),
        "distill": __version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "threads": 1,
        "seeds": list(seeds),
        "trials": num,
        "steps": ledger.num_steps,
        "batch_size": BATCH_SIZE,
        "defaults": DEFAULTS,
    }
    done = [run for run in ledger.runs if run.seed in seeds and run.task in tasks]
    minutes = sum(run.seconds for run in done) / 60
    cpu_minutes = sum(run.cpu_seconds for run in done) / 60
    columns = ["random", "default", *PROPOSALS]
    told = {
        "random": "a random trial",
        "default": "the default",
        "memory": "**memory**",
        "others": "mean of all others",
        "family": "memory of tables only",
    }
    text = f"# Configuration memory, one task left out, {len(seeds)} seeds\n\n"
    text += (
        f"{num} random trials a task and seed, {ledger.num_steps} steps of {BATCH_SIZE} rows each; "
    )
    text += f"{len(done)} trials took {cpu_minutes:.0f} CPU minutes, "
    text += f"{minutes:.0f} by the clock.\n\n"
    summaries = {}
    for split in ("validation", "test"):
        found = {t: [gaps(ledger, t, s, num, split) for s in seeds] for t in tasks}
        text += f"Points of {split} accuracy below the best of the {num} random trials, "
        text += "mean ± sd over seeds (negative: above it).\n\n"
        text += table(found, columns, told, tasks, seeds)
        memory = [statistics.fmean(g["memory"] for g in found[t]) for t in tasks]
        default = [statistics.fmean(g["default"] for g in found[t]) for t in tasks]
        text += verdict(memory, default, tasks) + "\n\n"
        pairs = [(g["memory"], g["default"]) for t in tasks for g in found[t]]
        won, tied = sum(m < d for m, d in pairs), sum(m == d for m, d in pairs)
        text += (
            f"Of {len(pairs)} pairs of task and seed it is better on {won}, level on {tied}.\n\n"
        )
        summaries[split] = found
    text += proposed(ledger, tasks, seeds)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(text)
    runs = [
        [
            *(r.task, r.seed, r.name),
            *(float(f"{r.values[key]:.4g}") for key in KEYS),
            *(round(r.validation, 5), round(r.test, 5), round(r.cpu_seconds, 2)),
        ]
        for r in done
    ]
    names = ["task", "seed", "name", *KEYS, "eval.accuracy", "test.accuracy", "cpu_seconds"]
    record = about | {"gaps": summaries, "meta": metas, "columns": names}
    lines = ",\n".join(json.dumps(run) for run in runs)
    told_about = json.dumps(record, indent=1).removesuffix("\n}")
    out.with_suffix(".json").write_text(f'{told_about},\n "runs": [\n{lines}\n]\n}}\n')
    print(text)


def table(
    found: dict[str, list[dict[str, float]]],
    columns: Sequence[str],
    told: dict[str, str],
    tasks: Sequence[str],
    seeds: Sequence[int],
) -> str:
    """Gaps by task, and their mean over tasks by seed."""
    lines = ["| task | " + " | ".join(told[c] for c in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")

    def row(name: str, names: Sequence[str]) -> str:
        cells = []
        for column in columns:
            known = [t for t in names if column in found[t][0]]
            means = (
                [statistics.fmean(found[t][i][column] for t in known) for i in range(len(seeds))]
                if known
                else []
            )
            cells.append(spread(means) if means else "–")
        return f"| {name} | " + " | ".join(cells) + " |"

    lines += [row(task, [task]) for task in tasks]
    for name, group in (("tables", TABLES), ("texts", DOMAINS)):
        if chosen := [t for t in tasks if t in group]:
            lines.append(row(f"mean of {name}", chosen))
    # A mean over some tasks only would be read against the means over all.
    lines.append(row("**mean of all**", tasks).rsplit("|", 2)[0] + "| – |")
    return "\n".join(lines) + "\n\n"


def proposed(ledger: Ledger, tasks: Sequence[str], seeds: Sequence[int]) -> str:
    """What the memory proposed under the first seed, compared with the defaults."""
    lines = ["| task, first seed | " + " | ".join(KEYS) + " |", "|---" * (len(KEYS) + 1) + "|"]
    rows = {"default": DEFAULTS}
    for task in tasks:
        run = ledger.find(task, seeds[0], "memory")
        assert run is not None
        rows[task] = run.values
    for name, values in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{values[key]:.3g}" for key in KEYS) + " |")
    return "\n".join(lines) + "\n\nThe default weight decay lies outside the paper's range.\n"


if __name__ == "__main__":
    main()
