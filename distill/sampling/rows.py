"""Rows as they have been written.

Shape suffixes: B rows, N some of them, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from distill.data.block_file import PaddedBlocks, positions
from distill.records import Batch


class SampledRow(NamedTuple):
    prompt: list[int]
    text: list[int]  # what follows it, with its end token

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.text)


def padded(rows: Sequence[SampledRow], pad_id: int) -> PaddedBlocks:
    """On the right; the padding counts as one more sequence, as in packed blocks."""
    shape = (len(rows), max(row.num_tokens for row in rows))
    ids_BT = np.full(shape, pad_id, np.int64)
    positions_BT = np.empty(shape, np.int64)
    targets_BT = np.zeros(shape, bool)
    for b, row in enumerate(rows):
        ids_BT[b, : row.num_tokens] = [*row.prompt, *row.text]
        positions_BT[b] = positions([row.num_tokens, shape[1] - row.num_tokens])
        targets_BT[b, len(row.prompt) - 1 : row.num_tokens - 1] = True
    return PaddedBlocks(ids_BT, positions_BT, targets_BT)


def rows_of(batch: Batch) -> dict[int, SampledRow]:
    """A data set's rows that are not packed: the tokens trained on come last, after their prompt.

    Of a chat that is the assistant's last message that is trained on, in each of its sequences.
    """
    assert batch.input_ids_BT is not None and batch.targets_BT is not None
    found = {}
    for b in np.flatnonzero(batch.valid_B.numpy()).tolist():
        targets_T = batch.targets_BT[b].numpy()
        in_loss = np.flatnonzero(targets_T)
        last = int(in_loss[-1])
        before = np.flatnonzero(~targets_T[:last])
        first = int(before[-1]) + 1 if len(before) else 0
        ids = batch.input_ids_BT[b].tolist()
        found[int(batch.rows_B[b])] = SampledRow(ids[: first + 1], ids[first + 1 : last + 2])
    return found


def as_batch(batch: Batch, rows: Mapping[int, SampledRow], pad_id: int) -> Batch:
    """The batch with its valid rows as written; counts are still those of the data set's rows."""
    if not batch.valid_B.any():
        return batch
    block = padded([rows[int(row)] for row in batch.rows_B], pad_id)
    return Batch(
        rows_B=batch.rows_B,
        labels_B=batch.labels_B,
        domains_B=batch.domains_B,
        valid_B=batch.valid_B,
        num_valid=batch.num_valid,
        num_labelled=batch.num_labelled,
        num_sequences=batch.num_sequences,
        input_ids_BT=torch.from_numpy(block.input_ids_BT),
        position_ids_BT=torch.from_numpy(block.position_ids_BT),
        targets_BT=torch.from_numpy(block.targets_BT),
    )


def shown(batch: Batch, rows_N: np.ndarray) -> PaddedBlocks:
    """Some valid rows of a batch that :func:`as_batch` made, as teachers are shown them: without
    the padding that none of these rows needs."""
    assert batch.input_ids_BT is not None and batch.position_ids_BT is not None
    assert batch.targets_BT is not None
    places = {row: b for b, row in enumerate(batch.rows_B.tolist())}
    places_N = [places[row] for row in rows_N.tolist()]
    targets_NT = batch.targets_BT.numpy()[places_N]
    num_tokens = int(np.flatnonzero(targets_NT.any(0))[-1]) + 2  # the last token has no target
    return PaddedBlocks(
        batch.input_ids_BT.numpy()[places_N, :num_tokens],
        batch.position_ids_BT.numpy()[places_N, :num_tokens],
        targets_NT[:, :num_tokens],
    )
