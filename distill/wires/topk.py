"""The k largest logits, and what is left of the mass at each temperature of a grid.

Shape suffixes: P, N positions, X a position's bytes, V vocabulary, K kept, G temperatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from distill.errors import ConfigError
from distill.objectives import ForwardKL, Objective
from distill.objectives.divergence import kl_terms
from distill.objectives.log_softmax import logsumexp
from distill.wires.base import (
    WireFormat,
    as_tensor,
    bytes_fault,
    entries_fault,
    not_forward,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch

ROWS_AT_ONCE = 8
"""Positions encoded together: the copies of their logits stay within a CPU's caches."""


class TopKWire(WireFormat):
    """The forward KL over k + 1 outcomes, the last of which is the tail.

    Σ_k p_T log(p_T / p_S) + p_T,tail log(p_T,tail / p_S,tail), a lower bound of the KL, and equal
    to it at k = V. A position takes 6 bytes per kept logit (id int32, z − z_max float16) and 4 per
    temperature: the tail's log-sum-exp of (z − z_max) / T, float32 [ours: of the tail alone, which
    is free of the cancellation of 1 − Σ_k p_T; the normaliser is its sum with that of the kept].
    """

    is_exact: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("language_model",)
    type: Literal["topk"] = "topk"
    k: int = Field(default=64, ge=1)
    """Number of logits sent for each position."""
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0)
    """The temperatures at which the outputs can be used."""

    @field_validator("temperatures")
    @classmethod
    def _usable(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        if not temperatures or min(temperatures) <= 0:
            raise ValueError(
                f"wire.temperatures must be one or more numbers above 0, got {temperatures}"
            )
        return temperatures

    @property
    def name(self) -> str:
        return f"topk/{self.k}/{','.join(f'{t:g}' for t in self.temperatures)}"

    def check(self, key: str, objective: Objective, temperatures: Sequence[float]) -> None:
        if not isinstance(objective.at_tokens(), ForwardKL):
            raise ConfigError(
                f"{key}: topk cannot serve {not_forward(objective)}: only the total "
                "probability of the teacher's tail is sent, but this divergence depends on the "
                "single probabilities in the tail (reverse KL on a truncated target is unstable): "
                "use forward_kl, or the wire hidden or dense"
            )
        for temperature in temperatures:
            if temperature not in self.temperatures:
                raise ConfigError(
                    f"{key}.temperatures {list(self.temperatures)} does not contain the "
                    f"temperature {temperature:g} at which the student is trained, and the tail is "
                    "sent only at those: add it, or use one of them"
                )

    def fault(self, payload: np.ndarray, num_positions: int, num_columns: int) -> str | None:
        num_kept, num_tails = min(self.k, num_columns), len(self.temperatures)
        width = 4 * (num_kept + num_tails) + 2 * (num_kept + num_kept % 2)
        if fault := bytes_fault(payload, (num_positions, width)):
            return fault
        parts = [self._read(as_tensor(payload), t) for t in self.temperatures]
        if any(tail_N.isnan().any() or (tail_N == torch.inf).any() for _, _, tail_N in parts):
            return "holds NaN or infinity"
        return entries_fault(*parts[0][:2], num_columns)

    def encode(self, payload_PX: Tensor, seeds_P: np.ndarray | None = None) -> Tensor:
        """uint8 [P, X]: ids int32 [K], tails float32 [G], values float16 [K], filled up to 4."""
        blocks = [self._encoded(logits_NV) for logits_NV in payload_PX.detach().split(ROWS_AT_ONCE)]
        return torch.cat(blocks)

    def _encoded(self, logits_NV: Tensor) -> Tensor:
        num_columns = logits_NV.shape[1]
        kept = logits_NV.float().topk(min(self.k, num_columns), dim=1)
        largest_N1 = kept.values[:, :1]
        tail_NV = logits_NV.float().scatter(1, kept.indices, -torch.inf)
        # Nothing in the tail is above the last that is kept.
        last_N1 = kept.values[:, -1:].clamp(min=torch.finfo(torch.float32).min)
        tail_NV.sub_(last_N1)
        tails_NG = torch.cat(
            [
                (tail_NV / t).exp_().sum(1, keepdim=True, dtype=torch.float64).log()
                + (last_N1 - largest_N1) / t
                for t in self.temperatures
            ],
            dim=1,
        ).float()
        values_NK = (kept.values - largest_N1).half()
        parts = [kept.indices.int(), tails_NG, values_NK]
        if values_NK.shape[1] % 2:
            parts.append(torch.zeros_like(values_NK[:, :1]))  # rows stay aligned to 4 bytes
        return torch.cat([part.contiguous().view(torch.uint8) for part in parts], 1)

    def forward_kl(
        self, payload_NX: Tensor, student_logits_NV: Tensor, temperature: float
    ) -> Tensor:
        ids_NK, values_NK, tail_N = self._read(payload_NX, temperature)
        scaled_NK = values_NK / temperature
        lse_N = torch.logaddexp(scaled_NK.logsumexp(1), tail_N)
        student_NV = student_logits_NV / temperature
        student_NK = student_NV.gather(1, ids_NK)
        if ids_NK.shape[1] == student_NV.shape[1]:
            student_lse_N1 = student_NK.logsumexp(1, keepdim=True)
            return kl_terms(scaled_NK - lse_N[:, None], student_NK - student_lse_N1).sum(1)
        # Of the tail's own logits, not 1 − Σ p_S: right in value and gradient where it is tiny.
        student_tail_N = logsumexp(student_NV.scatter(1, ids_NK, -torch.inf))[:, 0]
        student_lse_N = torch.logaddexp(student_NK.logsumexp(1), student_tail_N)
        kept_NK = kl_terms(scaled_NK - lse_N[:, None], student_NK - student_lse_N[:, None])
        return kept_NK.sum(1) + kl_terms(tail_N - lse_N, student_tail_N - student_lse_N)

    def _read(self, payload_NX: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """int64 ids, float32 values and float32 tails at ``temperature``; views of the bytes."""
        num_tails = len(self.temperatures)
        num_kept = (payload_NX.shape[1] - 4 * num_tails) // 6
        tails_at, values_at = 4 * num_kept, 4 * (num_kept + num_tails)
        ids_NK = payload_NX[:, :tails_at].view(torch.int32).long()
        tails_NG = payload_NX[:, tails_at:values_at].view(torch.float32)
        values_NK = payload_NX[:, values_at : values_at + 2 * num_kept].view(torch.float16)
        return ids_NK, values_NK.float(), tails_NG[:, self.temperatures.index(temperature)]
