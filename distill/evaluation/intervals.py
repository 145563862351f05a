"""Confidence intervals of measures on a sample of rows: the bootstrap.

Shape suffixes: R rows, C classes, M bins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from distill.evaluation.calibration import bins_of
from distill.evaluation.quality import Confusion

MEASURES = ("accuracy", "f1", "ece")


class Interval(NamedTuple):
    low: float
    high: float


def bootstrap(
    probs_RC: np.ndarray,
    labels_R: np.ndarray,
    num_bins: int,
    num_draws: int,
    level: float,
    seed: int,
) -> dict[str, Interval]:
    """The percentile interval of each of :data:`MEASURES` over ``num_draws`` resamples of the rows.

    Efron 1979. It is how much the measure would differ on another sample of as many rows, not how
    much it would after another training (other seeds). That of the ECE is of the resampled rows,
    which are less calibrated than the sample: a small ECE may lie below its own interval.
    """
    num, num_classes = probs_RC.shape
    predicted_R = probs_RC.argmax(1)
    cells_R = labels_R * num_classes + predicted_R
    bins_R = bins_of(probs_RC, num_bins)
    # A bin's gap is the sum of hit − confidence over its rows.
    gaps_R = (predicted_R == labels_R) - probs_RC.max(1)
    rng = np.random.default_rng(seed)
    drawn = np.empty((len(MEASURES), num_draws))
    for draw in range(num_draws):
        rows = rng.integers(0, num, num)
        counts = np.bincount(cells_R[rows], minlength=num_classes**2)
        confusion = Confusion(torch.from_numpy(counts.reshape(num_classes, num_classes)))
        gaps_M = np.bincount(bins_R[rows], gaps_R[rows], num_bins)
        drawn[:, draw] = confusion.accuracy, confusion.f1, np.abs(gaps_M).sum() / num
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=1)
    return {n: Interval(float(low[i]), float(high[i])) for i, n in enumerate(MEASURES)}
