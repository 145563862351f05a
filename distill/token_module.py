"""Everything trainable of a language-model student as one module whose forward returns the loss.

As :mod:`distill.module` for classifiers, but no [N, V] exists: the student's output layer takes the
loss with the hidden states, and looks at a few positions at a time (objectives/fused.py).

Shape suffixes: B rows of a micro-batch, T tokens, P and N its positions, K teachers, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.aggregation import Aggregation
from distill.models.decoder import base_of, head_of, plain
from distill.objectives import Objective
from distill.objectives.fused import FusedHead
from distill.objectives.tokens import Reader, TokenLoss
from distill.records import Answers, Batch, Head, Knobs, LossOutput, Mean, TokenAnswers
from distill.teachers.wires import WireFormat


class TokenModule(nn.Module):
    """L = α · c(T) · mean D(p_T, p_S) + (1 − α) · mean CE(x_{t+1}, z_S).

    Both are means over the positions of the whole global batch; each call returns its
    micro-batch's share. Without teachers (``answers`` None) the loss is the cross-entropy alone.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        num_tokens: int,
        objective: Objective | None = None,
        aggregation: Aggregation | None = None,
        wires: Mapping[str, WireFormat] | None = None,
        widths: Mapping[str, int] | None = None,
        loss_chunk_mb: float = 256.0,
        passes: Mapping[str, int] | None = None,
    ) -> None:
        """``num_tokens``: columns that count, of the student; ``widths``: of each teacher, by name,
        like ``wires``. Wider heads are padded ones. ``passes``: answers of each teacher about each
        position, where there are several."""
        super().__init__()
        plain(student).set_output_embeddings(FusedHead.of(head_of(student)))
        self.student: PreTrainedModel = student
        self.num_tokens = num_tokens
        self.objective = objective
        self.aggregation = aggregation
        self.loss_chunk_mb = loss_chunk_mb
        self.wires = dict(wires or {})
        self._widths = dict(widths or {})
        self._passes = dict(passes or {})
        self.take_heads({}, "cpu")

    def take_heads(self, heads: Mapping[str, Head], device: torch.device | str) -> None:
        """The output layers of teachers that send hidden states. No parameters of this module."""
        self._readers = [
            Reader(
                wire,
                heads[name].to(device) if name in heads else None,
                self._widths[name],
                self._passes.get(name, 1),
            )
            for name, wire in self.wires.items()
        ]

    def forward(self, batch: Batch, answers: Answers | None, knobs: Knobs) -> LossOutput:
        assert answers is None or isinstance(answers, TokenAnswers)
        hidden_NH, labels_N = self.positions(batch)
        loss = TokenLoss(
            labels_N,
            self.num_tokens,
            knobs,
            answers,
            self._readers if answers is not None else (),
            self.aggregation,
            self.objective,
        )
        head: Any = head_of(self.student)
        chunk = loss.chunk(self.loss_chunk_mb)
        total = head(hidden_NH, loss, chunk, self.num_tokens) / max(1, batch.num_valid)
        has_teachers = answers is not None and bool(self._readers)
        return LossOutput(total, None, self._metrics(total, loss, batch, has_teachers))

    def positions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The student's hidden states [N, H] at the batch's positions, and the next tokens [N]."""
        hidden_BTH = base_of(self.student)(**batch.inputs(), use_cache=False).last_hidden_state
        return hidden_BTH[batch.targets_BT], labels_at(batch)

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
            for name, weight in zip(self.wires, sums.weights_K, strict=True):
                metrics[f"teacher.{name}.weight"] = Mean(weight, sums.num_answered)
        return metrics


def labels_at(batch: Batch) -> Tensor:
    """The next tokens [N] at the batch's positions."""
    assert batch.input_ids_BT is not None and batch.targets_BT is not None
    labels_BT = batch.input_ids_BT.roll(-1, dims=1)  # the last token of a row is no position
    return labels_BT[batch.targets_BT]
