"""Rows of a data file as classifiers read them, and as attacks change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill.data.corpus import Corpus


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """One labelled row."""

    row: int
    label: int
    domain: str = ""  # empty where there is none
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
    names = (*corpus.domain_names, "")  # the last one for index -1
    ids = np.asarray(rows, np.int64).tolist()
    labels = corpus.labels_of(rows).tolist()
    domains = [names[index] for index in corpus.domains_of(rows)]
    described = list(zip(ids, labels, domains, strict=True))
    if corpus.features is not None:
        pairs = zip(described, corpus.features_of(rows), strict=True)
        return [Sample(*row, features_D=features_D) for row, features_D in pairs]
    texts = corpus.texts_of(rows)
    return [Sample(*row, *text) for row, text in zip(described, texts, strict=True)]
