"""Meta-features: the numbers that describe a task's data and models to the configuration memory.

Shape suffixes: R rows, D inputs of a row, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distill.data.corpus import Corpus
from distill.records import UNLABELLED

PREFIX = "meta."
TEACHER_FAMILY = "meta.teacher_family."
STUDENT_FAMILY = "meta.student_family."
TEACHER_FAMILIES = ("transformer", "mlp", "cnn", "other")
"""``other``: an object with ``predict_proba``, such as scikit-learn's."""
STUDENT_FAMILIES = ("transformer", "mlp", "cnn")
COLUMN_BLOCK = 64
"""Columns in float64 at once: a large table is held several times over otherwise."""


@dataclass(frozen=True)
class Moments:
    """Of the inputs: each column's, then the mean over columns."""

    mean: float
    variance: float
    """Population variance (divides by R)."""
    skewness: float
    """m₃ / m₂^1.5; 0 for a constant column."""
    kurtosis: float
    """m₄ / m₂² − 3; 0 for a constant column."""


@dataclass(frozen=True)
class DataSummary:
    """All that the meta-features contain of the data."""

    num_rows: int
    """Rows that the student is trained on, labelled or not."""
    num_test_rows: int
    num_inputs: float
    moments: Moments
    label_counts_C: np.ndarray
    """Labelled training rows of each class; a class may have none."""


@dataclass(frozen=True)
class Families:
    """Architecture families of the models."""

    teachers: tuple[str, ...]
    """Of each teacher, one of TEACHER_FAMILIES."""
    student: str
    """One of STUDENT_FAMILIES."""

    def one_hot(self) -> dict[str, float]:
        """Teachers of several families: the share of each family."""
        shares = {name: self.teachers.count(name) for name in TEACHER_FAMILIES}
        num = max(len(self.teachers), 1)
        return {f"{TEACHER_FAMILY}{name}": count / num for name, count in shares.items()} | {
            f"{STUDENT_FAMILY}{name}": float(name == self.student) for name in STUDENT_FAMILIES
        }


def meta_features(
    corpus: Corpus,
    student_params: int,
    teacher_params: int,
    teacher_accuracy: float,
    families: Families | None = None,
) -> dict[str, float]:
    """HPM-KD's meta-features [draft: which; ours: how each is defined], under stable names.

    ``teacher_params`` are those of the largest teacher, as in ``compression``; 0 where a teacher
    has none to count. ``teacher_accuracy`` is that of the ensemble, on validation. ``families``
    None: not known, and left out. All finite.

    | name | definition |
    |---|---|
    | ``meta.n``, ``meta.n_test`` | rows of train and transfer; rows of test |
    | ``meta.d`` | inputs of a row: columns of features; text: mean number of words |
    | ``meta.classes`` | number of classes |
    | ``meta.imbalance`` | rows of the largest class / of the smallest that occurs in train |
    | ``meta.mean``, ``meta.variance`` | of each input column, mean over columns |
    | ``meta.skewness``, ``meta.kurtosis`` | likewise (biased; excess of 3; constant: 0) |
    | ``meta.class_entropy`` | entropy of the train labels in nats |
    | ``meta.log_teacher_params`` | log10 of the parameters of the largest teacher, at least 0 |
    | ``meta.log_student_params`` | log10 of the student's parameters |
    | ``meta.compression`` | parameters of the largest teacher / of the student |
    | ``meta.log_capacity_gap`` | natural logarithm of ``meta.compression`` |
    | ``meta.teacher_family.<family>`` | share of the teachers: transformer, mlp, cnn or other |
    | ``meta.student_family.<family>`` | 1 for the student's: transformer, mlp or cnn; else 0 |
    | ``meta.teacher_accuracy`` | ``eval.teacher_accuracy`` |

    The one input column of a text is its length in characters (a pair: of both texts).
    """
    data = summarise(corpus)
    return describe(data, student_params, teacher_params, teacher_accuracy, families)


