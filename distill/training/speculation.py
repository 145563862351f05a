"""The student's side of verification: where each round of drafts is sent, and what may come back.

Shape suffixes: B prompts of a step, N those of one verifier, b unfinished sequences, G drafts of a
round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from distill.config.sampling import Speculative
from distill.sampling.draw import TEACHER, uniforms
from distill.sampling.generation import Drafted, Verifier
from distill.sampling.records import DraftRequest
from distill.teachers.client import TeacherClient

Result = TypeVar("Result")


@dataclass(frozen=True)
class TeacherVerifier:
    """Sends each round of one step's drafts to a teacher for verification."""

    client: TeacherClient
    computed: Callable[[str, float], None]
    """Hears of the teacher's seconds."""
    teacher: str
    writer: str
    step: int
    prompts: tuple[np.ndarray, ...]
    seeds_N: np.ndarray  # uint64, of each prompt
    sampling: Speculative
    top_k: int
    num_tokens: int
    """Of the vocabulary that student and teacher share."""

    def __call__(self, drafted: Drafted) -> tuple[np.ndarray, np.ndarray]:
        request = DraftRequest(
            f"{self.writer}/{self.step}/{len(drafted.past)}",
            self.writer,
            self.step,
            self.prompts,
            drafted.past,
            drafted.rows_b,
            drafted.last_b,
            drafted.drafts_bG,
            uniforms(self.seeds_N[drafted.rows_b], drafted.places_b, TEACHER),
            self.top_k,
            self.sampling.nucleus,
            self.sampling.teacher_decoding,
        )
        verified = self.client.call(self.teacher, request)
        request.check(verified, self.num_tokens)
        self.computed(self.teacher, verified.compute_s)
        return verified.num_kept_b, verified.replacement_b


def verify_each(verifiers: Sequence[tuple[np.ndarray, Verifier]]) -> Verifier:
    """Several as one: each prompt goes to the one that has its place in its [N], ascending.

    Every one of them counts its prompts from 0, and all are asked at once.
    """
    if len(verifiers) == 1:
        return verifiers[0][1]

    def verify(drafted: Drafted) -> tuple[np.ndarray, np.ndarray]:
        num_kept_b, replacement_b = np.empty((2, len(drafted.rows_b)), np.int64)

        def verify_rows(mine_N: np.ndarray, own: Verifier) -> None:
            places = np.flatnonzero(np.isin(drafted.rows_b, mine_N))
            if len(places):
                num_kept_b[places], replacement_b[places] = own(drafted.of(mine_N))

        at_once([lambda one=one: verify_rows(*one) for one in verifiers])
        return num_kept_b, replacement_b

    return verify


def at_once(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """What each returns, in threads; raises what the first of those that fail does."""
    with ThreadPoolExecutor(max(1, len(calls)), "sampling") as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
