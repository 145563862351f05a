"""Prompts into text, several at once: by one model alone, or drafts that another one verifies.

Shape suffixes: b sequences still being written, N some of the prompts, G drafts of a round, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from distill.config.sampling import Decoding
from distill.sampling.draw import STUDENT, draw, uniforms
from distill.sampling.key_values import KeyValueCache
from distill.sampling.records import Round


@dataclass(frozen=True)
class Drafted:
    """A round sent for verification."""

    past: tuple[Round, ...]
    rows_b: np.ndarray  # int64: which prompts
    places_b: np.ndarray  # int64: tokens written of each so far
    last_b: np.ndarray  # int64
    drafts_bG: np.ndarray  # int64

    def of(self, mine_N: np.ndarray) -> Drafted:
        """What of it is about these prompts, ascending, counted among them."""
        past = [one.of(mine_N) for one in self.past]
        is_mine_b = np.isin(self.rows_b, mine_N)
        return Drafted(
            tuple(one for one in past if len(one.rows_b)),
            np.searchsorted(mine_N, self.rows_b[is_mine_b]),
            self.places_b[is_mine_b],
            self.last_b[is_mine_b],
            self.drafts_bG[is_mine_b],
        )


Verifier = Callable[[Drafted], tuple[np.ndarray, np.ndarray]]
"""(drafts in front of the first that does not pass [b], the token in its place or -1 [b])."""


@dataclass
class GeneratedBatch:
    """What has been written, and how."""

    texts: list[list[int]]  # with their end tokens
    has_ended: list[bool]  # False: cut at its limit
    num_tested: int = 0  # drafts up to the first that did not pass, with it
    num_passed: int = 0
    num_calls: int = 0  # of a judge, each sequence of a round once
    rounds: list[Round] = field(default_factory=list)


def write(
    model: Any,
    num_tokens: int,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    ends: Sequence[int],
    seeds_B: np.ndarray,
    decoding: Decoding,
    num_drafts: int = 1,
    verify: Verifier | None = None,
    is_any_rank_generating: Callable[[bool], bool] = bool,
    waited: Callable[[Callable[[], Any]], Any] = lambda call: call(),
) -> GeneratedBatch:
    """Continue every prompt until a token of ``ends`` or its limit; the model is left as it was.

    Without a verifier every draft is kept. ``is_any_rank_generating``: over all ranks, whether one
    still is; the others run the forward too, because a sharded model's ranks run it together.
    ``waited`` is called once in every round, on every rank, with the verification of its drafts (or
    with nothing to do), and returns its result.
    """
    was_training = model.training
    model.eval()
    try:
        memory = KeyValueCache(model, num_tokens, prompts)
        found = GeneratedBatch([[] for _ in prompts], [False] * len(prompts))
        rows_b = np.arange(len(prompts))
        last_b = np.array([prompt[-1] for prompt in prompts])
        while is_any_rank_generating(len(rows_b) > 0):
            if len(rows_b) == 0:
                _read_in_vain(memory, num_drafts)
                waited(lambda: None)
                continue
            places_b = np.array([len(found.texts[row]) for row in rows_b])
            drafts_bG = _draft(memory, last_b, num_drafts, decoding, seeds_B[rows_b], places_b)
            num_kept_b = np.full(len(rows_b), num_drafts)
            replacement_b = np.full(len(rows_b), -1)
            if verify is not None:
                drafted = Drafted(tuple(found.rounds), rows_b, places_b, last_b, drafts_bG)
                num_kept_b, replacement_b = waited(partial(verify, drafted))
                found.num_calls += len(rows_b)
            else:
                waited(lambda: None)
            rows_b, last_b = _take(
                found, memory, rows_b, last_b, drafts_bG, num_kept_b, replacement_b, limits, ends
            )
        return found
    finally:
        model.train(was_training)


def _draft(
    memory: KeyValueCache,
    last_b: np.ndarray,
    num_drafts: int,
    decoding: Decoding,
    seeds_b: np.ndarray,
    places_b: np.ndarray,
) -> np.ndarray:
    token_b, drafts = torch.from_numpy(last_b), []
    for ahead in range(num_drafts):
        logits_bV = memory.read(token_b[:, None])[:, 0]
        token_b = draw(logits_bV, decoding, uniforms(seeds_b, places_b + ahead, STUDENT))
        drafts.append(token_b.cpu().numpy())
    return np.stack(drafts, axis=1)


def _take(
    found: GeneratedBatch,
    memory: KeyValueCache,
    rows_b: np.ndarray,
    last_b: np.ndarray,
    drafts_bG: np.ndarray,
    num_kept_b: np.ndarray,
    replacement_b: np.ndarray,
    limits: Sequence[int],
    ends: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Write down what stays of a round; returns who goes on, and their last tokens."""
    going, lasts = [], []
    for place, row in enumerate(rows_b.tolist()):
        num_kept = int(num_kept_b[place])
        new = drafts_bG[place, :num_kept].tolist()
        if replacement_b[place] >= 0:
            new.append(int(replacement_b[place]))
        end = next((i + 1 for i, token in enumerate(new) if token in ends), None)
        text = found.texts[row]
        room = limits[row] - len(text)
        text += new[: min(room, end or room)]
        found.has_ended[row] = end is not None and end <= room
        num_tested = len(new) if end is None else end
        found.num_tested += min(num_tested, room)
        found.num_passed += min(num_kept, num_tested, room)
        if end is None and room > len(new):
            going.append(place)
            lasts.append(new[-1])
    # Of what was read, the last token and the drafts that passed stay; the last draft was not read.
    num_read = drafts_bG.shape[1]
    kept_b = np.minimum(num_kept_b + 1, num_read)
    read_bG = np.concatenate([last_b[:, None], drafts_bG[:, :-1]], axis=1)
    found.rounds.append(Round(rows_b, read_bG, kept_b))
    memory.keep(torch.from_numpy(kept_b))
    if going and len(going) < len(rows_b):
        memory.select(torch.tensor(going))
    return rows_b[going], np.array(lasts, np.int64)


def _read_in_vain(memory: KeyValueCache, num_drafts: int) -> None:
    num_rows = memory.num_rows
    for _ in range(num_drafts):
        memory.read(torch.zeros(num_rows, 1, dtype=torch.int64))
    memory.keep(torch.zeros(num_rows, dtype=torch.int64))
