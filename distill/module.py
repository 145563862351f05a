"""Everything trainable as one module whose forward returns the loss.

The engine wraps this module, so that ZeRO-3's hooks see every parameter: the student with its
head, and the aggregation's own weights. Only ``student`` is exported.

Shape suffixes: B rows of a micro-batch, N valid rows, K teachers, V classes, H features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedModel

from distill.aggregation import Aggregation
from distill.objectives import Objective
from distill.objectives.divergence import kl
from distill.records import UNLABELLED, Batch, Knobs, LossOutput, Mean, Target, TeacherAnswers


class DistillModule(nn.Module):
    """L = α · c(T) · mean D(p_T, p_S) − mean bonus + (1 − α) · mean CE(y, z_S).

    The soft term is a mean over the valid rows of the whole global batch, the hard term over its
    labelled rows; each call returns its micro-batch's share, so plain sums give the global mean.
    Without teachers (``answers`` None) the loss is the cross-entropy alone.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        objective: Objective | None = None,
        aggregation: Aggregation | None = None,
        teacher_names: Sequence[str] = (),
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.student: PreTrainedModel = student
        self.objective = objective
        self.aggregation = aggregation
        self.teacher_names = tuple(teacher_names)
        self.attention: nn.Module | None = None
        if aggregation is not None:
            config: Any = student.config
            self.attention = aggregation.build(
                len(self.teacher_names), num_classes, config.hidden_size
            )

    def forward(self, batch: Batch, answers: TeacherAnswers | None, knobs: Knobs) -> LossOutput:
        logits_BV, features_BH = self._student(batch)
        valid_B = batch.valid_B
        zero = logits_BV.sum() * 0.0  # keeps the graph whole where a term has no rows
        hard, metrics = self._hard(logits_BV, batch, zero)
        alpha = knobs.alpha if answers is not None else 0.0
        loss = (1 - alpha) * hard + zero
        teacher_logp_BV = None
        if answers is not None:
            target, bonus_B = self._target(answers, features_BH, knobs.temperature)
            soft = self._soft(logits_BV, target, batch, knobs.temperature) / batch.num_valid
            loss = loss + alpha * soft
            if bonus_B is not None:
                loss = loss - bonus_B[valid_B].sum() / batch.num_valid
            metrics["kd.loss"] = Mean(soft.detach(), _share(batch))
            metrics |= self._per_teacher(logits_BV.detach(), answers, target, valid_B)
            if not self.training:
                teacher_logp_BV = self._target(answers, features_BH, 1.0)[0].logp_NV
        metrics["loss"] = Mean(loss.detach(), _share(batch))
        return LossOutput(loss, logits_BV, metrics, teacher_logp_BV)

    def _student(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        needs_features = self.attention is not None
        output = self.student(**batch.inputs(), output_hidden_states=needs_features)
        features_BH = output.hidden_states[-1][:, 0] if needs_features else None
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

    def _target(
        self, answers: TeacherAnswers, features_BH: Tensor | None, temperature: float
    ) -> tuple[Target, Tensor | None]:
        assert self.aggregation is not None
        weights = self.aggregation.weigh(answers, features_BH, self.attention)
        return self.aggregation.target(answers, weights.weights_KB, temperature), weights.bonus_B

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
            asked_B = answers.asked_KB[k] & valid_B
            logp_T_NV = log_softmax(answers.logits_KBV[k][asked_B], dim=-1)
            divergence_N = kl(logp_T_NV, logp_S_BV[asked_B])
            count = asked_B.sum().float()
            metrics[f"teacher.{name}.kl"] = Mean(divergence_N.sum(), count)
            metrics[f"teacher.{name}.weight"] = Mean(
                target.weights_KN[k][valid_B].sum(), valid_B.sum().float()
            )
        return metrics


def _share(batch: Batch) -> Tensor:
    """This micro-batch's part of the global batch; sums to 1 over micro-batches and ranks."""
    return batch.valid_B.sum() / batch.num_valid
