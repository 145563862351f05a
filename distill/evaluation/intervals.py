"""How sure a measure is that was taken on so many rows: the bootstrap.

Shape suffixes: R rows, C classes, D draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from distill.evaluation.calibration import calibration
from distill.evaluation.predict import confusion


class Interval(NamedTuple):
    low: float
    high: float


Measure = Callable[[np.ndarray, np.ndarray], float]
"""Of (probs_RC, labels_R)."""


def accuracy(probs_RC: np.ndarray, labels_R: np.ndarray) -> float:
    return float((probs_RC.argmax(1) == labels_R).mean())


def macro_f1(probs_RC: np.ndarray, labels_R: np.ndarray) -> float:
    return confusion(labels_R, probs_RC.argmax(1), probs_RC.shape[1]).f1


def ece(probs_RC: np.ndarray, labels_R: np.ndarray) -> float:
    return calibration(probs_RC, labels_R).ece


MEASURES: dict[str, Measure] = {"accuracy": accuracy, "f1": macro_f1, "ece": ece}


def bootstrap(
    probs_RC: np.ndarray, labels_R: np.ndarray, num_draws: int, level: float, seed: int
) -> dict[str, Interval]:
    """The percentile interval of each measure over ``num_draws`` resamples of the rows.

    Efron 1979. It says how much another sample of as many rows would differ, not how much another
    training would: seeds say that. ECE's is of the resampled rows, which are less calibrated than
    the sample: a small one may lie above the measure itself.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _ in range(num_draws):
        rows = rng.integers(0, len(labels_R), len(labels_R))
        for name, measure in MEASURES.items():
            drawn[name].append(measure(probs_RC[rows], labels_R[rows]))
    tail = (1 - level) / 2
    found = {name: np.quantile(values, [tail, 1 - tail]) for name, values in drawn.items()}
    return {name: Interval(float(low), float(high)) for name, (low, high) in found.items()}
