"""MoEKD step 1: which expert each row belongs to, by a column or by k-means on embeddings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from distill.config import KMeans, Partition
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.data.tokens import Tokens
from distill.errors import DataError
from distill.models.freeze import embed
from distill.models.load import load_base_for_classification
from distill.records import keywords_of

EMBED_BATCH = 64


@dataclass(frozen=True)
class Parts:
    """The partition's names, and the part of every row asked for (int64, never -1)."""

    names: tuple[str, ...]
    corpus: Rows
    assigned: dict[str, np.ndarray]  # split -> part of each of its rows

    def of(self, split: str) -> np.ndarray:
        return self.assigned[split]

    def rows(self, split: str, part: int) -> np.ndarray:
        """Row ids of ``split`` that belong to ``part``."""
        return np.asarray(self.corpus.rows(split))[self.assigned[split] == part]


def by_column(corpus: Rows, splits: tuple[str, ...]) -> Parts:
    """One part a domain. DataError where a training row has no domain."""
    assigned = {split: corpus.domains_of(corpus.rows(split)) for split in splits}
    for split, parts in assigned.items():
        missing = int((parts < 0).sum())
        if missing:
            raise DataError(
                f"data.columns.domain is empty in {missing} rows of the {split} split: fill it in, "
                "or use experts.partition.type 'kmeans'"
            )
    return Parts(corpus.domain_names, corpus, assigned)


def by_kmeans(
    tokens: Tokens, base: str, num_clusters: int, splits: tuple[str, ...], seed: int, folder: Path
) -> Parts:
    """k-means on mean-pooled embeddings of the train rows; other splits go to the nearest centre.

    The assignment is kept in ``folder/kmeans.npz``, so that a resumed run has the same parts.
    """
    from sklearn.cluster import KMeans as SklearnKMeans

    corpus = tokens.corpus
    kept = folder / "kmeans.npz"
    if kept.exists():
        with np.load(kept, allow_pickle=False) as arrays:
            assigned = {split: arrays[split] for split in splits}
    else:
        model = load_base_for_classification(base, ("-", "+"), seed)  # its head is not used
        features = {s: _embed(model, tokens, np.asarray(corpus.rows(s))) for s in splits}
        if len(features["train"]) < num_clusters:
            raise DataError(
                f"experts.partition.num_clusters is {num_clusters}, more than the "
                f"{len(features['train'])} training rows: lower it"
            )
        clusters: Any = SklearnKMeans(num_clusters, n_init="auto", random_state=seed)
        clusters.fit(features["train"])
        assigned = {s: clusters.predict(f).astype(np.int64) for s, f in features.items()}
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "kmeans.partial.npz"
        np.savez(partial, **assigned)  # type: ignore[arg-type]
        os.replace(partial, kept)
    return Parts(tuple(f"cluster-{c}" for c in range(num_clusters)), corpus, assigned)


@torch.inference_mode()
def _embed(model: PreTrainedModel, tokens: Tokens, rows: np.ndarray) -> np.ndarray:
    """float32 [rows, H]."""
    features = []
    for start in range(0, len(rows), EMBED_BATCH):
        shown = keywords_of(tokens.padded(rows[start : start + EMBED_BATCH]))
        inputs = {name: torch.from_numpy(values) for name, values in shown.items()}
        features.append(embed(model, inputs).float().numpy())
    return np.concatenate(features)


def partition(
    config: Partition, corpus: Corpus, tokens: Tokens, base: str, seed: int, folder: Path
) -> Parts:
    splits = ("train", "validation", "test")
    if isinstance(config, KMeans):
        return by_kmeans(tokens, base, config.num_clusters, splits, seed, folder)
    return by_column(corpus, splits)
