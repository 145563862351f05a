"""Everything trainable of a language-model student as one module whose forward returns the loss.

As :mod:`distill.training.class_module` for classifiers, but no [N, V] exists: the student's output
layer takes the loss with the hidden states, and looks at a few positions at a time (see fused.py).

Shape suffixes: B rows of a micro-batch, T tokens, P and N its positions, K teachers, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.aggregation import Aggregation, TrainedWeights
from distill.models.decoder import base_of, head_of, plain
from distill.models.load_balancing import LoadBalancing
from distill.objectives import Objective
from distill.objectives.likelihood import Routes, mixture_nll
from distill.records import Answers, Batch, Head, LossOutput, Mean, ScheduleValues, TokenAnswers
from distill.teachers.served import ServedTeacher
from distill.training.fused import FusedHead
from distill.training.token_loss import Reader, TokenLoss
from distill.training.trainable import Trainable


class TokenModule(Trainable):
    """L = α · c(T) · mean D(p_T, p_S) + (1 − α) · mean CE(x_{t+1}, z_S).

    All are means over the positions of the whole global batch, or (``normalise`` sequences) means
    over its rows of the means over each row's positions; each call returns its micro-batch's share.
    Without teachers (``answers`` None) the loss is the cross-entropy alone.
    An aggregation with trained weights adds its own loss (aggregation/trained.py), which trains
    nothing but its network.

    Of a mixture of experts in training its load-balancing loss is added, times the coefficient of
    its own configuration (models/load_balancing.py). It is no sum over positions: each micro-batch
    is balanced by itself, as in transformers, and weighs its share of the global batch's positions.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        num_tokens: int,
        objective: Objective | None = None,
        aggregation: Aggregation | None = None,
        teachers: Sequence[ServedTeacher] = (),
        loss_chunk_mb: float = 256.0,
        domain_teachers: Sequence[int] = (),
        left_out: Sequence[int] = (),
        normalise: Literal["tokens", "sequences"] = "tokens",
    ) -> None:
        """``num_tokens``: columns that count, of the student. ``teachers``: in the order of K.
        ``domain_teachers``: of each domain, the teacher that is named like it, or -1; for the
        accuracy of trained weights. ``left_out``: columns among those that count that are not the
        same token to student and teachers. ``normalise`` sequences: for rows that are not
        packed."""
        super().__init__()
        plain(student).set_output_embeddings(FusedHead.of(head_of(student), left_out))
        self.student: PreTrainedModel = student
        self.num_tokens = num_tokens
        self.objective = objective
        self.aggregation = aggregation
        self.loss_chunk_mb = loss_chunk_mb
        self.normalise = normalise
        self.teachers = tuple(teachers)
        self.take_heads({}, "cpu")
        self.router: nn.Module | None = None
        if isinstance(aggregation, TrainedWeights):
            width = head_of(student).in_features
            self.router = aggregation.build(len(self.teachers), num_tokens, width)
        self._balancing = LoadBalancing.of(student)
        # The last entry is that of no domain, whose index is -1.
        self._domain_teachers = (*domain_teachers, -1)

    def take_heads(self, heads: Mapping[str, Head], device: torch.device | str) -> None:
        """The output layers of teachers that send hidden states. No parameters of this module."""
        placed = {id(head): head.to(device) for head in heads.values()}  # some share one
        self._readers = [
            Reader(
                teacher.wire,
                placed[id(heads[teacher.name])] if teacher.name in heads else None,
                teacher.width,
                teacher.moe.num_passes,
            )
            for teacher in self.teachers
        ]

    def forward(
        self, batch: Batch, answers: Answers | None, schedule_values: ScheduleValues
    ) -> LossOutput:
        assert answers is None or isinstance(answers, TokenAnswers)
        output = self._decoded(batch, with_routers=self._balances)
        hidden_NH, labels_N = output.last_hidden_state[batch.targets_BT], labels_at(batch)
        routes = None if answers is None else self.routes(batch, hidden_NH)
        is_by_sequence = self.normalise == "sequences"
        loss = TokenLoss(
            labels_N,
            self.num_tokens,
            schedule_values,
            answers,
            self._readers if answers is not None else (),
            self.aggregation,
            self.objective,
            None if routes is None else routes.log_weights_KN.detach().exp(),
            lengths_of(batch) if is_by_sequence else None,
        )
        head: Any = head_of(self.student)
        chunk = loss.chunk(self.loss_chunk_mb)
        count = batch.num_sequences if is_by_sequence else batch.num_valid
        total = head(hidden_NH, loss, chunk, self.num_tokens) / max(1, count)
        has_teachers = answers is not None and bool(self._readers)
        metrics = self._metrics(total, loss, batch, has_teachers)
        if routes is not None and isinstance(answers, TokenAnswers):
            assert loss.label_logp_KN is not None
            are_together_N = answers.queried_KP.all(0)
            nll = mixture_nll(routes.log_weights_KN, loss.label_logp_KN, are_together_N)
            total = total + nll / max(1, batch.num_valid)
            if (beta := self._beta(schedule_values)) > 0:
                total = total - beta * routes.entropy() / max(1, batch.num_valid)
            count = torch.tensor(float(len(labels_N)), device=labels_N.device)
            metrics |= routes.metrics(nll, count)
        if self._balances:
            assert self._balancing is not None
            balance = self._balancing(output.router_logits, real_tokens(batch))
            share = len(labels_N) / max(1, batch.num_valid)
            total = total + self._balancing.coefficient * balance * share
            metrics["balance.loss"] = _mean_of(balance, len(labels_N))
        return LossOutput(total, None, metrics)

    def positions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The student's hidden states [N, H] at the batch's positions, and the next tokens [N]."""
        hidden_BTH = self._decoded(batch).last_hidden_state
        return hidden_BTH[batch.targets_BT], labels_at(batch)

    @property
    def _balances(self) -> bool:
        return self.training and self._balancing is not None

    def _decoded(self, batch: Batch, with_routers: bool = False) -> Any:
        asked = {"output_router_logits": True} if with_routers else {}
        return base_of(self.student)(**batch.inputs(), use_cache=False, **asked)

    def _beta(self, schedule_values: ScheduleValues) -> float:
        """Of the entropy of trained weights, with the factor of the distillation loss."""
        assert isinstance(self.aggregation, TrainedWeights) and self.objective is not None
        scale = self.objective.total_coefficient(schedule_values.temperature)
        return self.aggregation.beta * schedule_values.alpha * scale

    def routes(self, batch: Batch, hidden_NH: Tensor) -> Routes | None:
        """At the positions of :meth:`positions`; None without trained weights."""
        if self.router is None:
            return None
        assert isinstance(self.aggregation, TrainedWeights) and batch.targets_BT is not None
        log_weights_KN = self.aggregation.log_weights(self.router, hidden_NH, sequences_at(batch))
        domain_teacher_D = torch.tensor(self._domain_teachers, device=hidden_NH.device)
        row_N = batch.targets_BT.nonzero()[:, 0]
        return Routes(log_weights_KN, domain_teacher_D[batch.domains_B[row_N]])

    @torch.no_grad()
    def _metrics(
        self, total: Tensor, loss: TokenLoss, batch: Batch, has_teachers: bool
    ) -> dict[str, Mean]:
        """The same names on every rank, which adds them up: also where no teacher answered."""
        assert batch.targets_BT is not None
        num_positions = batch.targets_BT.sum().float()
        sums = loss.sums
        metrics = {
            "loss": Mean(total.detach(), num_positions / max(1, batch.num_valid)),
            "ce.loss": Mean(sums.ce, num_positions),
            "train.accuracy": Mean(sums.hits, num_positions),
        }
        if has_teachers:
            metrics["kd.loss"] = Mean(sums.kd, sums.num_answered)
            for teacher, weight in zip(self.teachers, sums.weights_K, strict=True):
                metrics[f"teacher.{teacher.name}.weight"] = Mean(weight, sums.num_answered)
        if has_teachers and len(self.teachers) > 1:
            apart = zip(self.teachers, sums.apart_K, sums.num_apart_K, strict=True)
            metrics |= {f"teacher.{t.name}.divergence": Mean(d, n) for t, d, n in apart}
        return metrics


def _mean_of(value: Tensor, num_positions: int) -> Mean:
    """Of one value for so many positions."""
    count = torch.tensor(float(num_positions), device=value.device)
    return Mean(value.detach() * count, count)


def sequences_at(batch: Batch) -> Tensor:
    """Which of the batch's packed sequences each of its positions is of: int64 [N], rising."""
    assert batch.position_ids_BT is not None and batch.targets_BT is not None
    starts_BT = batch.position_ids_BT == 0
    return starts_BT.flatten().cumsum(0).view_as(starts_BT)[batch.targets_BT]


def real_tokens(batch: Batch) -> Tensor:
    """bool[B, T]: tokens of sequences, which padding is none of: it restarts as one more
    sequence (data/block_file.py), the only one that nothing is to be predicted in."""
    assert batch.position_ids_BT is not None and batch.targets_BT is not None
    sequence_BT = (batch.position_ids_BT == 0).flatten().cumsum(0).view_as(batch.targets_BT)
    return torch.isin(sequence_BT, sequence_BT[batch.targets_BT])


def lengths_of(batch: Batch) -> list[int]:
    """Positions of each row."""
    assert batch.targets_BT is not None
    return batch.targets_BT.sum(1).tolist()


def labels_at(batch: Batch) -> Tensor:
    """The next tokens [N] at the batch's positions."""
    assert batch.input_ids_BT is not None and batch.targets_BT is not None
    labels_BT = batch.input_ids_BT.roll(-1, dims=1)  # the last token of a row is no position
    return labels_BT[batch.targets_BT]
