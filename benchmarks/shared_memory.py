"""Time that the shared memory saves: digits, a chain of one link, in this process.

    python benchmarks/shared_memory.py

An experiment trains a link (a perceptron) from two scikit-learn teachers, then a student from the
link. It is run without the memory; with an empty one; again; then with another student, whose link
is found; then with another link, for which the outputs of the scikit-learn teachers are found.
Everything runs through distill's own loop, without Ray, whose start is the same in each row. Three
seeds (split, teachers, weights). Writes results/shared_memory.{json,md}; about a minute.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import sklearn
import torch
from digits_seeds import corpus_of

from distill import __version__
from distill.aggregation import UniformMean
from distill.config import KD, Cache, Data, Optimizer, Serving, Stream, Student, Trainer
from distill.config.memory import SharedMemory
from distill.data import Batches, Corpus
from distill.driver.memory.store import Memory, NoMemory, open_memory
from distill.models.weights import weights_fingerprint
from distill.objectives import ForwardKL
from distill.samples.features import teachers
from distill.tasks.classification.inputs import space_of
from distill.tasks.classification.predict import predict
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.teachers.backends import open_backends
from distill.teachers.cache import TeacherKey, cache_folder_of
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit_and_save, load_best
from distill.training.job import Job

SEEDS = (0, 1, 2)
TEACHERS = ("forest", "svm")
NUM_STEPS = 600


@dataclass(frozen=True)
class Case:
    """One experiment: widths of its link and its student."""

    name: str
    link: int = 64
    student: int = 16


FIRST = Case("first experiment")
CASES = (
    FIRST,
    Case("the same again"),
    Case("another student", student=12),
    Case("another link", link=96),
)


@dataclass(frozen=True)
class Task:
    """One seed of the digits, and the teachers, which have been fitted."""

    seed: int
    corpus: Corpus
    data: Data
    models: dict[str, Any]

    def job(self, name: str, folder: Path, hidden: int, teacher_setup: TeacherSetup) -> Job:
        train, transfer = self.corpus.rows("train"), self.corpus.rows("transfer")
        student = Student(layers=1, hidden=hidden, dropout=0.0)
        space = space_of(self.data, self.corpus)
        return Job(
            name=name,
            folder=str(folder),
            seed=self.seed,
            model=StudentSpec(student, "", self.corpus.label_names, 0, space),
            data=DataSpec(str(self.corpus.folder), "", 0),
            train_rows=range(train.start, transfer.stop),
            validation_rows=self.corpus.rows("validation"),
            optimizer=Optimizer(lr=5e-3),
            trainer=Trainer(engine="torch", eval_every=50, checkpoint_every=NUM_STEPS),
            num_steps=NUM_STEPS,
            objective=ForwardKL(),
            kd=KD(temperature=1.0, alpha=0.9),
            teacher_setup=teacher_setup,
        )

    def teacher_setup(
        self, memory: Memory | NoMemory, folder: Path, models: dict[str, Any], weights: Any
    ) -> TeacherSetup:
        """As the pipeline makes it: outputs in the memory, or in the run's own folder."""
        num_labels = len(self.corpus.label_names)
        specs = tuple(
            ServedTeacher(
                name,
                "",
                Serving(),
                num_labels,
                TeacherKey(weights[name], self.corpus.fingerprint, "none", "dense/float32", 0),
                model=model,
            )
            for name, model in models.items()
        )
        shared = memory.answers(Cache())
        if shared is not None:
            for spec in specs:
                memory.hold(cache_folder_of(shared, spec.name, spec.key, by_content=True))
        return TeacherSetup(
            LocalTeachers(open_backends(specs)),
            specs,
            None,
            UniformMean(),
            Stream(),
            Cache(),
            str(shared or folder / "cache"),
            by_content=shared is not None,
        )

    def accuracy(self, job: Job) -> float:
        rows = self.corpus.rows("test")
        test = Batches(job.data.open(), rows, 64, seed=0, shuffle=False)
        guessed_R = predict(load_best(job), test).student_R
        return float((guessed_R == self.corpus.labels_of(rows)).mean())


