"""Quality from confusion counts: counts add over batches and ranks, means do not.

Shape suffixes: B rows, C classes, D domains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def confusion_counts(
    true_B: Tensor, predicted_B: Tensor, domains_B: Tensor, num_classes: int, num_domains: int
) -> Tensor:
    """int64 counts_DCC of shape [num_domains + 1, C, C]: rows true, columns predicted.

    The last block counts rows without a domain (-1), so that the sum over blocks is over all rows.
    Rows without a label (negative) are not counted.
    """
    blocks_B = torch.where(domains_B < 0, num_domains, domains_B)
    cells_B = (blocks_B * num_classes + true_B) * num_classes + predicted_B
    counts = torch.bincount(
        cells_B[true_B >= 0], minlength=(num_domains + 1) * num_classes * num_classes
    )
    return counts.reshape(num_domains + 1, num_classes, num_classes)


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of (true class, predicted class) over at least one row.

    ``precision``, ``recall`` and ``f1`` are macro: unweighted means over the classes that occur in
    truth or prediction (those that do not would add an arbitrary 0 or 1). A class with nothing
    predicted has precision 0, one with nothing true has recall 0: scikit-learn's
    ``average="macro", zero_division=0``.
    """

    counts_CC: Tensor  # integers: rows true, columns predicted

    def __post_init__(self) -> None:
        assert self.num_rows > 0, "quality of no rows"

    @property
    def num_rows(self) -> int:
        return int(self.counts_CC.sum())

    @property
    def accuracy(self) -> float:
        return float(self.counts_CC.diagonal().sum()) / self.num_rows

    @property
    def precision(self) -> float:
        return self._macro(self.counts_CC.sum(0))

    @property
    def recall(self) -> float:
        return self._macro(self.counts_CC.sum(1))

    @property
    def f1(self) -> float:
        # 2·P·R / (P + R) = 2·hits / (true + predicted)
        return self._macro((self.counts_CC.sum(0) + self.counts_CC.sum(1)).double() / 2)

    def metrics(self) -> dict[str, float]:
        return {
            "accuracy": self.accuracy,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }

    def _macro(self, of_C: Tensor) -> float:
        """Mean over occurring classes of hits / ``of_C``, 0 where that is 0 / 0."""
        hits_C = self.counts_CC.diagonal().double()
        occurs_C = (self.counts_CC.sum(0) + self.counts_CC.sum(1)) > 0
        return float((hits_C / of_C.clamp(min=0.5))[occurs_C].mean())


def confusion(labels_R: np.ndarray, predicted_R: np.ndarray, num_classes: int) -> Confusion:
    """Counts over the rows, all labelled."""
    true_R, guess_R = torch.from_numpy(labels_R), torch.from_numpy(predicted_R)
    nowhere_R = torch.full_like(true_R, -1)
    return Confusion(confusion_counts(true_R, guess_R, nowhere_R, num_classes, 0)[0])
