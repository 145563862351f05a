"""Whether the rows of a data set hold some tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from distill.data.block_file import BLOCK_ROWS
from distill.data.blocks import Blocks
from distill.models.tokenizer import load_fast_tokenizer


def emitted_id(blocks: Blocks, ids: Collection[int]) -> int | None:
    """One of these ids that is in a block of any split; None if none is."""
    requested = np.array(sorted(ids), np.int64)
    for block_ids, _ in _sequences(blocks):
        if len(found := np.intersect1d(block_ids, requested)):
            return int(found[0])
    return None


def emitted_text(blocks: Blocks, texts: Collection[str]) -> str | None:
    """One of these texts that is in a sequence of any split, however tokenised; None if none is."""
    tokenizer: Any = load_fast_tokenizer(blocks.tokenizer_folder)
    for block_ids, cuts in _sequences(blocks):
        for ids in np.split(block_ids, cuts):
            decoded = tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)
            for text in texts:
                if text in decoded:
                    return text
    return None


def _sequences(blocks: Blocks) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each block its ids, and where its sequences begin, the first aside."""
    for first in range(0, blocks.num_rows, BLOCK_ROWS):
        rows = range(first, min(first + BLOCK_ROWS, blocks.num_rows))
        columns = (blocks.column(name, rows) for name in ("input_ids", "sizes"))
        for ids, sizes in zip(*columns, strict=True):
            yield ids, np.cumsum(sizes)[:-1]
