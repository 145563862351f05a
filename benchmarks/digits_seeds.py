"""A perceptron of 5 kB on scikit-learn's digits: alone, under a forest, under a vector machine.

    python benchmarks/digits_seeds.py

Three seeds (split, teachers, student), with all labels of the train split and with 200 of them;
the transfer split is unlabelled and teaches through the teachers alone. In one process, without
Ray, through the loop and engine that `distill train` uses; the student has as many steps in each
row. Writes results/digits_seeds.{json,md}; about a minute on two quiet cores.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from distill.aggregation import UniformMean
from distill.config import KD, Cache, Data, Optimizer, Serving, Stream, Student, Trainer
from distill.data import Batches, Corpus, build_corpus
from distill.objectives import ForwardKL
from distill.samples.features import load, stratified, teachers
from distill.tasks.classification.inputs import space_of
from distill.tasks.classification.predict import predict
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.teachers.backends import open_backends
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, load_best
from distill.training.job import Job

SEEDS = (0, 1, 2)
LABELS = {"all 629 labels": None, "200 labels": 200}
TEACHERS = ("forest", "svm")
NUM_STEPS = 1000
STUDENT = Student(layers=1, hidden=16, dropout=0.0)


def corpus_of(root: Path, seed: int, num_labels: int | None) -> tuple[Corpus, Data]:
    features_RD, labels_R = load("digits")
    columns = {"x": list(features_RD), "label": labels_R, "split": stratified(labels_R, seed)}
    path = root / f"digits-{seed}.parquet"
    parquet.write_table(pa.table(columns), path)
    settings: dict[str, Any] = {
        "path": str(path),
        "columns": {"features": "x", "split": "split"},
        "image": {"height": 8, "width": 8},
        "limit": {"train": num_labels},
        "cache_dir": str(root / "cache"),
    }
    data = Data.model_validate(settings)
    return build_corpus(data, seed), data


def guided_by(name: str, model: Any, corpus: Corpus, folder: Path) -> TeacherSetup:
    num_labels = len(corpus.label_names)
    key = TeacherKey(name, corpus.fingerprint, "none", "dense/float32", 0)
    teacher = ServedTeacher(name, "", Serving(), num_labels, key, model=model)
    return TeacherSetup(
        LocalTeachers(open_backends([teacher])),
        (teacher,),
        None,
        UniformMean(),
        Stream(),
        Cache(type="memory"),
        str(folder / "answers"),
    )


def student_accuracy(
    corpus: Corpus, data: Data, seed: int, folder: Path, teacher_setup: TeacherSetup | None
) -> float:
    folder.mkdir(parents=True)
    train, transfer = corpus.rows("train"), corpus.rows("transfer")
    rows = DataSpec(str(corpus.folder), "", 0)
    job = Job(
        name="student",
        folder=str(folder),
        seed=seed,
        model=StudentSpec(STUDENT, "", corpus.label_names, 0, space_of(data, corpus)),
        data=rows,
        train_rows=train if teacher_setup is None else range(train.start, transfer.stop),
        validation_rows=corpus.rows("validation"),
        optimizer=Optimizer(lr=5e-3),
        trainer=Trainer(engine="torch", batch_size=32, eval_every=50, checkpoint_every=NUM_STEPS),
        num_steps=NUM_STEPS,
        objective=None if teacher_setup is None else ForwardKL(),
        kd=None if teacher_setup is None else KD(temperature=1.0, alpha=0.9),
        teacher_setup=teacher_setup,
    )
    fit(job)
    test = Batches(rows.open(), corpus.rows("test"), 64, seed=0, shuffle=False)
    guessed = predict(load_best(job), test).student_R
    return float((guessed == corpus.labels_of(corpus.rows("test"))).mean())


def one_seed(seed: int, num_labels: int | None, root: Path) -> dict[str, float]:
    corpus, data = corpus_of(root, seed, num_labels)
    names = np.array(corpus.label_names)
    train, test = corpus.rows("train"), corpus.rows("test")
    found = {"student alone": student_accuracy(corpus, data, seed, root / "alone", None)}
    for name in TEACHERS:
        model = teachers(seed)[name]
        model.fit(corpus.features_of(train), names[corpus.labels_of(train)])
        assert tuple(model.classes_) == corpus.label_names
        right_R = model.predict(corpus.features_of(test)) == names[corpus.labels_of(test)]
        found[f"teacher {name}"] = float(right_R.mean())
        teacher_setup = guided_by(name, model, corpus, root / name)
        found[f"student under {name}"] = student_accuracy(
            corpus, data, seed, root / name, teacher_setup
        )
    return found


def main() -> None:
    results: dict[str, list[dict[str, float]]] = {}
    for text, num_labels in LABELS.items():
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                found = one_seed(seed, num_labels, Path(folder))
            print(text, seed, {k: round(v, 4) for k, v in found.items()}, flush=True)
            results.setdefault(text, []).append(found)
    lines = [f"| test accuracy, 3 seeds | {' | '.join(LABELS)} |", "|---|" + "---|" * len(LABELS)]
    for name in sorted(results["200 labels"][0], key=lambda n: (n.startswith("student"), n)):
        values = [[found[name] * 100 for found in runs] for runs in results.values()]
        cells = [f"{mean(v):.1f} ± {stdev(v):.1f} %" for v in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    print(table)
    out = Path(__file__).parent / "results"
    out.mkdir(exist_ok=True)
    (out / "digits_seeds.json").write_text(json.dumps(results, indent=1) + "\n")
    text = " ".join((__doc__ or "").split("Three seeds")[1].split("Writes")[0].split())
    header = (__doc__ or "").splitlines()[0]
    (out / "digits_seeds.md").write_text(f"# {header}\n\nThree seeds {text}\n\n{table}\n")


if __name__ == "__main__":
    main()
