"""The loss of a language model's positions: L = α · c(T) · Σ D(p_T, p_S) + (1 − α) · Σ CE(y, z_S).

Shape suffixes: N all positions of a micro-batch, n those of a chunk, m those of a block, V the
columns of the vocabulary that count (C some of them), K teachers, X a position's payload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.aggregation import Aggregation
from distill.aggregation.mixture import only_queried
from distill.objectives import Objective
from distill.objectives.divergence import weighted
from distill.objectives.likelihood import LabelLogp
from distill.objectives.log_softmax import log_softmax_at
from distill.records import Head, ScheduleValues, Target, TeacherAnswers, TokenAnswers
from distill.training.fused import BlockLoss, Chunk
from distill.training.split_loss import ChunkTeachers, LogitsOf, SplitLoss
from distill.wires import WireFormat

APART_EVERY = 16
"""The divergence from each teacher alone is computed at one of so many positions."""


class Reader(NamedTuple):
    """How the outputs of one teacher are decoded."""

    wire: WireFormat
    head: Head | None = None  # on the student's device; of wires that take hidden states
    num_columns: int | None = None  # of its vocabulary; other columns are padding. None: all
    num_passes: int = 1  # M outputs for each position, side by side in its payload

    def logits(self, payload_NX: Tensor, columns: slice | None = None) -> Tensor:
        """float32 [N, C], of all its columns by default."""
        columns = columns or slice(0, self.num_columns)
        if len(payload_NX) == 0 and columns.stop is not None:
            # Of a teacher without queries here: no output has shown its width.
            width = columns.stop - (columns.start or 0)
            return torch.zeros(0, width, device=payload_NX.device)
        return self.wire.logits(payload_NX, self.head, columns)

    def passes(self, payload_NX: Tensor) -> list[Tensor]:
        """The payload [N, X] of each forward."""
        if self.num_passes == 1:
            return [payload_NX]
        # Copied: a wire of bytes reads numbers out of whole rows.
        return [part.contiguous() for part in payload_NX.tensor_split(self.num_passes, dim=1)]


_Payloads = Callable[[slice], list[Tensor]]
"""Positions -> one teacher's output at those that it was queried for, in each of its forwards."""


class Sums(NamedTuple):
    """Over the positions so far; float32 scalars, except the weights."""

    kd: Tensor  # Σ c(T) · D, over the positions that a teacher answered
    ce: Tensor
    hits: Tensor  # positions whose label is the student's first choice
    num_answered: Tensor
    weights_K: Tensor  # Σ w_k over the answered positions
    apart_K: Tensor  # Σ c(T) · D(p_k, p_S) over every APART_EVERY-th position, and their number
    num_apart_K: Tensor


