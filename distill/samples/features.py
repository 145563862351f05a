"""Small data sets of numbers that come with scikit-learn, and teachers of the digits.

    python -m distill.samples.features --out data/features

writes ``digits.parquet``, ``wine.parquet``, ``breast_cancer.parquet``, ``iris.parquet`` and
``diabetes.parquet`` (its target cut at the median of all rows): columns ``features`` (a list of
numbers), ``label`` and ``split``, stratified by label. ``teachers/`` holds a random forest, a
support vector machine and the nearest neighbours, fitted on the train split of the digits.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from distill.samples import command

SPLITS = {"train": 0.35, "transfer": 0.25, "validation": 0.15, "test": 0.25}
"""Transfer rows have the teachers' outputs alone: teachers are near one-hot on their own rows."""
DATASETS = ("digits", "wine", "breast_cancer", "iris", "diabetes")


def build(out: Path, seed: int = 0) -> str:
    """Write data and teachers into ``out``; returns the table that is printed."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"{'data set':<15}{'features':>9}{'classes':>9}" + "".join(f"{s:>12}" for s in SPLITS)]
    for name in DATASETS:
        features_RD, labels_R = load(name)
        split_R = stratified(labels_R, seed)
        columns = {"features": list(features_RD), "label": labels_R, "split": split_R}
        parquet.write_table(pa.table(columns), out / f"{name}.parquet")
        counts = "".join(f"{int((split_R == split).sum()):>12}" for split in SPLITS)
        num_classes = len(np.unique(labels_R))
        lines.append(f"{name:<15}{features_RD.shape[1]:>9}{num_classes:>9}{counts}")
        if name == "digits":
            in_train_R = split_R == "train"
            _fit_teachers(features_RD[in_train_R], labels_R[in_train_R], out / "teachers", seed)
    return "\n".join(lines)


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features [R, D] (float64) and label names [R] of one of DATASETS."""
    from sklearn import datasets

    loader: Callable[[], Any] = getattr(datasets, f"load_{name}")
    found = loader()
    if name == "diabetes":  # a regression: is the disease further than the median after a year?
        is_high_R = found.target > np.median(found.target)
        return found.data, np.where(is_high_R, "above", "below")
    names = np.array([str(n) for n in found.target_names])
    return found.data, names[found.target]


def stratified(labels_R: np.ndarray, seed: int) -> np.ndarray:
    """The split of every row: in each class the same shares, the rest of a division to test."""
    rng = np.random.default_rng(seed)
    split_R = np.empty(len(labels_R), object)
    for label in np.unique(labels_R):
        rows = rng.permutation(np.flatnonzero(labels_R == label))
        edges = np.round(np.cumsum(list(SPLITS.values()))[:-1] * len(rows)).astype(int)
        for name, part in zip(SPLITS, np.split(rows, edges), strict=True):
            split_R[part] = name
    return split_R


def teachers(seed: int) -> dict[str, Any]:
    """Unfitted classifiers of different kinds, so that they err on different rows."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    # Any: the stubs know no numbers here.
    settings: dict[str, Any] = {"C": 10.0, "gamma": 0.01, "random_state": seed}
    calibration: dict[str, Any] = {"cv": 5, "ensemble": False}
    machine = make_pipeline(StandardScaler(), SVC(**settings))
    return {
        "forest": RandomForestClassifier(200, random_state=seed),
        "svm": CalibratedClassifierCV(machine, **calibration),
        "neighbours": KNeighborsClassifier(5, weights="distance"),
    }


def _fit_teachers(features_RD: np.ndarray, labels_R: np.ndarray, folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    for name, model in teachers(seed).items():
        # float32, as they will be asked.
        model.fit(features_RD.astype(np.float32), labels_R)
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(model))


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("features", __doc__)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args(arguments)
    out = parsed.out
    return command.run(lambda: build(out, parsed.seed), out / "*.parquet", out / "teachers")


if __name__ == "__main__":
    sys.exit(main())