def prepare(seed: int, root: Path) -> Task:
    corpus, data = corpus_of(root, seed, None)
    names = np.array(corpus.label_names)
    train = corpus.rows("train")
    models = {name: teachers(seed)[name] for name in TEACHERS}
    for model in models.values():
        model.fit(corpus.features_of(train), names[corpus.labels_of(train)])
    return Task(seed, corpus, data, models)


def run(task: Task, case: Case, root: Path, settings: SharedMemory) -> dict[str, Any]:
    """One experiment in a folder of its own; the time of all but the evaluation on test."""
    folder = Path(tempfile.mkdtemp(dir=root))
    started, cpu_started = time.perf_counter(), time.process_time()
    memory = open_memory(settings, print)
    weights = {name: f"{name}-{task.seed}" for name in task.models}
    teacher_setup = task.teacher_setup(memory, folder, task.models, weights)
    link = done(memory, task.job("link 1", folder / "link", case.link, teacher_setup))
    models = {"link 1": str(link.model_folder)}
    weights = {"link 1": weights_fingerprint(link.model_folder)}
    teacher_setup = task.teacher_setup(memory, folder, models, weights)
    student = done(memory, task.job("student", folder / "fit", case.student, teacher_setup))
    found = memory.metrics()
    memory.close()
    times = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
    }
    return {**times, "accuracy": task.accuracy(student), **found}


def done(memory: Memory | NoMemory, job: Job) -> Job:
    """Trained or found, exported and kept, as the pipeline does it."""
    memory.restore(job)
    fit_and_save(job)
    memory.keep(job)
    return job


def measure(root: Path) -> dict[str, list[dict[str, Any]]]:
    """For each case, a record for each seed."""
    found: dict[str, list[dict[str, Any]]] = {case.name: [] for case in CASES}
    for seed in SEEDS:
        task = prepare(seed, root)
        run(task, FIRST, root, SharedMemory())  # imports, and pages of the data
        settings = SharedMemory(path=str(root / f"memory-{seed}"))
        for case in CASES:
            alone = run(task, case, root, SharedMemory())
            shared = run(task, case, root, settings)
            found[case.name].append({"without": alone, "with": shared})
        shutil.rmtree(root / f"memory-{seed}")
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| experiment | CPU s without | CPU s with | fits found | outputs computed | accuracy "
        "without | accuracy with |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        records = found[case.name]

        def mid(which: str, key: str, records: Sequence[dict[str, Any]] = records) -> float:
            return median(record[which][key] for record in records)

        computed = median(
            record["with"]["memory.answers.accesses"] - record["with"]["memory.answers.hits"]
            for record in records
        )
        lines.append(
            f"| {case.name} | {mid('without', 'cpu_seconds'):.2f} | "
            f"{mid('with', 'cpu_seconds'):.2f} | "
            f"{mid('with', 'memory.students.hits'):.0f} of "
            f"{mid('with', 'memory.students.accesses'):.0f} | {computed:,.0f} | "
            f"{mid('without', 'accuracy'):.1%} | {mid('with', 'accuracy'):.1%} |"
        )
    return "\n".join(lines)


ABOUT = """\
# Shared memory: time saved

`python benchmarks/shared_memory.py`: digits; a link of 64 units learns from a forest and a support
vector machine, a student of 16 from the link, {steps} steps each; in one process, without Ray.
Medians of {seeds} seeds; CPU seconds of the process, because other work ran on the machine. With:
one shared memory for all rows of a seed, empty before the first. Outputs computed: rows for which
a teacher (forest, machine, link) was queried.

{table}

"The same again" trains nothing. "Another student" (12 units) finds the link, and the link's
outputs. "Another link" (96 units) finds only the outputs of the forest and the machine. The
accuracies of both columns are equal because what is found has the same bits.
"""


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        found = measure(Path(root))
    about = {
        "date": date.today().isoformat(),
        "distill": __version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "steps": NUM_STEPS,
        "seeds": list(SEEDS),
    }
    results = Path(__file__).parent / "results"
    content = json.dumps({"about": about, "cases": found}, indent=1)
    (results / "shared_memory.json").write_text(content + "\n")
    text = ABOUT.format(steps=NUM_STEPS, seeds=len(SEEDS), table=table(found))
    (results / "shared_memory.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
