"""How far a model's confidence is from its accuracy.

Shape suffixes: R rows, C classes, M bins of equal width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_BINS = 10


@dataclass(frozen=True, eq=False)
class Calibration:
    """Rows by their confidence max p: bin m holds (m/M, (m+1)/M], the first one 0 too."""

    count_M: np.ndarray  # int64
    confidence_M: np.ndarray  # mean of the bin; 0 where it is empty
    accuracy_M: np.ndarray  # share of hits; 0 where it is empty

    @property
    def ece(self) -> float:
        """Σ_m (n_m / n) · |accuracy_m − confidence_m|. Guo et al. 2017 (arXiv 1706.04599)."""
        gaps_M = np.abs(self.accuracy_M - self.confidence_M)
        return float((self.count_M * gaps_M).sum() / self.count_M.sum())


def calibration(
    probs_RC: np.ndarray, labels_R: np.ndarray, num_bins: int = NUM_BINS
) -> Calibration:
    """Of probabilities over at least one labelled row."""
    assert len(probs_RC) == len(labels_R) > 0
    confidence_R = probs_RC.max(1)
    hits_R = probs_RC.argmax(1) == labels_R
    bins_R = bins_of(probs_RC, num_bins)
    count_M = np.bincount(bins_R, minlength=num_bins)
    filled_M = np.maximum(count_M, 1)
    return Calibration(
        count_M,
        np.bincount(bins_R, confidence_R, num_bins) / filled_M,
        np.bincount(bins_R, hits_R.astype(np.float64), num_bins) / filled_M,
    )


def bins_of(probs_RC: np.ndarray, num_bins: int) -> np.ndarray:
    """int64 [R]: the bin of each row's confidence."""
    places_R = np.ceil(probs_RC.max(1) * num_bins).astype(np.int64) - 1
    return np.clip(places_R, 0, num_bins - 1)
