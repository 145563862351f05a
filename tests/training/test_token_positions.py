"""Which positions, labels and sequences a batch of packed texts has, by hand.

Shape suffixes: B rows, T tokens, N positions.
"""

from __future__ import annotations

import numpy as np
import torch

from distill.records import Batch
from distill.training.token_module import labels_at, real_tokens, sequences_at

# Sequences of 3 and 2 tokens and padding that restarts as one more; then one of 4 and no room.
POSITIONS_BT = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 0, 1]])
TARGETS_BT = torch.tensor([[1, 1, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0]]).bool()
IDS_BT = torch.tensor([[10, 11, 12, 13, 14, 0], [20, 21, 22, 23, 0, 0]])


def batch() -> Batch:
    return Batch(
        rows_B=np.arange(2),
        labels_B=torch.full((2,), -100),
        domains_B=torch.tensor([-1, -1]),
        valid_B=torch.ones(2, dtype=torch.bool),
        num_valid=5,
        num_labelled=0,
        input_ids_BT=IDS_BT,
        position_ids_BT=POSITIONS_BT,
        targets_BT=TARGETS_BT,
    )


def test_the_label_of_a_position_is_the_next_token_of_its_row() -> None:
    assert labels_at(batch()).tolist() == [11, 12, 14, 22, 23]


def test_sequences_differ_within_and_between_rows() -> None:
    sequences_N = sequences_at(batch())
    first, same, second, *others = sequences_N.tolist()
    assert first == same and len({first, second, others[0]}) == 3 and others[0] == others[1]
    assert sequences_N.tolist() == sorted(sequences_N.tolist())


def test_padding_is_the_sequence_without_a_position() -> None:
    """Tokens of a sequence whose loss is masked (a prompt) are real: only whole sequences are
    padding."""
    expected = [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]]
    assert real_tokens(batch()).int().tolist() == expected
