"""From each teacher's outputs for its rows to the outputs for a whole batch.

Shape suffixes: B rows of a part, N those that one teacher was queried for, P, Q their positions,
K teachers, V classes, X a position's payload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from distill.records import Answers, TeacherAnswers, TokenAnswers
from distill.teachers.served import ServedTeacher
from distill.wires import as_tensor


class Payload(NamedTuple):
    """One teacher's output for some rows; no payload where it was queried for none."""

    payload_PX: np.ndarray
    counts_N: np.ndarray  # int64: positions of each row


class Joining(Protocol):
    """How the answers about a part are put together."""

    def join(
        self,
        part: Any,
        payloads: Sequence[Payload],
        masks: Sequence[np.ndarray],
        chosen_KB: Tensor,
        router_logits_BK: Tensor | None,
    ) -> Answers:
        """``payloads``: each teacher's output for the rows that its mask (bool [B]) marks."""
        ...


@dataclass(frozen=True)
class RowJoining:
    """Of classifiers: all logits, zeros where a teacher was not asked."""

    teachers: Sequence[ServedTeacher]

    def join(
        self,
        part: Any,
        payloads: Sequence[Payload],
        masks: Sequence[np.ndarray],
        chosen_KB: Tensor,
        router_logits_BK: Tensor | None,
    ) -> TeacherAnswers:
        logits = [
            spread(logits_of(teacher, one), mask_B)
            for teacher, one, mask_B in zip(self.teachers, payloads, masks, strict=True)
        ]
        return TeacherAnswers(torch.stack(logits), chosen_KB, router_logits_BK)


def logits_of(teacher: ServedTeacher, payload: Payload) -> Tensor:
    """A classifier's: float32 [N, V], in the order of the classes.

    Payloads, and so the cache, keep the teacher's own order.
    """
    if len(payload.counts_N) == 0:
        return torch.zeros(0, teacher.width)
    logits_NV = teacher.wire.logits(as_tensor(payload.payload_PX), None)
    return logits_NV if teacher.columns is None else logits_NV[:, list(teacher.columns)]


@dataclass(frozen=True)
class TokenJoining:
    """Of language models: payloads as they came; nothing is decoded before the loss."""

    num_positions: Callable[[Any], np.ndarray]
    """Of a part's rows: int64, the student's positions of each."""
    aligned: Mapping[int, Callable[[np.ndarray], np.ndarray]]
    """Of teachers (by their place in K) with another tokenizer: of row ids, bool, which of the
    student's positions they have an answer for, row by row."""

    def join(
        self,
        part: Any,
        payloads: Sequence[Payload],
        masks: Sequence[np.ndarray],
        chosen_KB: Tensor,
        router_logits_BK: Tensor | None,
    ) -> TokenAnswers:
        valid_B = part.valid_B.numpy()
        counts_B = np.where(valid_B, self.num_positions(part), 0)
        asked = []
        for k, mask_B in enumerate(masks):
            queried_P = np.repeat(mask_B, counts_B)
            if k in self.aligned and valid_B.any():
                queried_P &= self.aligned[k](part.rows_B[valid_B])
            assert queried_P.sum() == len(payloads[k].payload_PX), "one answer a position"
            asked.append(torch.from_numpy(queried_P))
        return TokenAnswers(
            tuple(as_tensor(one.payload_PX) for one in payloads), torch.stack(asked)
        )


def spread(logits_NV: Tensor, mask_B: np.ndarray) -> Tensor:
    """[N, V] onto the N marked rows of [B, V]; zeros elsewhere."""
    logits_BV = torch.zeros(len(mask_B), logits_NV.shape[1])
    logits_BV[torch.from_numpy(mask_B)] = logits_NV
    return logits_BV


def in_order(hit_N: np.ndarray, found: Payload, fresh: Payload) -> Payload:
    """What the cache had (of the rows marked) and what was answered now, row by row."""
    counts_N = np.empty(len(hit_N), np.int64)
    counts_N[hit_N], counts_N[~hit_N] = found.counts_N, fresh.counts_N
    payload_PX = np.empty(
        (int(counts_N.sum()), *fresh.payload_PX.shape[1:]), fresh.payload_PX.dtype
    )
    of_hit_P = np.repeat(hit_N, counts_N)
    payload_PX[of_hit_P], payload_PX[~of_hit_P] = found.payload_PX, fresh.payload_PX
    return Payload(payload_PX, counts_N)
