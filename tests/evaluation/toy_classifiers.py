"""Classifiers whose outputs are known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from distill.evaluation.samples import Sample


class Words:
    """Logit of class 1: the sum of the weights of the words in a text; keeps its texts."""

    name = "words"
    label_names = ("safe", "vulnerable")

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = weights
        self.asked: list[str] = []
        self.num_calls = 0

    def logits(self, samples: Sequence[Sample]) -> np.ndarray:
        self.asked += [sample.text for sample in samples]
        self.num_calls += 1
        scores = [
            sum(self.weights.get(word, 0.0) for word in re.findall(r"\w+", sample.text))
            for sample in samples
        ]
        return np.array([[0.0, score] for score in scores], np.float32)


class Constant:
    """Always the same class."""

    name = "constant"
    label_names = ("safe", "vulnerable")

    def logits(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.tile(np.array([[0.0, 4.0]], np.float32), (len(samples), 1))


class Silent:
    """A listener that says nothing."""

    def say(self, message: str) -> None: ...
    def update(self, label: str, done: float | None = None, total: float | None = None) -> None: ...
