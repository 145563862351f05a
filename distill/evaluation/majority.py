"""The largest class: the accuracy of a model that has learned nothing.

Shape suffix: R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Majority(NamedTuple):
    """The most frequent label of the rows, and its share of them."""

    label: str
    share: float

    def note(self, accuracy: float) -> str:
        """``below the majority class (58.2 %)`` for a model that is no better than it; else ""."""
        if accuracy > self.share:
            return ""
        how = "below" if accuracy < self.share else "no better than"
        return f"{how} the majority class ({self.share * 100:.1f} %)"


def majority(labels_R: np.ndarray, names: Sequence[str]) -> Majority:
    """Of at least one labelled row; the first of two classes of one size."""
    counts = np.bincount(labels_R, minlength=len(names))
    first = int(counts.argmax())
    return Majority(names[first], float(counts[first] / len(labels_R)))
