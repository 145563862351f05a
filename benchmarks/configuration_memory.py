"""How far the configuration memory's proposals are from the best of a random search.

    python -m distill.samples.sentiment --out data/sentiment
    python benchmarks/configuration_memory.py --sentiment data/sentiment

For each task and seed: the defaults of distill/config, and a random search over the ranges of the
memory. Then, leaving one task out at a time, the memory is filled with the random searches of all
other tasks, queried for this one, and its proposals are trained: the first one, and what the brief
runs and the refinement of warm_start end with. Controls: the mean of all other tasks, and the mean
of the five nearest. Everything runs through distill's own loop, in this process.

Finished trials in --work are not run again. --history takes the random trials from an earlier
result, as they do not depend on the memory; the defaults are trained again and must reach what
they reached there.
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
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import sklearn
import torch
from memory_tasks import DOMAINS, TABLES, TASKS, Task, prepare

from distill import __version__
from distill.config import KD, Optimizer, Trainer
from distill.data.batches import Batches
from distill.objectives import ForwardKL
from distill.search.configuration_memory import AXES, ConfigurationMemory, Experience
from distill.search.refine import BRIEF, choose
from distill.tasks.classification.predict import predict
from distill.training.fit import fit, load_best
from distill.training.job import Job

BATCH_SIZE = 16
DEFAULTS = {
    "kd.temperature": KD().temperature,
    "kd.alpha": KD().alpha,
    "optimizer.lr": Optimizer().lr,
    "optimizer.weight_decay": Optimizer().weight_decay,
}
KEYS = tuple(DEFAULTS)
OWN_AXES = tuple(axis for axis in AXES if axis.key in KEYS)
PROPOSALS = {
    "memory": "the memory's first proposal",
    "refined": "after the brief runs and their refinement",
    "nearest": "the mean of the five nearest, which is proposed of 50 runs and fewer",
    "others": "the control: the mean of all other tasks",
    "family": "the memory without any text task (text tasks only)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentiment", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--steps", type=int, default=240, help="optimizer steps of a trial")
    parser.add_argument("--history", type=Path, help="JSON of an earlier result")
    parser.add_argument("--work", type=Path, default=Path("runs/configuration-memory"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/configuration_memory"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("distill").setLevel(logging.ERROR)
    args.work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(args.work, args.steps)
    earlier = read_history(args.history) if args.history else []
    metas = {}
    for seed in args.seeds:
        tasks = {n: prepare(n, seed, args.sentiment, args.work / "tasks") for n in args.tasks}
        metas[seed] = {name: task.meta for name, task in tasks.items()}
        searched = {}
        for name, task in tasks.items():
            default = ledger.run(task, seed, "default", DEFAULTS)
            values = dict(enumerate(drawn(args.trials, seed, name)))
            if args.history:
                ledger.take(earlier, default, {f"random-{i:02d}": v for i, v in values.items()})
            searched[name] = [
                ledger.run(task, seed, f"random-{i:02d}", value) for i, value in values.items()
            ]
        for name, task in tasks.items():
            found = proposals(name, tasks, searched)
            for kind, proposed in found.items():
                ledger.run(task, seed, kind, proposed)
            ledger.run(task, seed, "refined", refined(ledger, task, seed, found["memory"]))
    history = "the random ones from an earlier result, whose defaults were reached again"
    history = history if args.history else ""
    write(args.out, args.tasks, args.seeds, args.trials, ledger, metas, history)


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
        same = next((r for r in self._of(task.name, seed) if r.values == values), None)
        if same is not None and not name.startswith("brief"):
            done = replace(same, name=name)  # the same seed and values give the same student
        else:
            num_steps = (
                round(BRIEF * self.num_steps) if name.startswith("brief") else self.num_steps
            )
            done = trained(task, seed, name, values, num_steps, self._work / "trial")
        self.runs.append(done)
        with self._path.open("a") as file:
            file.write(json.dumps(vars(done)) + "\n")
        described = f"{done.validation:.3f} in {done.seconds:.1f} s"
        print(f"{len(self.runs)}: {task.name} {seed} {name}: {described}", flush=True)
        return done

    def take(self, earlier: list[Run], default: Run, drawn: dict[str, dict[str, float]]) -> None:
        """The random trials of an earlier result, if the default reached the same there."""
        own = {r.name: r for r in earlier if (r.task, r.seed) == (default.task, default.seed)}
        reached = [round(default.validation, 5), round(default.test, 5)]
        before = [own["default"].validation, own["default"].test]
        if reached != before:
            raise SystemExit(
                f"{default.task} {default.seed}: the default reaches {reached}, in --history "
                f"{before}: the trials cannot be compared, run without --history"
            )
        for name, values in drawn.items():
            assert all(
                math.isclose(own[name].values[k], v, rel_tol=1e-3) for k, v in values.items()
            )
            if self.find(default.task, default.seed, name) is None:
                self.runs.append(replace(own[name], values=values))

    def find(self, task: str, seed: int, name: str) -> Run | None:
        """The last one that was written."""
        found = [r for r in self.runs if (r.task, r.seed, r.name) == (task, seed, name)]
        return found[-1] if found else None

    def _of(self, task: str, seed: int) -> list[Run]:
        """Those of all steps."""
        own = [run for run in self.runs if (run.task, run.seed) == (task, seed)]
        return [run for run in own if not run.name.startswith("brief")]


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
        teacher_setup=task.teacher_setup,
    )
    validation = fit(job).best_value
    held_out = corpus.rows("test")
    batches = Batches(job.data.open(), held_out, 256, 0, shuffle=False)
    predicted = predict(load_best(job), batches)
    test = float((predicted.student_R == corpus.labels_of(held_out)).mean())
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    return Run(task.name, seed, name, values, validation, test, seconds, cpu)


def read_history(path: Path) -> list[Run]:
    """The runs of an earlier result; values have four digits."""
    record = json.loads(path.read_text())
    runs = [dict(zip(record["columns"], row, strict=True)) for row in record["runs"]]
    return [
        Run(
            run["task"],
            run["seed"],
            run["name"],
            {key: run[key] for key in KEYS},
            run["eval.accuracy"],
            run["test.accuracy"],
            run["cpu_seconds"],
            run["cpu_seconds"],
        )
        for run in runs
    ]


def refined(ledger: Ledger, task: Task, seed: int, proposed: dict[str, float]) -> dict[str, float]:
    """The values that warm_start ends with."""

    def measure(name: str, values: dict[str, float]) -> float:
        return ledger.run(task, seed, f"brief-{name}", values).validation

    return choose(proposed, DEFAULTS, measure).best.values


def drawn(num: int, seed: int, task: str) -> list[dict[str, float]]:
    """Uniform on each axis' own scale, over the memory's ranges; others for every task."""
    rng = np.random.default_rng([seed, TASKS.index(task)])

    def one() -> dict[str, float]:
        return {
            a.key: a.value(rng.uniform(a.coordinate(a.low), a.coordinate(a.high))) for a in OWN_AXES
        }

    return [one() for _ in range(num)]


def proposals(
    name: str, tasks: dict[str, Task], searched: dict[str, list[Run]]
) -> dict[str, dict[str, float]]:
    """What is proposed for a task by all others' runs."""

    def memory(names: Sequence[str]) -> ConfigurationMemory:
        return ConfigurationMemory(
            Experience(n, tasks[n].meta, run.values, run.validation)
            for n in names
            for run in searched[n]
        )

    others = [n for n in tasks if n != name]
    meta = tasks[name].meta
    full = memory(others)
    found = {"memory": full.propose(meta, DEFAULTS).values}
    # One run a task is too few for boosting.
    found["nearest"] = ConfigurationMemory(full.experiments).propose(meta, DEFAULTS).values
    found["others"] = full.mean(DEFAULTS)
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
    mean = round(statistics.fmean(values), 1) + 0.0  # not −0.0
    return f"{mean:.1f} ± {sd:.1f}"


