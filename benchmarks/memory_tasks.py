"""The tasks of configuration_memory.py: small tables of scikit-learn, and domains of sentiment.

A task's teacher has answered every row beforehand, without having seen it: cross-fitted on its own
training rows (five folds), trained on all of them for the others. So no trial waits for a teacher.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn import datasets
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from distill.aggregation import UniformMean
from distill.config import Cache, Data, Serving, Stream, Student
from distill.data.corpus import Corpus, build_corpus
from distill.data.tokens import tokenise
from distill.experts.partition import embed
from distill.models.features import feature_space
from distill.models.load import load_base_for_classification
from distill.models.student import student_tokenizer
from distill.search.meta import Families, meta_features
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.teachers.cache import TeacherCache, TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.job import ModelSpec

TABLES = ("digits", "wine", "breast_cancer", "iris", "diabetes")
DOMAINS = ("tweets", "movies", "products", "news")
TASKS = (*TABLES, *DOMAINS)

SHARES = {"train": 0.3, "transfer": 0.2, "validation": 0.25, "test": 0.25}
"""Of a table."""
ROWS = {"train": 300, "transfer": 300, "validation": 280, "test": 400}
"""Of a domain."""
MAX_LENGTH = 24
TEACHER = "teacher"
SMALLEST = 1e-7
"""Forests emit exact zeros."""

TABLE_STUDENT = Student(layers=2, hidden=32)
TEXT_STUDENT = Student(layers=1, hidden=32, vocab_size=2000)


@dataclass(frozen=True)
class Task:
    """One data set, split by a seed, with its student, its teacher's outputs and its features."""

    name: str
    model: ModelSpec
    data: DataSpec
    teacher_setup: TeacherSetup
    meta: dict[str, float]

    @property
    def corpus(self) -> Corpus:
        return Corpus(Path(self.data.corpus))


def prepare(name: str, seed: int, sentiment: Path, work: Path) -> Task:
    """The task under one seed, which splits a table, or draws a domain's rows."""
    folder = work / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    make = _table if name in TABLES else _domain
    corpus, tokenizer, student, inputs_RH, teacher, num_frozen = make(name, seed, sentiment, folder)
    probs_RC, num_trained = _answers(teacher, inputs_RH, corpus, seed)
    key = TeacherKey(f"{name}-{seed}", corpus.fingerprint, "none", "dense/float32", MAX_LENGTH)
    logits_RC = np.log(np.maximum(probs_RC, SMALLEST)).astype(np.float32)
    cache = TeacherCache(folder / "cache", {TEACHER: key}, "benchmark")
    cache.put(TEACHER, np.arange(corpus.num_rows), logits_RC)
    cache.close()
    teacher_setup = TeacherSetup(
        client=LocalTeachers({}),  # never queried: the cache holds every row
        teachers=(ServedTeacher(TEACHER, tokenizer, Serving(), len(corpus.label_names), key),),
        router=None,
        aggregation=UniformMean(),
        stream=Stream(in_flight=1),
        cache=Cache(),
        cache_folder=str(folder / "cache"),
    )
    rows = np.asarray(corpus.rows("validation"))
    accuracy = float((probs_RC[rows].argmax(1) == corpus.labels_of(rows)).mean())
    params = sum(p.numel() for p in student.build(0).parameters())
    families = Families(("transformer" if num_frozen else "other",), student_family(name))
    meta = meta_features(corpus, params, num_frozen + num_trained, accuracy, families)
    data = DataSpec(str(corpus.folder), tokenizer, MAX_LENGTH)
    return Task(name, student, data, teacher_setup, meta)


def student_family(name: str) -> str:
    return "mlp" if name in TABLES else "transformer"


Made = tuple[Corpus, str, ModelSpec, np.ndarray, Callable[[], BaseEstimator], int]
"""Corpus, tokenizer, student; the teacher's inputs of every row, itself, its frozen weights."""


def _table(name: str, seed: int, _: Path, folder: Path) -> Made:
    inputs_RD, labels_R = _load(name)
    order = np.random.default_rng(seed).permutation(len(labels_R))
    edges = np.cumsum([round(share * len(order)) for share in SHARES.values()])[:-1]
    split_R = np.empty(len(order), object)
    for split, rows in zip(SHARES, np.split(order, edges), strict=True):
        split_R[rows] = split
    table = pa.table(
        {
            "features": pa.array(list(inputs_RD.astype(np.float64))),
            "label": pa.array(labels_R.astype(np.int64)),
            "split": pa.array(split_R.tolist()),
        }
    )
    pq.write_table(table, folder / "rows.parquet")
    columns = {"features": "features", "split": "split"}
    corpus = _corpus(folder, columns, seed)
    info = corpus.features
    assert info is not None
    space = feature_space(info.columns, info.mean, info.sd)
    student = StudentSpec(TABLE_STUDENT, "", corpus.label_names, MAX_LENGTH, space)

    def forest() -> BaseEstimator:
        return RandomForestClassifier(100, random_state=seed, n_jobs=1)

    return corpus, "", student, corpus.features_of(range(corpus.num_rows)), forest, 0


