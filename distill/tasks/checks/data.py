"""The plan's lines about data: where each split comes from, and what became of its rows."""

from __future__ import annotations

from distill.config import SPLITS
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.records import Line

COUNTED = {
    "stripped_names": "labels and domains with spaces around them, which are removed",
    "validation_in_train": "texts of validation that are also in train or transfer",
    "test_in_train": "texts of test that are also in train or transfer",
    "unlabelled_moved": "without a label: moved to transfer",
    "unlabelled_held": "without a label: dropped, since the text is also in validation or test",
    "unlabelled_dropped": "without a label: dropped",
    "validation_without_labels": "validation files without a label: left out",
    "test_without_labels": "test files without a label: left out",
    "split_unread": "column split exists but is not used: set data.columns.split to use it",
    "tools_unread": "column tools exists but is not used: set data.columns.tools to use it",
    "held_out_pooled": "files named validation or test, but pooled: no file is named train",
}
"""What a count of ``Corpus.counts`` is about."""


def counts_of(data: Rows) -> str:
    """Rows of each split; transfer only if it has any."""
    counts = {split: len(data.rows(split)) for split in SPLITS}
    return ", ".join(f"{k} {n:,}" for k, n in counts.items() if n or k != "transfer")


def source_lines(corpus: Corpus) -> list[Line]:
    """A line for each split that has rows, and one for each count that is not 0."""
    lines = []
    for split in SPLITS:
        sources, num_rows = corpus.sources[split], len(corpus.rows(split))
        if num_rows:
            more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
            lines.append(Line(split, f"from {sources[0]}{more}", f"{num_rows:,} rows"))
    for name, count in corpus.counts.items():
        lines.append(Line("rows", COUNTED[name], f"{count:,}"))
    return lines
