"""Rows as a student reads them, and what their previews share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill.data.corpus import Corpus
from distill.records import UNLABELLED


@dataclass(frozen=True)
class PreviewRow:
    """What the student reads at once: a row, or of a language model a sequence of one."""

    split: str
    row: int
    """Of the split, from 1."""
    text: str
    """Of a classifier the row's text (of a pair both, a newline between) or its numbers; of a
    language model what the sequence's tokens stand for, special ones included."""
    tokens: list[str]
    """Decoded, each by itself: see :class:`distill.data.pieces.Pieces`. Of features: values."""
    learned: list[bool]
    """Whether each token is trained on (is in the loss mask). A classifier is trained on the label:
    none is."""
    label: str | None
    domain: str | None
    notes: tuple[str, ...] = ()
    """For people: which sequence it is, whether it is truncated."""

    def as_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "text": self.text,
            "tokens": self.tokens,
            "learned": self.learned,
            "label": self.label,
            "domain": self.domain,
        }


@dataclass(frozen=True)
class Preview:
    shown: list[PreviewRow]
    num_masked: int = 0
    """Rows of a language model before the last one shown that have no token to train on: they are
    dropped."""


def places_of(corpus: Corpus, rows: range) -> list[tuple[str | None, str | None]]:
    """Label and domain of each row."""
    labels, domains = corpus.labels_of(rows).tolist(), corpus.domains_of(rows).tolist()
    return [
        (
            None if label == UNLABELLED or not corpus.label_names else corpus.label_names[label],
            None if domain < 0 else corpus.domain_names[domain],
        )
        for label, domain in zip(labels, domains, strict=True)
    ]


def truncation_notes(is_truncated: bool, max_length: int, cut: str) -> tuple[str, ...]:
    """For people."""
    return (f"truncated to {max_length} tokens (data.cut {cut})",) if is_truncated else ()
