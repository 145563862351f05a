"""Teachers that are any object with ``predict_proba``: forests, boosting, pipelines over text.

Shape suffixes: B rows, D features, V classes.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.config.labels import as_label
from distill.errors import ModelError, TeacherAnswerError

SMALLEST = 1e-7
"""Probabilities below it are raised to it, since a forest's zeros have no logarithm; about the
rounding error of a float32 softmax, and 16 nats below certainty."""
ENDINGS = (".pkl", ".pickle", ".joblib")


class ProbabilityAnswer(NamedTuple):
    logits: Tensor  # float32 [B, V]
    num_clamped: int


class ProbabilityModel:
    """z = log max(p, 1e-7): softmax(z) is p again, up to what was clamped.

    As a teacher's model it takes ``features`` (float32 [B, D], given to ``predict_proba`` as a
    numpy array) or ``texts`` (B strings, given as a list). Rows are answered one by one as far as
    the object is concerned, so an answer does not depend on its neighbours.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(
        self, features: Tensor | np.ndarray | None = None, texts: np.ndarray | None = None
    ) -> ProbabilityAnswer:
        if features is None:
            assert texts is not None
            rows: Any = texts.tolist()
        else:
            rows = np.asarray(features.cpu() if isinstance(features, Tensor) else features)
        try:
            probs_BV = np.asarray(self.model.predict_proba(rows), np.float64)
        except Exception as error:  # any library's
            text = f"{type(error).__name__}: {error}"
            raise TeacherAnswerError(f"predict_proba failed on {len(rows)} rows: {text}") from None
        if probs_BV.ndim != 2 or len(probs_BV) != len(rows):
            raise TeacherAnswerError(
                f"predict_proba returned for {len(rows)} rows the shape {list(probs_BV.shape)}: "
                "one row of class probabilities for each is needed"
            )
        if not ((probs_BV >= 0) & (probs_BV <= 1 + 1e-6)).all():
            raise TeacherAnswerError(
                "predict_proba returned values outside [0, 1]: give a model whose predict_proba "
                "returns probabilities (not scores or logarithms)"
            )
        num_clamped = int((probs_BV < SMALLEST).sum())
        logits_BV = np.log(np.clip(probs_BV, SMALLEST, 1.0))
        return ProbabilityAnswer(torch.from_numpy(logits_BV.astype(np.float32)), num_clamped)


def is_pickle(path: str | Path) -> bool:
    """Whether a teacher's path means a file of one object, not a model folder."""
    return str(path).endswith(ENDINGS) or Path(path).is_file()


def load_pickled(path: str | Path, allow_pickle: bool) -> Any:
    """The object in a file; runs code of the file's choosing, hence ``allow_pickle``.

    Raises ModelError for a file that is not there, not allowed, unreadable or not a classifier.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no file {path}: check the path")
    if not str(path).endswith(ENDINGS):
        raise ModelError(
            f"{path} is neither a model folder nor a pickle ({', '.join(ENDINGS)}): check the path"
        )
    if not allow_pickle:
        raise ModelError(
            f"{path} is a pickle, and pickles run code: set allow_pickle: true next to this path "
            "(distill evaluate: --allow-pickle) if you trust where it comes from"
        )
    try:
        if path.suffix == ".joblib":
            import joblib

            model = joblib.load(path)
        else:
            with path.open("rb") as file:
                model = pickle.load(file)
    except Exception as error:  # unpickling fails in every way there is
        text = f"{type(error).__name__}: {error}"
        raise ModelError(
            f"{path} cannot be unpickled ({text}): use the library versions that wrote it, or "
            "write it again"
        ) from None
    label_names(model, str(path))  # refuses what has no predict_proba
    return model


def label_names(model: Any, subject: str) -> tuple[str, ...]:
    """Names of the columns of ``predict_proba``, as labels in data files are read.

    Integers in decimal, booleans as 0 and 1: see distill/data/strings.py. ModelError without.
    """
    if not callable(getattr(model, "predict_proba", None)):
        raise ModelError(
            f"{subject} is a {type(model).__name__} without predict_proba: give a fitted "
            "classifier (of an SVC: probability=True, or CalibratedClassifierCV)"
        )
    classes = getattr(model, "classes_", None)
    if classes is None:
        raise ModelError(
            f"{subject} is a {type(model).__name__} without classes_: fit it first, or set "
            "classes_ to the label names in the order of predict_proba's columns"
        )
    return tuple(as_label(value) for value in np.asarray(classes).tolist())


def check_columns(model: Any, subject: str, columns: tuple[str, ...], num_features: int) -> None:
    """Raise ModelError where the object was fitted on other features than these."""
    num_fitted = getattr(model, "n_features_in_", None)
    if num_fitted is not None and num_fitted != num_features:
        raise ModelError(
            f"{subject} was fitted on {num_fitted} features, data.columns.features gives "
            f"{num_features}: fit it on the same columns"
        )
    names = getattr(model, "feature_names_in_", None)
    if names is not None and len(columns) > 1 and tuple(names) != columns:
        raise ModelError(
            f"{subject} was fitted on the columns {list(names)}, data.columns.features is "
            f"{list(columns)}: give the columns in the order of the fit"
        )


def file_fingerprint(path: str | Path) -> str:
    """sha256 of the pickle's bytes.

    Other versions of Python or of the library write other bytes for the same model: its answers
    are then requested again.
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