def compared(
    name: str, control: str, found: dict[str, list[dict[str, float]]], labels: dict[str, str]
) -> str:
    """One sentence on the mean gaps by task, and on the pairs of task and seed."""
    gains = [statistics.fmean(g[control] - g[name] for g in gaps) for gaps in found.values()]
    won, lost = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else float("nan")
    is_clear = statistics.fmean(gains) > 2 * error and won > lost
    claim = "is better than" if is_clear else "**is not clearly better than**"
    pairs = [(g[name], g[control]) for gaps in found.values() for g in gaps]
    return (
        f"{labels[name].strip('*').capitalize()} {claim} {labels[control]}: better on {won} of "
        f"{len(gains)} tasks, worse on {lost}, {statistics.fmean(gains):+.1f} ± {error:.1f} points "
        f"(standard error over tasks). Of {len(pairs)} pairs of task and seed it is better on "
        f"{sum(m < c for m, c in pairs)}, level on {sum(m == c for m, c in pairs)}."
    )


def write(
    out: Path,
    tasks: Sequence[str],
    seeds: Sequence[int],
    num: int,
    ledger: Ledger,
    metas: dict[int, dict[str, dict[str, float]]],
    history: str = "",
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
    cpu_minutes = sum(run.cpu_seconds for run in done) / 60
    briefs = [run for run in done if run.name.startswith("brief")]
    refinements = sum(run.name not in ("brief-proposal", "brief-configuration") for run in briefs)
    columns = ["random", "default", *PROPOSALS]
    described = {
        "random": "a random trial",
        "default": "the default",
        "memory": "**memory**",
        "refined": "memory, refined",
        "nearest": "mean of 5 nearest",
        "others": "mean of all others",
        "family": "memory of tables only",
    }
    text = f"# Configuration memory, one task left out, {len(seeds)} seeds\n\n"
    text += (
        f"{num} random trials a task and seed, {ledger.num_steps} steps of {BATCH_SIZE} rows each; "
    )
    text += f"{len(done)} trials took {cpu_minutes:.0f} CPU minutes"
    text += f", {history}.\n\n" if history else ".\n\n"
    text += (
        f"Refined: {len(briefs)} brief runs of {round(BRIEF * ledger.num_steps)} steps, of which "
        f"{refinements} are refinements.\n\n"
    )
    summaries = {}
    for split in ("validation", "test"):
        found = {t: [gaps(ledger, t, s, num, split) for s in seeds] for t in tasks}
        text += f"Points of {split} accuracy below the best of the {num} random trials, "
        text += "mean ± sd over seeds (negative: above it).\n\n"
        text += table(found, columns, described, tasks, seeds)
        for name in ("memory", "refined"):
            for control in ("default", "others"):
                text += compared(name, control, found, described) + "\n\n"
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
    described: dict[str, str],
    tasks: Sequence[str],
    seeds: Sequence[int],
) -> str:
    """Gaps by task, and their mean over tasks by seed."""
    lines = ["| task | " + " | ".join(described[c] for c in columns) + " |"]
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
