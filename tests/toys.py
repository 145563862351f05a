"""Tiny real models and data for tests: seconds, not minutes, and no download."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from distill.data.batches import Batches
from distill.data.tokens import PaddedTokens
from distill.loop import Step
from distill.records import UNLABELLED, TeacherAnswers

NUM_CLASSES = 3
VOCAB = 50


def tiny_bert(seed: int = 0, dropout: float = 0.0, hidden: int = 16) -> Any:
    """A two-layer BERT classifier of three classes."""
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=NUM_CLASSES,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(config)


class ToyTokens:
    """Rows of random tokens, 3 to 12 long; every fourth row has no label."""

    def __init__(self, num_rows: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._ids = [rng.integers(1, VOCAB, rng.integers(3, 13)) for _ in range(num_rows)]
        self._labels = rng.integers(0, NUM_CLASSES, num_rows)
        self._labels[::4] = UNLABELLED
        self.corpus = SimpleNamespace(
            labels_of=lambda rows: self._labels[np.asarray(rows)],
            domains_of=lambda rows: np.asarray(rows) % 2,
        )

    def lengths(self, rows: Any) -> np.ndarray:
        return np.array([len(self._ids[row]) for row in rows])

    def padded(self, rows: Any) -> PaddedTokens:
        longest = max(len(self._ids[row]) for row in rows)
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(self._ids[row])] = self._ids[row]
            mask[i, : len(self._ids[row])] = 1
        return PaddedTokens(ids, mask, None)


def toy_batches(
    num_rows: int = 50,
    batch_size: int = 12,
    rank: int = 0,
    world_size: int = 1,
    micro: int | None = None,
    shuffle: bool = True,
) -> Batches:
    """Steps of 12 rows of 50: the last step of an epoch has 2."""
    tokens: Any = ToyTokens(num_rows)
    return Batches(tokens, range(num_rows), batch_size, 0, rank, world_size, micro, shuffle)


class ToyTeachers:
    """A source of targets that computes two teachers in place, the second silent on odd rows."""

    def __init__(self, models: list[Any], everyone: bool = False) -> None:
        self._models = [model.eval() for model in models]
        self._everyone = everyone

    @torch.no_grad()
    def feed(self, batches: Any, start: int, stop: int) -> Any:
        for step in range(start, stop):
            parts = []
            for batch in batches.at(step):
                logits_KBV = torch.stack([m(**batch.inputs()).logits for m in self._models])
                asked_KB = torch.ones(logits_KBV.shape[:2], dtype=torch.bool)
                if not self._everyone:
                    asked_KB[1:] = torch.from_numpy(batch.rows_B % 2 == 0)
                logits_KBV = logits_KBV * asked_KB[..., None]
                parts.append((batch, TeacherAnswers(logits_KBV, asked_KB)))
            yield Step(step, parts)

    def timings(self) -> dict[str, float]:
        return {}

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