def describe(
    data: DataSummary,
    student_params: int,
    teacher_params: int,
    teacher_accuracy: float,
    families: Families | None = None,
) -> dict[str, float]:
    """The table of :func:`meta_features`, of any kind of data."""
    counts_C = np.asarray(data.label_counts_C, np.float64)
    present_C = counts_C[counts_C > 0]
    shares_C = present_C / max(present_C.sum(), 1.0)
    student, teacher = max(student_params, 1), max(teacher_params, 1)
    features = {
        "n": data.num_rows,
        "n_test": data.num_test_rows,
        "d": data.num_inputs,
        "classes": len(counts_C),
        "imbalance": present_C.max() / present_C.min() if len(present_C) else 1.0,
        "mean": data.moments.mean,
        "variance": data.moments.variance,
        "skewness": data.moments.skewness,
        "kurtosis": data.moments.kurtosis,
        "class_entropy": -(shares_C * np.log(shares_C)).sum(),
        "log_teacher_params": math.log10(teacher),
        "log_student_params": math.log10(student),
        "compression": teacher / student,
        "teacher_accuracy": teacher_accuracy,
    }
    named = {f"{PREFIX}{name}": float(value) for name, value in features.items()}
    return completed(named | (families.one_hot() if families is not None else {}))


def completed(meta: Mapping[str, float]) -> dict[str, float]:
    """With the features that follow from others, which older versions did not record."""
    compression = meta.get("meta.compression", 0.0)
    gap = {"meta.log_capacity_gap": math.log(compression)} if compression > 0 else {}
    return gap | dict(meta)


def summarise(corpus: Corpus) -> DataSummary:
    """Of the rows of train and transfer, whether texts or features."""
    if corpus.features is None:
        return summarise_texts(corpus)
    train, transfer = corpus.rows("train"), corpus.rows("transfer")
    rows = range(train.start, transfer.stop)
    classes, num_test = len(corpus.label_names), len(corpus.rows("test"))
    inputs_RD, labels_R = corpus.features_of(rows), corpus.labels_of(rows)
    return summarise_features(inputs_RD, labels_R, classes, num_test)


def summarise_texts(corpus: Corpus) -> DataSummary:
    """Of a corpus of texts; every text is read once."""
    lengths, num_words = [], 0
    for split in ("train", "transfer"):
        for text, pair in corpus.texts(split):
            lengths.append(len(text) + len(pair or ""))
            num_words += len(text.split()) + len((pair or "").split())
    return DataSummary(
        num_rows=len(lengths),
        num_test_rows=len(corpus.rows("test")),
        num_inputs=num_words / max(len(lengths), 1),
        moments=moments(np.array(lengths, np.float64)[:, None]),
        label_counts_C=count_labels(
            corpus.labels_of(corpus.rows("train")), len(corpus.label_names)
        ),
    )


def summarise_features(
    inputs_RD: np.ndarray, labels_R: np.ndarray, classes: int, num_test_rows: int
) -> DataSummary:
    """Of a table of numbers, all finite; unlabelled rows count as inputs only."""
    num_rows, num_columns = inputs_RD.shape
    counts_C = count_labels(labels_R, classes)
    return DataSummary(num_rows, num_test_rows, num_columns, moments(inputs_RD), counts_C)


def count_labels(labels_R: np.ndarray, classes: int) -> np.ndarray:
    """int64[C]; rows without a label are left out."""
    labels_R = np.asarray(labels_R, np.int64)
    return np.bincount(labels_R[labels_R != UNLABELLED], minlength=classes)


def moments(values_RD: np.ndarray) -> Moments:
    """As ``scipy.stats.skew`` and ``kurtosis`` (biased), but 0 where those are undefined."""
    if values_RD.size == 0:
        return Moments(0.0, 0.0, 0.0, 0.0)
    num_columns = values_RD.shape[1]
    starts = range(0, num_columns, COLUMN_BLOCK)
    blocks = [_moments(values_RD[:, start : start + COLUMN_BLOCK]) for start in starts]
    return Moments(*np.concatenate(blocks, axis=1).mean(1).tolist())


def _moments(values_RD: np.ndarray) -> np.ndarray:
    """[4, D]: each column's."""
    values_RD = values_RD.astype(np.float64)
    mean_D = values_RD.mean(0)
    centred_RD = values_RD - mean_D
    variance_D = (centred_RD**2).mean(0)
    # A constant column's variance is not exactly 0: its mean is rounded.
    is_constant_D = variance_D <= (np.finfo(np.float64).eps * mean_D) ** 2
    scale_D = np.where(is_constant_D, 1.0, np.sqrt(variance_D))
    z_RD = np.where(is_constant_D, 0.0, centred_RD / scale_D)
    kurtosis_D = np.where(is_constant_D, 0.0, (z_RD**4).mean(0) - 3)
    return np.stack([mean_D, variance_D, (z_RD**3).mean(0), kurtosis_D])
