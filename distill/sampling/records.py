"""Messages between a student that generates and the teacher that verifies or generates for it.

Shape suffixes: b sequences still being written, N some of the prompts, G tokens read in a round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distill.config.sampling import Decoding


@dataclass(frozen=True)
class Round:
    """A round of drafts that has been verified."""

    rows_b: np.ndarray  # int64: which of the step's prompts are being written on
    tokens_bG: np.ndarray  # int64: what the teacher read: the last token, and all drafts but one
    kept_b: np.ndarray  # int64: how many of tokens_bG stayed

    def of(self, mine_N: np.ndarray) -> Round:
        """What of it is about these prompts, ascending, counted among them."""
        is_mine_b = np.isin(self.rows_b, mine_N)
        rows_b = np.searchsorted(mine_N, self.rows_b[is_mine_b])
        return Round(rows_b, self.tokens_bG[is_mine_b], self.kept_b[is_mine_b])


@dataclass(frozen=True)
class DraftRequest:
    """Drafts to be verified, with all that a teacher without any state of them needs.

    Idempotent: a replica without the step's cache reads ``past`` again, in the same portions,
    and answers with the same bits.
    """

    request_id: str
    writer: str  # who has one step's drafts judged at a time
    step: int
    prompts: tuple[np.ndarray, ...]  # int64, of the whole step
    past: tuple[Round, ...]
    rows_b: np.ndarray  # int64
    last_b: np.ndarray  # int64: the last token of each
    drafts_bG: np.ndarray  # int64
    uniform_b: np.ndarray  # float64: for the teacher's own draw
    top_k: int
    nucleus: float | None
    decoding: Decoding  # of that draw

    @property
    def read_bG(self) -> np.ndarray:
        """The tokens the teacher reads to verify every draft: it need not read the last one."""
        return np.concatenate([self.last_b[:, None], self.drafts_bG[:, :-1]], axis=1)


@dataclass(frozen=True)
class Verdict:
    request_id: str
    num_kept_b: np.ndarray  # int64: drafts in front of the first that does not pass
    replacement_b: np.ndarray  # int64: the teacher's token there; -1 where all passed
    num_replayed: int = 0  # rounds that were read again
    compute_s: float = 0.0


@dataclass(frozen=True)
class WriteRequest:
    """Prompts for a teacher to continue. Idempotent."""

    request_id: str
    prompts: tuple[np.ndarray, ...]  # int64
    limits: tuple[int, ...]  # tokens of each
    ends: tuple[int, ...]
    seeds_B: np.ndarray  # uint64
    decoding: Decoding


@dataclass(frozen=True)
class WrittenText:
    request_id: str
    texts: tuple[np.ndarray, ...]  # int64, with their end tokens
    compute_s: float = 0.0
