"""Rows of a data file as classifiers are shown them, and as attacks change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill.data.corpus import Corpus


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled row."""

    row: int
    label: int
    domain: int  # -1 where there is none
    text: str = ""
    pair: str | None = None
    features_D: np.ndarray | None = None  # float32, raw: instead of text

    def with_text(self, text: str) -> Sample:
        """The same row with another (first) text."""
        return replace(self, text=text)

    def with_texts(self, text: str, pair: str) -> Sample:
        return replace(self, text=text, pair=pair)

    def with_features(self, features_D: np.ndarray) -> Sample:
        return replace(self, features_D=features_D)


def read_samples(corpus: Corpus, rows: Sequence[int] | np.ndarray | range) -> list[Sample]:
    labels, domains = corpus.labels_of(rows), corpus.domains_of(rows)
    ids = np.asarray(rows, np.int64)
    described = list(zip(ids.tolist(), labels.tolist(), domains.tolist(), strict=True))
    if corpus.features is not None:
        features_RD = corpus.features_of(rows)
        pairs = zip(described, features_RD, strict=True)
        return [Sample(*row, features_D=features_D) for row, features_D in pairs]
    texts = corpus.texts_of(rows)
    return [Sample(*row, *text) for row, text in zip(described, texts, strict=True)]
