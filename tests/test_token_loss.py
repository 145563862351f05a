"""The fused loss of language models against the whole logits, computed independently.

Shape suffixes: N positions, H hidden, V vocabulary, K teachers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.aggregation import Aggregation, FixedWeights, OracleDomain, Uncertainty, UniformMean
from distill.aggregation.mixture import Mixture
from distill.objectives import (
    ForwardKL,
    GeneralisedJSD,
    ReverseKL,
    TotalVariation,
    UniversalLogits,
)
from distill.objectives.divergence import Divergence
from distill.objectives.fused import Chunk, fused
from distill.objectives.tokens import Reader, TokenLoss
from distill.records import Head, Knobs, Target, TeacherAnswers, TokenAnswers
from distill.teachers.wires import DenseWire, HiddenWire, WireFormat, as_tensor

N, H, V, PADDED = 13, 6, 11, 16
WHOLE = Chunk(100)
ELEMENTWISE: list[Divergence] = [
    ForwardKL(),
    ReverseKL(),
    GeneralisedJSD(beta=0.3),
    TotalVariation(),
]
by_type = pytest.mark.parametrize("objective", ELEMENTWISE, ids=lambda o: o.type)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@dataclass(frozen=True)
class Case:
    """A student with a padded head, and two teachers with heads padded otherwise."""

    objective: Divergence
    aggregation: Mixture = UniformMean()
    alpha: float = 0.7
    temperature: float = 2.0
    asked_KN: Tensor = torch.ones(2, N, dtype=torch.bool)
    wires: tuple[WireFormat, ...] = (DenseWire(dtype="float32"), HiddenWire(dtype="float32"))

    def __post_init__(self) -> None:
        assert self.asked_KN.shape == (2, N)

    @property
    def labels_N(self) -> Tensor:
        return torch.arange(N) * 7 % V

    def student(self) -> tuple[Tensor, Tensor, Tensor]:
        shapes = [(N, H), (PADDED, H), (PADDED,)]
        return tuple(drawn(i, *shape).requires_grad_() for i, shape in enumerate(shapes))

    def teachers(self) -> tuple[Tensor, list[Reader], TokenAnswers]:
        """Their logits [K, N, V] as they are, and the same as they travel."""
        said, readers, logits = [], [], []
        for k, wire in enumerate(self.wires):
            hidden_NH, head_VH = drawn(10 + k, N, H).float(), drawn(20 + k, PADDED + k, H).float()
            logits_NV = hidden_NH @ head_VH.T
            takes = hidden_NH if wire.takes == "hidden" else logits_NV
            said.append(as_tensor(wire.encode(takes[self.asked_KN[k]])))
            readers.append(Reader(wire, Head(head_VH) if wire.takes == "hidden" else None, V))
            logits.append(logits_NV[:, :V])
        return torch.stack(logits), readers, TokenAnswers(tuple(said), self.asked_KN)

    def loss(self) -> TokenLoss:
        _, readers, answers = self.teachers()
        knobs = Knobs(self.temperature, self.alpha)
        return TokenLoss(
            self.labels_N, V, knobs, answers, readers, self.aggregation, self.objective
        )


def dense(case: Case, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> Tensor:
    """All logits at once, all of autograd's own."""
    z_NV = (hidden_NH @ weight_VH.T + bias_V)[:, :V]
    kept_N = case.asked_KN.any(0)
    logits_KNV, asked_KN = case.teachers()[0][:, kept_N], case.asked_KN[:, kept_N]
    answers = TeacherAnswers(logits_KNV * asked_KN[..., None], asked_KN)
    weights_KN = case.aggregation.weigh(answers, None, None).weights_KB
    target = case.aggregation.target(answers, weights_KN, case.temperature)
    divergence_N = case.objective(z_NV[kept_N], target, case.temperature)
    soft = case.objective.scale(case.temperature) * divergence_N.sum()
    hard = cross_entropy(z_NV, case.labels_N, reduction="sum")
    return case.alpha * soft + (1 - case.alpha) * hard


def with_gradients(value: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def assert_equals_dense(case: Case, chunk: Chunk) -> None:
    inputs = case.student()
    expected = with_gradients(dense(case, *inputs), inputs)
    found = with_gradients(fused(*inputs, case.loss(), chunk, num_columns=V), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# One position, not a divisor, one more than there are; a part of the vocabulary, one column, all.
CHUNKS = [Chunk(1), Chunk(5), Chunk(N + 1), Chunk(5, 4), Chunk(N, 1), Chunk(1, V)]


@by_type
@pytest.mark.parametrize("chunk", CHUNKS, ids=str)
def test_chunked_is_dense_in_value_and_gradient(objective: Divergence, chunk: Chunk) -> None:
    assert_equals_dense(Case(objective), chunk)