class TokenLoss:
    """One micro-batch's loss, a sum over its positions, chunk by chunk (see fused.py).

    Where all wires are exact and the objective mixes the teachers, D compares the student with the
    aggregate of the teachers; else, and where the aggregation's mix is ``divergences``,
    D = Σ_k w_k D(p_k, p_S), whose gradient is for forward KL that of the aggregate of probabilities
    (its value is larger by what teachers differ among themselves). D(p_k, p_S) of a teacher with M
    forwards is (1/M) Σ_m D(p_k^m, p_S). Teachers not queried for a position weigh 0 there, and
    positions without an answer are left out of D. ``sums`` has the sums of the metrics; the
    divergence from each teacher alone (``apart_K``) is of every APART_EVERY-th position.
    """

    def __init__(
        self,
        labels_N: Tensor,
        num_columns: int,
        schedule_values: ScheduleValues,
        answers: TokenAnswers | None = None,
        readers: Sequence[Reader] = (),
        aggregation: Aggregation | None = None,
        objective: Objective | None = None,
        weights_KN: Tensor | None = None,
        lengths: Sequence[int] | None = None,
    ) -> None:
        """``weights_KN``: of an aggregation whose weights are trained. The teachers' output for
        the labels is kept in ``label_logp_KN``, log p_k(y_n) at temperature 1. ``lengths``: numbers
        of positions whose mean is taken, in order; the loss is then the sum of these means (metrics
        stay sums over positions). None: of each position alone."""
        self._labels_N = labels_N
        self._num_columns = num_columns
        self._temperature = schedule_values.temperature
        self._alpha = schedule_values.alpha if answers is not None else 0.0
        self._answers = answers
        self._readers = tuple(readers)
        self._aggregation = aggregation
        self._objective = None if objective is None else objective.at_tokens()
        zero = torch.zeros((), device=labels_N.device)
        kd, ce, hits, num_answered = (zero.clone() for _ in range(4))
        weights_K, apart_K, num_apart_K = (zero.new_zeros(len(self._readers)) for _ in range(3))
        self.sums = Sums(kd, ce, hits, num_answered, weights_K, apart_K, num_apart_K)
        self._means = None if lengths is None else _slices_of(lengths)
        self._weights_KN = weights_KN
        self.label_logp_KN = None if weights_KN is None else torch.zeros_like(weights_KN)
        if answers is not None:
            queried_KN = answers.queried_KP.cpu().numpy()
            # Where each teacher's outputs for position n start among all of its outputs.
            self._starts_KN = np.pad(queried_KN.cumsum(1), ((0, 0), (1, 0))).tolist()
            self._are_answered_N = queried_KN.sum(0) > 0
            are_alone = all(reader.num_passes == 1 for reader in self._readers)
            assert are_alone or not self._compares_aggregate, "passes are compared one by one"

    @property
    def _compares_aggregate(self) -> bool:
        assert self._objective is not None
        if self._aggregation is not None and self._aggregation.mix == "divergences":
            return False
        exact = all(reader.wire.is_exact for reader in self._readers)
        return exact and self._objective.mixes

    def chunk(self, budget_mb: float) -> Chunk:
        """How many positions fit into ``budget_mb`` of logits (trainer.loss_chunk_mb)."""
        num_whole = sum(reader.num_passes for reader in self._readers if reader.wire.is_exact)
        can_split = self._answers is None or (
            self._compares_aggregate
            and self._objective is not None
            and self._objective.is_elementwise
            and self._aggregation is not None
            and not self._aggregation.sees_logits
        )
        chunk = Chunk.within(budget_mb, self._num_columns, num_whole, can_split)
        if self._answers is None or self._objective is None:
            return chunk
        return replace(chunk, row_floats=self._objective.row_floats)

    def of_chunk(self, rows: slice) -> BlockLoss:
        payloads = None if self._answers is None else self._decoded(rows)

        def summed(logits_mV: Tensor, at: slice) -> Tensor:
            hard = self._cross_entropy(logits_mV, at)
            return hard if payloads is None else hard + self._divergence(logits_mV, payloads, at)

        def loss(logits_mV: Tensor, block: slice) -> Tensor:
            at = slice(rows.start + block.start, rows.start + block.stop)
            if self._means is None:
                return summed(logits_mV, at)
            total = logits_mV.new_zeros(())
            for part, length in self._parts(at):
                of_part = slice(part.start - at.start, part.stop - at.start)
                total = total + summed(logits_mV[of_part], part) / length
            return total

        return loss

    def _parts(self, at: slice) -> list[tuple[slice, int]]:
        """What of these positions each mean is over, and of how many positions that mean is."""
        assert self._means is not None
        parts = [
            (slice(max(at.start, whole.start), min(at.stop, whole.stop)), whole.stop - whole.start)
            for whole in self._means
        ]
        return [(part, length) for part, length in parts if part.start < part.stop]

    def of_columns(self, rows: slice, logits_of: LogitsOf, columns: list[slice]) -> SplitLoss:
        teachers = None if self._answers is None else self._teachers(rows)
        shares_n = None
        if self._means is not None:
            shares = [torch.full((p.stop - p.start,), 1 / num) for p, num in self._parts(rows)]
            shares_n = torch.cat(shares).to(self._labels_N.device)
        labels_n = self._labels_N[rows]
        loss = SplitLoss(logits_of, columns, labels_n, self._alpha, teachers, shares_n)
        self.sums.kd.add_(loss.kd)
        self.sums.ce.add_(loss.ce)
        self.sums.hits.add_(loss.hits)
        if self.label_logp_KN is not None and loss.label_logp_Kn is not None:
            self.label_logp_KN[:, rows] = loss.label_logp_Kn
        return loss

    def _teachers(self, rows: slice) -> ChunkTeachers:
        """For :meth:`of_columns`: exact wires, and weights that do not depend on the logits."""
        assert self._answers is not None and self._compares_aggregate
        assert self._aggregation is not None and self._objective is not None
        queried_Kn = self._answers.queried_KP[:, rows]
        is_answered_n = queried_Kn.any(0)
        weights_Kn = torch.full(queried_Kn.shape, 1 / len(queried_Kn), device=queried_Kn.device)
        weights_Kn[:, is_answered_n] = self._weights(
            queried_Kn[:, is_answered_n], rows, is_answered_n
        )
        self._note(weights_Kn[:, is_answered_n])

        pairs = list(zip(self._readers, self._answers.payloads, strict=True))

        def logits_of(columns: slice) -> Tensor:
            payloads = [
                reader.logits(payload_NX[self._given(k, rows)], columns)
                for k, (reader, payload_NX) in enumerate(pairs)
            ]
            return _stacked(payloads, queried_Kn)

        return ChunkTeachers(
            logits_of,
            weights_Kn,
            is_answered_n,
            self._aggregation.mix,
            self._objective,
            self._temperature,
            is_routed=self.label_logp_KN is not None,
        )

    def _decoded(self, rows: slice) -> list[_Payloads]:
        """Each teacher's output at those of the ``rows`` that it was queried for."""
        return [self._decoded_of(k, rows) for k in range(len(self._readers))]

    def _decoded_of(self, k: int, rows: slice) -> _Payloads:
        assert self._answers is not None
        payload_NX, reader = self._answers.payloads[k], self._readers[k]
        given = self._given(k, rows)
        parts_MnX = reader.passes(payload_NX[given])
        if reader.wire.is_exact:
            parts_MnX = [reader.logits(part, self._columns_of(reader)) for part in parts_MnX]

        def at_positions(at: slice) -> list[Tensor]:
            part = self._given(k, at)
            inside = slice(part.start - given.start, part.stop - given.start)
            return [payload_nX[inside] for payload_nX in parts_MnX]

        return at_positions

    def _columns_of(self, reader: Reader) -> slice:
        assert self._objective is not None
        shared = None if self._objective.crosses_tokenizers else self._num_columns
        return slice(0, reader.num_columns if shared is None else shared)

    def _given(self, k: int, rows: slice) -> slice:
        """The slice of teacher k's outputs for these positions."""
        return slice(self._starts_KN[k][rows.start], self._starts_KN[k][rows.stop])

    def _cross_entropy(self, logits_mV: Tensor, at: slice) -> Tensor:
        labels_m = self._labels_N[at]
        with torch.no_grad():
            self.sums.hits.add_((logits_mV.max(-1).indices == labels_m).sum())
        with torch.no_grad() if self._alpha == 1 else nullcontext():
            ce = cross_entropy(logits_mV, labels_m, reduction="sum")
        self.sums.ce.add_(ce.detach())
        return weighted(1 - self._alpha, ce)

    def _divergence(self, logits_mV: Tensor, payloads: list[_Payloads], at: slice) -> Tensor:
        assert self._objective is not None
        compare = self._to_aggregate if self._compares_aggregate else self._one_by_one
        with torch.no_grad() if self._alpha == 0 else nullcontext():
            kd = self._objective.coefficient(self._temperature) * compare(logits_mV, payloads, at)
        self.sums.kd.add_(kd.detach())
        return weighted(self._alpha, kd)

    def _asked(self, at: slice) -> tuple[Tensor, slice | Tensor]:
        """asked_Km of the positions with an answer, and which of the block those are."""
        assert self._answers is not None
        queried_Km = self._answers.queried_KP[:, at]
        if self._are_answered_N[at].all():
            return queried_Km, slice(None)
        kept_m = queried_Km.any(0)
        return queried_Km[:, kept_m], kept_m

    def _to_aggregate(self, logits_mV: Tensor, payloads: list[_Payloads], at: slice) -> Tensor:
        """Σ over the block of D(aggregate, student)."""
        assert self._aggregation is not None and self._objective is not None
        queried_Km, kept = self._asked(at)
        logits_KmV = _stacked([payload_k(at)[0] for payload_k in payloads], queried_Km)
        with torch.no_grad():
            answers = TeacherAnswers(logits_KmV, queried_Km)
            if self._aggregation.sees_logits:
                weights_Km = self._aggregation.weigh(answers, None, None).weights_KB
            else:
                weights_Km = self._weights(queried_Km, at, kept)
            target = self._aggregation.target(answers, weights_Km, self._temperature)
            target = replace(target, labels_N=self._labels_N[at][kept])
            self._note(weights_Km)
            self._note_labels(logits_KmV, at, kept)
            self._note_apart(logits_KmV, queried_Km, logits_mV[kept], at, kept)
        return self._objective(logits_mV[kept], target, self._temperature).sum()

    def _one_by_one(self, logits_mV: Tensor, payloads: list[_Payloads], at: slice) -> Tensor:
        """Σ over the block of Σ_k w_k D(p_k, student)."""
        queried_Km, kept = self._asked(at)
        weights_Km = self._weights(queried_Km, at, kept)
        self._note(weights_Km)
        logits_mV = logits_mV[kept]
        total = logits_mV.new_zeros(())
        for k, reader in enumerate(self._readers):
            queried_m = queried_Km[k]
            passes = [payload_mX for payload_mX in payloads[k](at) if len(payload_mX)]
            if passes:
                labels_m, weights_m = self._labels_N[at][kept][queried_m], weights_Km[k][queried_m]
                has_weight = bool(weights_m.any())  # else it is only measured: 0 · ∞ is NaN
                with nullcontext() if has_weight else torch.no_grad():
                    each = [
                        self._to_one(reader, payload_mX, logits_mV[queried_m], labels_m)
                        for payload_mX in passes
                    ]
                    divergence_m = torch.stack(each).mean(0)
                if has_weight:
                    total = total + (weights_m * divergence_m).sum()
                self._note_apart_of(k, divergence_m)
        return total

    def _to_one(
        self, reader: Reader, payload_mX: Tensor, logits_mV: Tensor, labels_m: Tensor
    ) -> Tensor:
        assert self._objective is not None
        if not reader.wire.is_exact:
            return reader.wire.forward_kl(payload_mX, logits_mV, self._temperature)
        logp_mV = log_softmax_at(payload_mX, self._temperature)
        target = Target(logp_mV, logp_mV.new_ones(1, len(logp_mV)), labels_m)
        return self._objective(logits_mV, target, self._temperature)

    def _weights(self, queried_Kn: Tensor, at: slice, kept: slice | Tensor) -> Tensor:
        """Of an aggregation that does not depend on the logits, at the kept positions among ``at``.
        ``queried_Kn`` is of these positions."""
        assert self._aggregation is not None
        if self._weights_KN is not None:
            return only_queried(self._weights_KN[:, at][:, kept], queried_Kn)
        unseen_Kn0 = torch.empty(*queried_Kn.shape, 0, device=queried_Kn.device)
        return self._aggregation.weigh(
            TeacherAnswers(unseen_Kn0, queried_Kn), None, None
        ).weights_KB

    def _note(self, weights_Kn: Tensor) -> None:
        self.sums.num_answered.add_(weights_Kn.shape[1])
        self.sums.weights_K.add_(weights_Kn.sum(1))

    def _note_labels(self, logits_KmV: Tensor, at: slice, kept: slice | Tensor) -> None:
        if self.label_logp_KN is not None:
            likelihood = LabelLogp(self._labels_N[at][kept])
            likelihood.add(logits_KmV, slice(0, logits_KmV.shape[2]))
            self.label_logp_KN[:, at][:, kept] = likelihood.value

    def _note_apart(
        self,
        logits_KmV: Tensor,
        queried_Km: Tensor,
        logits_mV: Tensor,
        at: slice,
        kept: slice | Tensor,
    ) -> None:
        """D(p_k, p_S) of a sample: a softmax for each teacher would cost as much as the loss."""
        if len(logits_KmV) == 1:
            return  # it is the loss
        some = slice(-at.start % APART_EVERY, None, APART_EVERY)
        labels_m = self._labels_N[at][kept][some]
        for k, (payload_mV, queried_m) in enumerate(
            zip(logits_KmV[:, some], queried_Km[:, some], strict=True)
        ):
            divergence_m = self._to_one(
                self._readers[k],
                payload_mV[queried_m],
                logits_mV[some][queried_m],
                labels_m[queried_m],
            )
            self._note_apart_of(k, divergence_m)

    def _note_apart_of(self, k: int, divergence_m: Tensor) -> None:
        assert self._objective is not None
        scaled = self._objective.coefficient(self._temperature) * divergence_m.detach().sum()
        self.sums.apart_K[k] += scaled
        self.sums.num_apart_K[k] += len(divergence_m)


def _slices_of(lengths: Sequence[int]) -> list[slice]:
    starts = np.cumsum([0, *lengths]).tolist()
    return [slice(*pair) for pair in pairwise(starts)]


def _stacked(logits: Sequence[Tensor], queried_Km: Tensor) -> Tensor:
    """[K, m, V] of each teacher's output where it was queried; zeros elsewhere."""
    if len(logits) == 1:
        return _spread(logits[0], queried_Km[0])[None]  # no copy
    return torch.stack([_spread(*pair) for pair in zip(logits, queried_Km, strict=True)])


def _spread(logits_xV: Tensor, queried_m: Tensor) -> Tensor:
    if len(logits_xV) == len(queried_m):
        return logits_xV
    spread_mV = logits_xV.new_zeros(len(queried_m), logits_xV.shape[1])
    spread_mV[queried_m] = logits_xV
    return spread_mV
