"""How a model is shown a row: as tokens, as features, or as the text itself.

Shape suffixes: B rows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from distill.config import Cut
from distill.data.corpus import Corpus
from distill.data.tokens import tokenise

Rows = Sequence[int] | np.ndarray | range


class Inputs(Protocol):
    """Rows of a corpus as one kind of model takes them."""

    @property
    def corpus(self) -> Corpus: ...
    @property
    def num_truncated(self) -> int:
        """Rows that lost tokens."""
        ...

    def lengths(self, rows: Any) -> np.ndarray:
        """int64[n]: what a row costs; rows of like length share a batch."""
        ...

    def padded(self, rows: Any) -> Any:
        """A block of rows with the fields of records.INPUTS that it has."""
        ...


class FeatureBlock(NamedTuple):
    features_BD: np.ndarray  # float32, raw: models standardise them


class Features:
    """Every row has the length 1, so that batches are those of the plain permutation."""

    num_truncated = 0

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def lengths(self, rows: Rows) -> np.ndarray:
        return np.ones(len(rows), np.int64)

    def padded(self, rows: Rows) -> FeatureBlock:
        return FeatureBlock(self.corpus.features_of(rows))


class TextBlock(NamedTuple):
    texts_B: np.ndarray  # objects: str


class Texts:
    """For teachers that read text themselves (a scikit-learn pipeline): one string a row.

    Of a pair task it is both texts with a newline between them: most such objects take strings.
    """

    num_truncated = 0

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def lengths(self, rows: Rows) -> np.ndarray:
        return np.ones(len(rows), np.int64)

    def padded(self, rows: Rows) -> TextBlock:
        texts_B = np.empty(len(rows), object)
        found = self.corpus.texts_of(rows)
        texts_B[:] = [text if pair is None else f"{text}\n{pair}" for text, pair in found]
        return TextBlock(texts_B)


def open_inputs(corpus: Corpus, model: str | Path, max_length: int, cut: Cut = "head") -> Inputs:
    """The rows as the model in a folder or file takes them.

    ``model``: the folder of a tokenizer, or the file of a predict_proba teacher, which reads whole
    texts. A corpus of features needs neither it nor ``max_length`` nor ``cut``.
    """
    if corpus.features is not None:
        return Features(corpus)
    if Path(model).is_file():
        return Texts(corpus)
    return tokenise(corpus, model, max_length, cut)
