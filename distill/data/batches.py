"""Padded micro-batches of one rank, cut from global batches that no rank count changes."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch

from distill.data.block_file import PaddedBlocks
from distill.data.blocks import Blocks
from distill.data.inputs import Inputs
from distill.data.sampler import Sampler
from distill.errors import DataError
from distill.records import UNLABELLED, Batch, fields_of


class _Counts(NamedTuple):
    """See the fields of Batch."""

    num_valid: int
    num_labelled: int
    num_sequences: int = 0


class Batches:
    """The batches of some rows of a corpus, by step; a pure function of its arguments.

    A step's global batch is cut into world_size · num_micro_batches parts of almost equal size
    (``np.array_split``), and rank r takes the r-th run of num_micro_batches parts. A part without
    rows (the short end of an epoch) becomes one filler row, not valid and without a label, so every
    rank always runs as many forwards. Counts in a Batch are those of the global batch.

    ``labels``, aligned with ``rows``, replace the corpus labels (the router: partitions).
    Of blocks the counts are those of target positions; a filler row has none.
    With ``shuffle=False`` rows come in order, in one short batch if there are few (evaluation).
    Raises DataError for no rows, or for shuffled batches larger than the rows.
    """

    def __init__(
        self,
        inputs: Inputs | Blocks,
        rows: range | np.ndarray,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batch_size: int | None = None,
        shuffle: bool = True,
        labels: np.ndarray | None = None,
    ) -> None:
        assert 0 <= rank < world_size
        self.num_rows = len(rows)
        if self.num_rows == 0:
            raise DataError(
                "there are no rows to make batches of: check data.splits and data.limit"
            )
        if shuffle and batch_size > self.num_rows:
            raise DataError(
                f"trainer.batch_size must be at most the {self.num_rows} rows trained on, got "
                f"{batch_size}: lower it or add rows"
            )
        per_rank = -(-batch_size // world_size)
        self.num_micro_batches = -(-per_rank // (micro_batch_size or per_rank))
        self._inputs = inputs
        self._rows = np.asarray(rows, np.int64)
        self._labels = inputs.corpus.labels_of(rows) if labels is None else labels.astype(np.int64)
        assert len(self._labels) == self.num_rows
        self._domains = inputs.corpus.domains_of(rows)
        self._sampler = Sampler(
            self.num_rows, batch_size, seed, lambda p: inputs.lengths(self._rows[p]), shuffle
        )
        self._num_parts = world_size * self.num_micro_batches
        self._first_part = rank * self.num_micro_batches

    @property
    def steps_per_epoch(self) -> int:
        return self._sampler.steps_per_epoch

    def at(self, step: int) -> list[Batch]:
        """This rank's num_micro_batches micro-batches of a step, counted over all epochs."""
        positions = self._sampler.positions(step)
        counts = self._counts(positions)
        parts = np.array_split(positions, self._num_parts)
        mine = parts[self._first_part : self._first_part + self.num_micro_batches]
        return [self._batch(part, positions[:1], counts) for part in mine]

    def _counts(self, positions: np.ndarray) -> _Counts:
        """A global batch's."""
        if isinstance(self._inputs, Blocks):
            targets = self._inputs.num_targets(self._rows[positions])
            num_targets = int(targets.sum())  # the next token is the label
            return _Counts(num_targets, num_targets, int((targets > 0).sum()))
        return _Counts(len(positions), int((self._labels[positions] != UNLABELLED).sum()))

    def _batch(self, part: np.ndarray, filler: np.ndarray, counts: _Counts) -> Batch:
        is_filler = len(part) == 0
        if is_filler:
            part = filler
        rows_B = self._rows[part]
        padded = self._inputs.padded(rows_B)
        shown = fields_of(padded)
        if isinstance(padded, PaddedBlocks):
            shown["targets_BT"] = padded.targets_BT & (not is_filler)
        labels_B = np.full(1, UNLABELLED) if is_filler else self._labels[part]
        return Batch(
            rows_B=rows_B,
            labels_B=torch.from_numpy(labels_B),
            domains_B=torch.from_numpy(self._domains[part]),
            valid_B=torch.full((len(part),), not is_filler),
            num_valid=counts.num_valid,
            num_labelled=counts.num_labelled,
            num_sequences=counts.num_sequences,
            **{name: torch.from_numpy(values) for name, values in shown.items()},
        )


class BatchSource(Protocol):
    """``at(step)`` gives this rank's micro-batches: a pure function, so any step can be resumed."""

    @property
    def steps_per_epoch(self) -> int: ...
    def at(self, step: int) -> list[Batch]: ...
