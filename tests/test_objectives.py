"""Each divergence against its definition, its gradient against finite differences, its promises."""

import math

import pytest
import torch
from torch.nn.functional import softmax

from distill.objectives import (
    ForwardKL,
    GeneralisedJSD,
    ReverseKL,
    TotalVariation,
    UniversalLogits,
)
from distill.objectives.divergence import Divergence
from distill.records import Target

ALL: list[Divergence] = [
    ForwardKL(),
    ReverseKL(),
    GeneralisedJSD(beta=0.3),
    TotalVariation(),
    UniversalLogits(),
]
names = pytest.mark.parametrize("objective", ALL, ids=lambda o: o.type)


def target_of(logits_NV: torch.Tensor, temperature: float) -> Target:
    logp_NV = torch.log_softmax(logits_NV / temperature, -1)
    return Target(logp_NV, torch.ones(1, len(logits_NV)))


def random_logits(seed: int, n: int = 5, v: int = 4) -> torch.Tensor:
    return 2 * torch.randn(n, v, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_values_are_the_definitions() -> None:
    z_T, z_S, temperature = random_logits(0), random_logits(1), 2.5
    p, q = softmax(z_T / temperature, -1), softmax(z_S / temperature, -1)
    target = target_of(z_T, temperature)
    m = 0.3 * p + 0.7 * q
    expected = {
        "forward_kl": (p * (p / q).log()).sum(-1),
        "reverse_kl": (q * (q / p).log()).sum(-1),
        "jsd": 0.3 * (p * (p / m).log()).sum(-1) + 0.7 * (q * (q / m).log()).sum(-1),
        "total_variation": 0.5 * (p - q).abs().sum(-1),
        "uld": (p.sort(dim=-1).values - q.sort(dim=-1).values).abs().sum(-1),
    }
    for objective in ALL:
        torch.testing.assert_close(objective(z_S, target, temperature), expected[objective.type])


@names
def test_gradient_matches_finite_differences(objective: Divergence) -> None:
    target = target_of(random_logits(0), 2.0)
    student = random_logits(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, target, 2.0), (student,))


@names
def test_teacher_equal_to_student_is_zero(objective: Divergence) -> None:
    logits = random_logits(3).float()
    value = objective(logits, target_of(logits, 3.0), 3.0)
    torch.testing.assert_close(value, torch.zeros(5), atol=1e-6, rtol=0)


# Reverse KL is infinite where the teacher rules out what the student does not.
@pytest.mark.parametrize("objective", [o for o in ALL if o.type != "reverse_kl"])
def test_a_class_ruled_out_by_the_teacher_gives_finite_values(objective: Divergence) -> None:
    z_T = torch.tensor([[5.0, 0.0, -math.inf]])
    student = torch.zeros(1, 3, requires_grad=True)
    value = objective(student, target_of(z_T, 1.0), 1.0).sum()
    value.backward()
    assert value.isfinite() and student.grad is not None and student.grad.isfinite().all()


@names
def test_scale_keeps_the_gradient_independent_of_the_temperature(objective: Divergence) -> None:
    # In the limit of a high temperature the scaled gradient no longer changes with it.
    def gradient(temperature: float) -> torch.Tensor:
        student = random_logits(1).requires_grad_()
        value = objective(student, target_of(random_logits(0), temperature), temperature).sum()
        (grad,) = torch.autograd.grad(objective.scale(temperature) * value, student)
        return grad

    torch.testing.assert_close(gradient(500.0), gradient(1000.0), rtol=0.02, atol=0.01)


def test_beta_outside_its_range_names_key_and_value() -> None:
    for beta in (0.0, 1.0, 1.4):
        with pytest.raises(ValueError, match="beta"):
            GeneralisedJSD(beta=beta)


def test_uld_knows_no_ids_and_pads_the_narrower_vocabulary() -> None:
    z_S = random_logits(1)
    permuted = target_of(z_S[:, [2, 0, 3, 1]], 2.0)
    zeros = torch.zeros(5, dtype=torch.double)
    torch.testing.assert_close(UniversalLogits()(z_S, permuted, 2.0), zeros)
    # Two tokens of the teacher's that the student cannot have: 0.2 and 0.1 against nothing.
    p_T = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.double)
    p_S = torch.tensor([[0.45, 0.55]], dtype=torch.double)
    target = Target(p_T.log(), torch.ones(1, 1))
    expected = torch.tensor([0.15 + 0.15 + 0.2 + 0.1], dtype=torch.double)
    torch.testing.assert_close(UniversalLogits()(p_S.log(), target, 1.0), expected)


@pytest.mark.parametrize("objective", [o for o in ALL if o.is_elementwise], ids=lambda o: o.type)
def test_terms_of_parts_of_the_vocabulary_sum_to_the_divergence(objective: Divergence) -> None:
    target, logp_S = target_of(random_logits(0), 2.0), torch.log_softmax(random_logits(1) / 2, -1)
    parts = [objective.terms(target.logp_NV[:, at], logp_S[:, at]) for at in ([2, 0], [3], [1])]
    found = torch.cat(parts, dim=1).sum(1)
    torch.testing.assert_close(found, objective(random_logits(1), target, 2.0))
