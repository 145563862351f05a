"""A few random tokens of each position, unbiased for the forward KL (arXiv 2503.16870).

Shape suffixes: P, N positions, X a position's bytes, V vocabulary, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from distill.errors import ConfigError
from distill.objectives import ForwardKL, Objective
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


class SampledWire(WireFormat):
    """n ids drawn with replacement from q ∝ p^exponent, each with the weight p / (n·q).

    KL(p ‖ p_S) = Σ p log p − Σ p log p_S: the first sum is sent, the second and its gradient are
    estimated from the samples without bias. A position takes 6 bytes per sample (id int32; p / q
    float16, which is 1 at exponent 1) and a float32.
    """

    is_exact: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("language_model",)
    type: Literal["sampled"] = "sampled"
    num_samples: int = Field(default=12, ge=1)
    """n: number of samples for each position."""
    exponent: float = Field(default=1.0, ge=0.1, le=1)
    """t in q ∝ p^t: below 1, rare tokens are drawn more often, with smaller weights. (Above 1, the
    weights p / q and their variance are unbounded.)"""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of p; the outputs can be used only at this temperature."""
    seed: int = Field(default=0, ge=0)

    @property
    def name(self) -> str:
        return f"sampled/{self.num_samples}/{self.exponent:g}/{self.temperature:g}/{self.seed}"

    def check(self, key: str, objective: Objective, temperatures: Sequence[float]) -> None:
        if not isinstance(objective.at_tokens(), ForwardKL):
            raise ConfigError(
                f"{key}: sampled cannot serve {not_forward(objective)}: only what is "
                "linear in the teacher's probabilities has an unbiased estimate from samples, and "
                "this divergence needs them inside a logarithm, an absolute value or the "
                "student's expectation: use forward_kl, or the wire hidden or dense"
            )
        for temperature in temperatures:
            if temperature != self.temperature:
                raise ConfigError(
                    f"{key}.temperature is {self.temperature:g}, which the samples are drawn at, "
                    f"but the student is trained at {temperature:g}: make them equal"
                )

    def fault(self, payload: np.ndarray, num_positions: int, num_columns: int) -> str | None:
        num = self.num_samples
        if fault := bytes_fault(payload, (num_positions, 4 * num + 4 + 2 * (num + num % 2))):
            return fault
        ids_NS, negentropy_N1, weights_NS = self._read(as_tensor(payload))
        return entries_fault(ids_NS, weights_NS + negentropy_N1, num_columns)

    def _read(self, payload_NX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """int64 ids [N, S], float32 Σ p log p [N, 1] and p / q [N, S]; views of the bytes."""
        num = self.num_samples
        ids_NS = payload_NX[:, : 4 * num].view(torch.int32).long()
        negentropy_N1 = payload_NX[:, 4 * num : 4 * num + 4].view(torch.float32)
        return (
            ids_NS,
            negentropy_N1,
            payload_NX[:, 4 * num + 4 : 6 * num + 4].view(torch.float16).float(),
        )

    def encode(self, payload_PX: Tensor, seeds_P: np.ndarray | None = None) -> Tensor:
        """uint8 [P, X]: ids int32 [S], Σ p log p float32, p / q float16 [S], filled up to 4.

        The bytes of a position depend on its logits, its seed and the wire's alone: by inverse
        transform of uniforms that a counter-based generator (Philox) makes from the two seeds.
        """
        assert seeds_P is not None
        uniforms_PS = torch.from_numpy(self._uniforms(seeds_P))
        blocks = [
            self._encoded(logits_NV, uniforms_NS)
            for logits_NV, uniforms_NS in zip(
                payload_PX.detach().split(ROWS_AT_ONCE),
                uniforms_PS.split(ROWS_AT_ONCE),
                strict=True,
            )
        ]
        return torch.cat(blocks)

    def _uniforms(self, seeds_P: np.ndarray) -> np.ndarray:
        """float64 [P, S] in [0, 1)."""
        keys_P2 = np.stack([seeds_P.astype(np.uint64), np.full(len(seeds_P), self.seed)], 1)
        drawn = [
            np.random.Generator(np.random.Philox(key=key)).random(self.num_samples)
            for key in keys_P2.astype(np.uint64)
        ]
        return np.array(drawn).reshape(len(seeds_P), self.num_samples)

    def _encoded(self, logits_NV: Tensor, uniforms_NS: Tensor) -> Tensor:
        # Terms are float32, their sums float64: a term's rounding is not in the others' way.
        scaled_NV = (logits_NV.float() - logits_NV.amax(1, keepdim=True)).div_(self.temperature)
        p_NV = scaled_NV.exp()
        norm_N1 = p_NV.sum(1, keepdim=True, dtype=torch.float64)
        moment_N1 = (p_NV * scaled_NV).sum(1, keepdim=True, dtype=torch.float64)
        negentropy_N1 = moment_N1 / norm_N1 - norm_N1.log()
        q_NV = p_NV if self.exponent == 1 else (self.exponent * scaled_NV).exp_()
        cdf_NV = q_NV.cumsum(1, dtype=torch.float64)
        # Its own last value in place of 1: rounding can leave it below a uniform.
        points_NS = uniforms_NS.to(cdf_NV.device) * cdf_NV[:, -1:]
        ids_NS = torch.searchsorted(cdf_NV, points_NS, right=True)
        log_q_NS = self.exponent * scaled_NV.gather(1, ids_NS) - cdf_NV[:, -1:].log()
        weights_NS = (scaled_NV.gather(1, ids_NS) - norm_N1.log() - log_q_NS).exp().half()
        parts = [ids_NS.int(), negentropy_N1.float(), weights_NS]
        if self.num_samples % 2:
            parts.append(torch.zeros_like(weights_NS[:, :1]))  # rows stay aligned to 4 bytes
        return torch.cat([part.contiguous().view(torch.uint8) for part in parts], 1)

    def forward_kl(
        self, payload_NX: Tensor, student_logits_NV: Tensor, temperature: float
    ) -> Tensor:
        assert temperature == self.temperature
        ids_NS, negentropy_N1, weights_NS = self._read(payload_NX)
        student_NV = student_logits_NV / temperature
        logp_S_NS = student_NV.gather(1, ids_NS) - student_NV.logsumexp(1, keepdim=True)
        return negentropy_N1[:, 0] - (weights_NS * logp_S_NS).sum(1) / self.num_samples
