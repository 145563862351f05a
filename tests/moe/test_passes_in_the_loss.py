"""L = Σ_k w_k (1/M_k) Σ_m D(p_k^m, p_S): teachers side by side, and each one's passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from distill.aggregation import FixedWeights, Uncertainty
from distill.errors import ConfigError
from distill.objectives import ForwardKL, Objective, ReverseKL
from distill.records import Head, ScheduleValues, Target, TokenAnswers
from distill.training.fused import Chunk, FusedHead
from distill.training.token_loss import Reader, TokenLoss
from distill.wires import DenseWire, HiddenWire, SampledWire, TopKWire, WireFormat
from distill.wires.legality import check_mixing

N, H, V = 11, 6, 17
DENSE = DenseWire(dtype="float32")
DIVERGENCES = FixedWeights(weights=(0.3, 0.7), mix="divergences")
LABELS_N = torch.arange(N) % V


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def found(
    readers: list[Reader],
    answers: TokenAnswers,
    aggregation: FixedWeights,
    objective: Objective,
    chunk: int = 4,
) -> list[Tensor]:
    """The loss of a student and its gradient by the student's hidden states and head."""
    hidden_NH = drawn(0, N, H).requires_grad_()
    head = FusedHead.of(torch.nn.Linear(H, V, bias=False))
    with torch.no_grad():
        head.weight.copy_(drawn(1, V, H))
    loss = TokenLoss(
        LABELS_N, V, ScheduleValues(2.0, 0.8), answers, readers, aggregation, objective
    )
    value = head(hidden_NH, loss, Chunk(chunk), V)
    return [value.detach(), *torch.autograd.grad(value, (hidden_NH, head.weight))]


def payload(wire: WireFormat, seed: int, asked_N: Tensor) -> Tensor:
    payload_NX = drawn(seed, N, H) if wire.takes == "hidden" else 2 * drawn(seed, N, V)
    seeds = torch.arange(N)[asked_N].numpy()
    return wire.encode(payload_NX[asked_N], seeds)


@pytest.mark.parametrize(
    "wire",
    [DENSE, HiddenWire(dtype="bfloat16"), TopKWire(k=5), SampledWire(num_samples=5, temperature=2)],
)
def test_passes_are_teachers_that_share_one_teachers_weight(wire: WireFormat) -> None:
    """Also where teachers are asked about some positions, and chunks cut them anyhow."""
    queried_KN = torch.stack([torch.arange(N) % 3 != 0, torch.arange(N) > 4])
    first, second = (payload(wire, seed, queried_KN[0]) for seed in (5, 6))
    other = payload(DENSE, 7, queried_KN[1])
    head = Head(drawn(8, V, H)) if wire.takes == "hidden" else None
    ours = found(
        [Reader(wire, head, V, num_passes=2), Reader(DENSE, None, V)],
        TokenAnswers((torch.cat([first, second], 1), other), queried_KN),
        DIVERGENCES,
        ForwardKL(),
    )
    expected = found(
        [Reader(wire, head, V), Reader(wire, head, V), Reader(DENSE, None, V)],
        TokenAnswers((first, second, other), queried_KN[[0, 0, 1]]),
        FixedWeights(weights=(0.15, 0.15, 0.7), mix="divergences"),
        ForwardKL(),
    )
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert float(ours[0]) > 0.1


@pytest.mark.parametrize("objective", [ForwardKL(), ReverseKL()])
def test_divergences_of_exact_wires_are_those_of_each_teacher(objective: Objective) -> None:
    queried_KN = torch.ones(2, N, dtype=torch.bool)
    payloads = [payload(DENSE, seed, queried_KN[0]) for seed in (5, 6)]
    readers = [Reader(DENSE, None, V)] * 2
    ours = found(readers, TokenAnswers(tuple(payloads), queried_KN), DIVERGENCES, objective)
    hidden_NH, weight_VH = drawn(0, N, H).requires_grad_(), drawn(1, V, H).requires_grad_()
    z_NV = hidden_NH @ weight_VH.T
    soft = torch.zeros(())
    for weight, said_NV in zip((0.3, 0.7), payloads, strict=True):
        target = Target(log_softmax(said_NV / 2, 1), torch.ones(1, N))
        soft = soft + weight * 4 * objective(z_NV, target, 2.0).sum()
    hard = torch.nn.functional.cross_entropy(z_NV, LABELS_N, reduction="sum")
    value = 0.8 * soft + 0.2 * hard
    expected = [value.detach(), *torch.autograd.grad(value, (hidden_NH, weight_VH))]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)
    mixed = found(
        readers,
        TokenAnswers(tuple(payloads), queried_KN),
        FixedWeights(weights=(0.3, 0.7), mix="probabilities"),
        objective,
    )
    assert not torch.allclose(mixed[0], ours[0], rtol=1e-3)


def test_weights_by_the_logits_side_by_side_are_refused() -> None:
    check_mixing(DIVERGENCES, [DENSE, TopKWire()], ForwardKL())
    with pytest.raises(ConfigError, match=r"'uncertainty' .* divergences compares the student"):
        check_mixing(Uncertainty(mix="divergences"), [DENSE], ForwardKL())
