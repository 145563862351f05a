"""Messages between a student that generates and the teacher that verifies or generates for it.

Shape suffixes: b sequences still being written, N some of the prompts, G tokens read in a round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distill.config.sampling import Decoding
from distill.errors import TeacherAnswerError
from distill.records import RequestFor


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
class VerifiedDrafts:
    request_id: str
    num_kept_b: np.ndarray  # int64: drafts in front of the first that does not pass
    replacement_b: np.ndarray  # int64: the teacher's token there; -1 where all passed
    num_replayed: int = 0  # rounds that were read again
    compute_s: float = 0.0


@dataclass(frozen=True)
class DraftRequest(RequestFor[VerifiedDrafts]):
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

    @property
    def label(self) -> str:
        return f"drafts {self.request_id}"

    def check(self, answer: VerifiedDrafts, width: int) -> None:
        """Raise unless it belongs to these drafts and is possible."""
        label = f"the verification of drafts {self.request_id}"
        if answer.request_id != self.request_id:
            raise TeacherAnswerError(f"{label} belongs to {answer.request_id}")
        num_rows, num_drafts = self.drafts_bG.shape
        kept_b, replacement_b = answer.num_kept_b, answer.replacement_b
        if kept_b.shape != (num_rows,) or replacement_b.shape != (num_rows,):
            raise TeacherAnswerError(f"{label} is about {len(kept_b)} sequences, not {num_rows}")
        passed_b = kept_b == num_drafts
        is_sound = (
            ((kept_b >= 0) & (kept_b <= num_drafts)).all()
            and (replacement_b[passed_b] == -1).all()
            and ((replacement_b >= 0) & (replacement_b < width))[~passed_b].all()
        )
        if not is_sound:
            raise TeacherAnswerError(f"{label} keeps {kept_b} and replaces by {replacement_b}")


@dataclass(frozen=True)
class GeneratedText:
    request_id: str
    texts: tuple[np.ndarray, ...]  # int64, with their end tokens
    compute_s: float = 0.0


@dataclass(frozen=True)
class GenerationRequest(RequestFor[GeneratedText]):
    """Prompts for a teacher to continue. Idempotent."""

    request_id: str
    prompts: tuple[np.ndarray, ...]  # int64
    limits: tuple[int, ...]  # tokens of each
    ends: tuple[int, ...]
    seeds_B: np.ndarray  # uint64
    decoding: Decoding

    @property
    def label(self) -> str:
        return f"prompts {self.request_id}"

    def check(self, answer: GeneratedText, width: int) -> None:
        """Raise unless it continues these prompts."""
        if answer.request_id != self.request_id or len(answer.texts) != len(self.prompts):
            raise TeacherAnswerError(f"the text of {self.request_id} belongs to another prompt")
