"""Texts to token ids, cut to a length by a stated rule, and padded: wherever a model reads text.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distill.config import Cut


class PaddedTokens(NamedTuple):
    """Rows padded on the right to the longest of them."""

    input_ids_BT: np.ndarray  # int64
    attention_mask_BT: np.ndarray  # int64, 0 on padding
    token_type_ids_BT: np.ndarray | None  # int64, 0 and 1; None for single texts


class Encoded(NamedTuple):
    """Token ids of each row, special ones included, none longer than the limit."""

    ids: list[list[int]]
    types: list[list[int]] | None
    """0 for the first text and 1 for the second; None for single texts, and for models that are
    not distinguished them in this way."""
    num_truncated: int
    """Rows that lost tokens."""


def encode(
    tokenizer: Any,
    texts: Sequence[tuple[str, str | None]],
    max_length: int,
    cut: Cut = "head",
) -> Encoded:
    """Every row as at most ``max_length`` tokens, special ones included, truncated by ``data.cut``.

    ``tokenizer``: as ``distill.data.tokens.load_tokenizer`` gives it. ``texts``: all pairs, or all
    with None. Special tokens are never cut; those written out in a text are its own tokens.
    """
    is_pair = bool(texts) and texts[0][1] is not None
    first, second = [text for text, _ in texts], [pair for _, pair in texts]
    found = tokenizer(
        first, second if is_pair else None, truncation=False, padding=False, verbose=False
    )
    ids: list[list[int]] = found["input_ids"]
    has_types = is_pair and "token_type_ids" in tokenizer.model_input_names
    types: list[list[int]] | None = found["token_type_ids"] if has_types else None
    num_truncated = 0
    for row, row_ids in enumerate(ids):
        if len(row_ids) <= max_length:
            continue
        num_truncated += 1
        places = _kept(found.encodings[row].sequence_ids, max_length, cut)
        ids[row] = [row_ids[place] for place in places]
        if types is not None:
            types[row] = [types[row][place] for place in places]
    return Encoded(ids, types, num_truncated)


def padded(
    ids: Sequence[Sequence[int] | np.ndarray],
    types: Sequence[Sequence[int] | np.ndarray] | None,
    pad_id: int,
) -> PaddedTokens:
    """Rows of any lengths as one block."""
    lengths_B = np.array([len(row) for row in ids], np.int64)
    longest = int(lengths_B.max(initial=0))
    mask_BT = np.arange(longest) < lengths_B[:, None]
    ids_BT = np.full(mask_BT.shape, pad_id, np.int64)
    types_BT = None if types is None else np.zeros_like(ids_BT)
    for row, row_ids in enumerate(ids):
        ids_BT[row, : len(row_ids)] = row_ids
        if types is not None and types_BT is not None:
            types_BT[row, : len(row_ids)] = types[row]
    return PaddedTokens(ids_BT, mask_BT.astype(np.int64), types_BT)


def _kept(sequences: Sequence[int | None], max_length: int, cut: Cut) -> list[int]:
    """Places that stay, in order; ``sequences``: which text a token is of, None for special ones.

    [ours] for ``middle``; ``head`` and ``tail`` are transformers' truncation ``longest_first`` on
    the right and on the left.
    """
    own = [[p for p, s in enumerate(sequences) if s == text] for text in (0, 1)]
    special = [place for place, s in enumerate(sequences) if s is None]
    sizes = _shared(len(own[0]), len(own[1]), max_length - len(special))
    kept = special
    for places, size in zip(own, sizes, strict=True):
        ending = {"head": 0, "tail": size, "middle": size // 2}[cut]
        kept = kept + places[: size - ending] + places[len(places) - ending :]
    return sorted(kept)


def _shared(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that two texts keep: the longer gives first, then both; an odd token is the longer's.

    (Of two equally long ones, the second's.)
    """
    assert 0 <= room < first + second
    short, long = min(first, second), max(first, second)
    short = min(short, max(room // 2, room - long))
    return (room - short, short) if first > second else (short, room - short)
