"""Everything trainable as one module whose forward returns the loss.

The engine wraps this module, so that ZeRO-3's hooks see every parameter: the student with its
head, and the aggregation's own weights. Only ``student`` is exported.

Shape suffixes: B rows of a micro-batch, N valid rows, K teachers, V classes, H features.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedModel

from distill.aggregation import Aggregation, TrainedWeights
from distill.objectives import Objective
from distill.objectives.divergence import kl, weighted
from distill.objectives.likelihood import LabelLogp, Routes, mixture_nll
from distill.records import (
    UNLABELLED,
    Answers,
    Batch,
    LossOutput,
    Mean,
    ScheduleValues,
    Target,
    TeacherAnswers,
)
from distill.training.trainable import Trainable


class DistillModule(Trainable):
    """L = α · c(T) · mean D(p_T, p_S) + (1 − α) · mean CE(y, z_S).

    The soft term is a mean over the valid rows of the whole global batch, the hard term over its
    labelled rows; each call returns its micro-batch's share, so plain sums give the global mean.
    Without teachers (``answers`` None) the loss is the cross-entropy alone.
    An aggregation with trained weights adds its own loss (aggregation/trained.py), which trains
    nothing but its network: −log Σ_k w_k p_k(y), a mean over the labelled rows, less the entropy of
    the weights, a mean over the valid rows.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        objective: Objective | None = None,
        aggregation: Aggregation | None = None,
        teacher_names: Sequence[str] = (),
        num_classes: int = 0,
        domain_teachers: Sequence[int] = (),
    ) -> None:
        """``domain_teachers``: of each domain, the teacher that is named like it, or -1; for the
        accuracy of trained weights."""
        super().__init__()
        self.student: PreTrainedModel = student
        self.objective = objective
        self.aggregation = aggregation
        self.teacher_names = tuple(teacher_names)
        self.router: nn.Module | None = None
        if isinstance(aggregation, TrainedWeights):
            config: Any = student.config
            self.router = aggregation.build(
                len(self.teacher_names), num_classes, config.hidden_size
            )
        self._domain_teachers = tuple(domain_teachers)

    def forward(
        self, batch: Batch, answers: Answers | None, schedule_values: ScheduleValues
    ) -> LossOutput:
        assert answers is None or isinstance(answers, TeacherAnswers)
        logits_BV, features_BH = self._student(batch)
        valid_B = batch.valid_B
        zero = logits_BV[:0].sum()  # keeps the graph whole where a term has no rows
        hard, metrics = self._hard(logits_BV, batch, zero)
        alpha = schedule_values.alpha if answers is not None else 0.0
        loss = weighted(1 - alpha, hard) + zero
        metrics["loss"] = Mean(loss.detach(), _share(batch))
        if answers is None:
            return LossOutput(loss, logits_BV, metrics)
        assert self.aggregation is not None
        weights = self.aggregation.weigh(answers, features_BH, self.router)
        target = self.aggregation.target(answers, weights.weights_KB, schedule_values.temperature)
        with torch.no_grad() if alpha == 0 else nullcontext():
            soft = (
                self._soft(logits_BV, target, batch, schedule_values.temperature) / batch.num_valid
            )
        loss = loss + weighted(alpha, soft)
        metrics["kd.loss"] = Mean(soft.detach(), _share(batch))
        metrics["loss"] = Mean(loss.detach(), _share(batch))
        metrics |= self._per_teacher(logits_BV.detach(), answers, target, valid_B)
        if weights.log_weights_KB is not None:
            own, own_metrics = self._of_router(
                batch, answers, weights.log_weights_KB, schedule_values
            )
            loss = loss + own
            metrics |= own_metrics
        if self.training:
            return LossOutput(loss, logits_BV, metrics)
        teacher_logp_BV = self.aggregation.target(answers, weights.weights_KB, 1.0).logp_NV
        return LossOutput(loss, logits_BV, metrics, teacher_logp_BV, weights.weights_KB)

    def _student(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        needs_features = self.router is not None
        output = self.student(**batch.inputs(), output_hidden_states=needs_features)
        features_BH = pooled(output.hidden_states[-1], batch) if needs_features else None
        return output.logits.float(), features_BH  # float32: bf16 loses the tail the KL is about

    def _hard(
        self, logits_BV: Tensor, batch: Batch, zero: Tensor
    ) -> tuple[Tensor, dict[str, Mean]]:
        labelled_B = batch.valid_B & (batch.labels_B != UNLABELLED)
        logits_NV, labels_N = logits_BV[labelled_B], batch.labels_B[labelled_B]
        if batch.num_labelled == 0:
            return zero, {}
        hard = cross_entropy(logits_NV, labels_N, reduction="sum") / batch.num_labelled
        correct = (logits_NV.detach().argmax(-1) == labels_N).sum()
        share = labelled_B.sum() / batch.num_labelled
        return hard, {
            "ce.loss": Mean(hard.detach(), share),
            "train.accuracy": Mean(correct.float(), labelled_B.sum().float()),
        }

    def _of_router(
        self,
        batch: Batch,
        answers: TeacherAnswers,
        log_weights_KB: Tensor,
        schedule_values: ScheduleValues,
    ) -> tuple[Tensor, dict[str, Mean]]:
        """The loss of the network that makes the weights."""
        assert isinstance(self.aggregation, TrainedWeights) and self.objective is not None
        valid_B = batch.valid_B
        labelled_B = valid_B & (batch.labels_B != UNLABELLED)
        likelihood = LabelLogp(batch.labels_B[labelled_B])
        logits_KNV = answers.logits_KBV[:, labelled_B]
        likelihood.add(logits_KNV, slice(0, logits_KNV.shape[2]))
        is_answered_N = answers.queried_KB[:, labelled_B].any(0)
        nll = mixture_nll(log_weights_KB[:, labelled_B], likelihood.value, is_answered_N)
        routes = Routes(
            log_weights_KB[:, valid_B], self._domain_teachers_of(batch.domains_B[valid_B])
        )
        loss = nll / max(1, batch.num_labelled)
        # The factor of the distillation loss.
        scale = schedule_values.alpha * self.objective.total_coefficient(
            schedule_values.temperature
        )
        if (beta := self.aggregation.beta * scale) > 0:
            loss = loss - beta * routes.entropy() / batch.num_valid
        return loss, routes.metrics(nll, labelled_B.sum().float())

    def _domain_teachers_of(self, domains_N: Tensor) -> Tensor:
        if not self._domain_teachers:
            return torch.full_like(domains_N, -1)
        # The last entry is that of no domain, whose index is -1.
        return torch.tensor((*self._domain_teachers, -1), device=domains_N.device)[domains_N]

    def _soft(self, logits_BV: Tensor, target: Target, batch: Batch, temperature: float) -> Tensor:
        assert self.objective is not None
        valid_B = batch.valid_B
        kept = Target(
            target.logp_NV[valid_B], target.weights_KN[:, valid_B], batch.labels_B[valid_B]
        )
        divergence_N = self.objective(logits_BV[valid_B], kept, temperature)
        return self.objective.coefficient(temperature) * divergence_N.sum()

    @torch.no_grad()
    def _per_teacher(
        self, logits_BV: Tensor, answers: TeacherAnswers, target: Target, valid_B: Tensor
    ) -> dict[str, Mean]:
        """KL(p_k ‖ p_S) at T = 1 over the rows that teacher k answered, and its mean weight."""
        logp_S_BV = log_softmax(logits_BV, dim=-1)
        metrics = {}
        for k, name in enumerate(self.teacher_names):
            queried_B = answers.queried_KB[k] & valid_B
            logp_T_NV = log_softmax(answers.logits_KBV[k][queried_B], dim=-1)
            divergence_N = kl(logp_T_NV, logp_S_BV[queried_B])
            count = queried_B.sum().float()
            metrics[f"teacher.{name}.kl"] = Mean(divergence_N.sum(), count)
            metrics[f"teacher.{name}.weight"] = Mean(
                target.weights_KN[k][valid_B].sum(), valid_B.sum().float()
            )
        return metrics


def pooled(hidden_BTH: Tensor, batch: Batch) -> Tensor:
    """float32 [B, H]: the mean of the hidden states over a row's own tokens, whatever the position
    that the student's head reads."""
    mask_BT = batch.attention_mask_BT
    if mask_BT is None:  # features: T is 1
        return hidden_BTH.float().mean(1)
    mask_BT1 = (mask_BT != 0).float()[..., None]
    return (hidden_BTH.float() * mask_BT1).sum(1) / mask_BT1.sum(1)


def _share(batch: Batch) -> Tensor:
    """This micro-batch's part of the global batch; sums to 1 over micro-batches and ranks."""
    return batch.valid_B.sum() / batch.num_valid
