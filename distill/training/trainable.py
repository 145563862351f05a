"""What every trainable module is to the loop, whatever it is trained for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from distill.records import Answers, Batch, Head, LossOutput, ScheduleValues


class Trainable(nn.Module):
    """A student with its loss. Only ``student`` is exported."""

    student: PreTrainedModel
    router: nn.Module | None
    """The network of an aggregation that trains its own weights."""

    def forward(
        self, batch: Batch, answers: Answers | None, schedule_values: ScheduleValues
    ) -> LossOutput:
        """The share of this micro-batch in the loss of the global batch, and its metrics."""
        raise NotImplementedError

    def take_heads(self, heads: Mapping[str, Head], device: torch.device | str) -> None:
        """The output layers of teachers that send hidden states, before the first batch. Called
        only where there are such teachers."""
        raise NotImplementedError
