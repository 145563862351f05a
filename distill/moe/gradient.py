"""How a student-aware router's gates should change: step (2) of SAR (arXiv 2502.12947).

L_R = mean over positions of KL(p_T ‖ p_S) + β · (CV²(importance) + CV²(load)), an expert's
importance being the sum of its weights over tokens, its load the number of tokens with a weight
above 0 (Shazeer et al. 2017, as its common code counts where no expert is left out). With all
experts active every load is the number of tokens, so that CV²(load) is 0 and nothing is computed of
it. CV² = variance (unbiased) / mean², + 1e-10 below.

[ours] KL and importance are over the positions requested, not over prompts and padding. Layers
are averaged, so that β means the same in a deep model. CV² is not a sum over tokens: it is that of
each forward, weighted by its positions, and so depends a little on how rows are cut into forwards
(a request is cut alike wherever it is answered).

Shape suffixes: M passes (1), B rows, T tokens, P positions of a forward, m those of a block, V
columns, H hidden, L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill.config.moe import StudentAwareRouter
from distill.moe.gates import ExpertRouting
from distill.objectives.divergence import kl
from distill.objectives.log_softmax import log_softmax_at


class Share(NamedTuple):
    """Of a forward; see distill.records.GateGradient."""

    gradient_G: Tensor  # float32, on the CPU
    kl_sum: float
    balance_sum: float


def cv_squared(amounts_E: Tensor) -> Tensor:
    """The square of the coefficient of variation; 0 of one expert."""
    if len(amounts_E) == 1:
        return torch.zeros_like(amounts_E[0])
    return amounts_E.var() / (amounts_E.mean() ** 2 + 1e-10)


@torch.enable_grad()
def gate_gradient(
    routing: ExpertRouting,
    moe: StudentAwareRouter,
    forward: Callable[[], Tensor],
    logits_of: Callable[[Tensor], Tensor],
    student_PV: Tensor,
    seeds_MBT: Tensor,
    targets_BT: Tensor,
    temperature: float = 1.0,
    block: int = 512,
) -> Share:
    """``forward()``: what ``logits_of`` makes logits [m, V] of, at all positions. ``block``:
    positions whose logits are alive at once. Leaves no gradients behind."""
    trained = _only_these(routing)
    try:
        with routing.asking(moe, seeds_MBT, targets_BT, is_noisy=moe.noise) as now:
            payload_PX = forward()
            importance_LE = list(now.importance_LE)
        slope_PX, kl_sum = _by_position(payload_PX, logits_of, student_PV, temperature, block)
        balance = _balance(importance_LE, moe.balance) * len(payload_PX)
        outputs, slopes = [payload_PX], [slope_PX]
        if balance.requires_grad:
            outputs.append(balance)
            slopes.append(torch.ones_like(balance))
        found = torch.autograd.grad(outputs, trained, slopes, allow_unused=True)
    finally:
        for parameter in trained:
            parameter.requires_grad_(False)
    flat = [
        (torch.zeros_like(p) if slope is None else slope).flatten().float().cpu()
        for p, slope in zip(trained, found, strict=True)
    ]
    return Share(torch.cat(flat), kl_sum, float(balance.detach()))


def _only_these(routing: ExpertRouting) -> list[Any]:
    """The gates' parameters, which alone require a gradient now."""
    for parameter in routing.model.parameters():
        parameter.requires_grad_(False)
    trained = routing.parameters
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained


def _balance(importance_LE: Sequence[Tensor], beta: float) -> Tensor:
    return beta * torch.stack([cv_squared(amounts_E) for amounts_E in importance_LE]).mean()


def _by_position(
    payload_PX: Tensor,
    logits_of: Callable[[Tensor], Tensor],
    student_PV: Tensor,
    temperature: float,
    block: int,
) -> tuple[Tensor, float]:
    """The gradient of Σ KL with respect to the output, and the sum; [P, V] is never whole."""
    slopes, total = [], 0.0
    for payload_mX, student_mV in zip(
        payload_PX.detach().split(block), student_PV.split(block), strict=True
    ):
        payload_mX.requires_grad_(True)
        logp_T_mV = log_softmax_at(logits_of(payload_mX).float(), temperature)
        logp_S_mV = log_softmax_at(student_mV.to(payload_mX.device), temperature)
        kl_sum = kl(logp_T_mV, logp_S_mV).sum()
        slopes.append(torch.autograd.grad(kl_sum, payload_mX)[0])
        total += float(kl_sum.detach())
    return torch.cat(slopes), total