def _load(name: str) -> tuple[np.ndarray, np.ndarray]:
    inputs_RD, target_R = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "diabetes":  # a regression: is the disease worse than the median patient's?
        target_R = target_R > np.median(target_R)
    return inputs_RD, target_R


def _domain(name: str, seed: int, sentiment: Path, folder: Path) -> Made:
    rows = pq.read_table(sentiment / "sentiment.parquet", filters=[("domain", "==", name)])
    pq.write_table(rows, folder / "rows.parquet")
    columns = {"split": "split"}
    corpus = _corpus(folder, columns, seed, limit=ROWS)
    encoder = str(sentiment / "encoder")

    def texts() -> Iterator[str]:
        for split in ("train", "transfer"):
            yield from (text for text, _ in corpus.texts(split))

    tokenizer = student_tokenizer(TEXT_STUDENT, encoder, texts, folder / "tokenizer")
    student = StudentSpec(TEXT_STUDENT, str(tokenizer), corpus.label_names, MAX_LENGTH)
    inputs_RH, num_frozen = _embedded(corpus, encoder, folder / "embedded.npy")

    def head() -> BaseEstimator:
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=1000))

    return corpus, str(tokenizer), student, inputs_RH, head, num_frozen


@torch.inference_mode()
def _embedded(corpus: Corpus, encoder: str, kept: Path) -> tuple[np.ndarray, int]:
    """The encoder's mean-pooled embeddings of every row, and its number of parameters."""
    model = load_base_for_classification(encoder, corpus.label_names, 0).eval()
    if not kept.exists():
        tokens = tokenise(corpus, encoder, MAX_LENGTH)
        by_length = np.argsort(tokens.lengths(range(corpus.num_rows)), kind="stable")
        blocks = []
        for start in range(0, corpus.num_rows, 64):
            padded = tokens.padded(by_length[start : start + 64])
            inputs = {
                "input_ids": torch.from_numpy(padded.input_ids_BT),
                "attention_mask": torch.from_numpy(padded.attention_mask_BT),
            }
            blocks.append(embed(model, inputs).float().numpy())
        embedded_RH = np.empty((corpus.num_rows, blocks[0].shape[1]), np.float32)
        embedded_RH[by_length] = np.concatenate(blocks)
        partial = kept.with_suffix(".partial.npy")
        np.save(partial, embedded_RH)
        os.replace(partial, kept)
    return np.load(kept), sum(p.numel() for p in model.parameters())


def _corpus(
    folder: Path, columns: dict[str, str], seed: int, limit: dict[str, int] | None = None
) -> Corpus:
    data = Data.model_validate(
        {
            "path": str(folder / "rows.parquet"),
            "columns": columns,
            "limit": limit or {},
            "max_length": MAX_LENGTH,
            "cache_dir": str(folder / "data"),
        }
    )
    return build_corpus(data, seed)


def _answers(
    teacher: Callable[[], BaseEstimator], inputs_RH: np.ndarray, corpus: Corpus, seed: int
) -> tuple[np.ndarray, int]:
    """Probabilities of every row, of a model that did not see it, and that model's parameters."""
    model: Any = teacher()
    train = np.asarray(corpus.rows("train"))
    labels = corpus.labels_of(train)
    model.fit(inputs_RH[train], labels)
    probs_RC = np.zeros((corpus.num_rows, len(corpus.label_names)))
    # A class without training rows keeps probability 0.
    probs_RC[:, model.classes_] = model.predict_proba(inputs_RH)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    crossed: Any = cross_val_predict(
        teacher(), inputs_RH[train], labels, cv=folds, method="predict_proba"
    )
    probs_RC[np.ix_(train, model.classes_)] = crossed
    if isinstance(model, RandomForestClassifier):
        # A threshold or a distribution over classes for each node.
        return probs_RC, sum(tree.tree_.node_count for tree in model.estimators_)
    return probs_RC, sum(a.size for a in (model[-1].coef_, model[-1].intercept_))
