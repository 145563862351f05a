"""One split's labels, domains and batches in order.

Shape suffix: R all rows of the split.
"""

from __future__ import annotations

import numpy as np

from distill.data.batches import Batches
from distill.data.inputs import Inputs
from distill.data.rows import Rows
from distill.evaluation.majority import majority
from distill.evaluation.quality import Confusion, confusion
from distill.evaluation.rows import MAJORITY

BATCH = 64


class Split:
    def __init__(self, corpus: Rows, name: str) -> None:
        self.rows = corpus.rows(name)
        self.labels_R = corpus.labels_of(self.rows)
        self.domains_R = corpus.domains_of(self.rows)
        self.domain_names = corpus.domain_names
        self.num_classes = len(corpus.label_names)

    def batches(self, inputs: Inputs) -> Batches:
        return Batches(inputs, self.rows, BATCH, seed=0, shuffle=False)

    def accuracy(self, predicted_R: np.ndarray) -> float:
        return float((predicted_R == self.labels_R).mean())

    def confusion(self, predicted_R: np.ndarray) -> Confusion:
        return confusion(self.labels_R, predicted_R, self.num_classes)

    def per_domain(self, predicted_R: np.ndarray) -> dict[str, float]:
        """Accuracy in each domain that has rows."""
        hits_R = predicted_R == self.labels_R
        return {
            domain: float(hits_R[self.domains_R == d].mean())
            for d, domain in enumerate(self.domain_names)
            if (self.domains_R == d).any()
        }

    def majority_rate(self) -> float | None:
        """Share of the most frequent class: the accuracy of a model that always predicts it. None
        for a split without labelled rows."""
        labelled = self.labels_R[self.labels_R >= 0]
        return majority(labelled, [""] * self.num_classes).share if labelled.size else None


def majority_rates(rows: Rows) -> dict[str, float | None]:
    """What accuracy must exceed: the share of the most frequent class of test and validation."""
    rates = {name: Split(rows, name).majority_rate() for name in ("test", "validation")}
    return {MAJORITY: rates["test"], f"{MAJORITY}.validation": rates["validation"]}
