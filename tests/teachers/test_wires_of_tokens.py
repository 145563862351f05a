"""The wires of language models against what they stand for, computed independently.

Shape suffixes: P, N positions, H hidden, V vocabulary.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div, linear, log_softmax

from distill.errors import ConfigError
from distill.objectives import ForwardKL, GeneralisedJSD, ReverseKL
from distill.records import Head
from distill.wires import DenseWire, HiddenWire, SampledWire, TopKWire
from distill.wires.base import on_host
from tests.toys_language import NUM_TOKENS, llama
from tests.toys_moe import engine, request

V = 9


def drawn(seed: int, *shape: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradient(value_N: Tensor, logits_NV: Tensor) -> tuple[Tensor, Tensor]:
    return value_N.detach(), torch.autograd.grad(value_N.sum(), logits_NV)[0]


def whole_kl(teacher_NV: Tensor, student_NV: Tensor, temperature: float) -> Tensor:
    logp_T_NV = log_softmax(teacher_NV / temperature, dim=-1)
    logp_S_NV = log_softmax(student_NV / temperature, dim=-1)
    return kl_div(logp_S_NV, logp_T_NV, reduction="none", log_target=True).sum(-1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_hidden_is_dense_in_the_teachers_dtype(dtype: str) -> None:
    torch_dtype = getattr(torch, dtype)
    hidden_PH, head = drawn(0, 20, 8).to(torch_dtype), drawn(1, V, 8).to(torch_dtype)
    bias_V = drawn(2, V).to(torch_dtype)
    wire = HiddenWire().resolved(True, dtype)  # type: ignore[arg-type]
    payload_PX = wire.encode(hidden_PH)
    assert payload_PX.nbytes == hidden_PH.nbytes
    found = wire.logits(payload_PX, Head(head, bias_V))
    assert torch.equal(found, linear(hidden_PH, head, bias_V).float())
    part = wire.logits(payload_PX, Head(head, bias_V), slice(2, 5))
    # Another order of summation: half a unit in the last place of the product's dtype.
    torch.testing.assert_close(
        part, found[:, 2:5], rtol=2 * torch.finfo(torch_dtype).eps, atol=1e-6
    )


def test_a_wire_takes_the_dtype_that_it_was_not_given_from_the_task_or_the_teacher() -> None:
    assert HiddenWire().resolved(True, "bfloat16").name == "hidden/bfloat16"
    assert HiddenWire(dtype="float32").resolved(True, "bfloat16").name == "hidden/float32"
    assert DenseWire().resolved(True, "float32").name == "dense/bfloat16"
    assert DenseWire().resolved(False, "bfloat16").name == "dense/float32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_columns_of_dense_are_those_of_the_whole(dtype: str) -> None:
    wire = DenseWire(dtype=dtype)  # type: ignore[arg-type]
    payload_PX = wire.encode(drawn(0, 4, V))
    part, whole = wire.logits(payload_PX, None, slice(3, 8)), wire.logits(payload_PX, None)
    assert torch.equal(part, whole[:, 3:8])


def bucketed_kl(teacher_NV: Tensor, student_NV: Tensor, k: int, temperature: float) -> Tensor:
    """KL between k + 1 outcomes, from probabilities, position by position, in float64."""
    p_T_NV = (teacher_NV.double() / temperature).softmax(-1)
    p_S_NV = (student_NV.double() / temperature).softmax(-1)
    total_N = []
    for p_T, p_S in zip(p_T_NV, p_S_NV, strict=True):
        order = sorted(range(len(p_T)), key=lambda v, p=p_T: -float(p[v]))
        kept, rest = order[:k], order[k:]
        buckets_T = torch.stack([*p_T[kept], p_T[rest].sum()])
        buckets_S = torch.stack([*p_S[kept], p_S[rest].sum()])
        total_N.append((buckets_T * (buckets_T / buckets_S).log()).sum())
    return torch.stack(total_N)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 4, 5, V - 1])
def test_topk_is_the_analytic_bucketed_kl(k: int, temperature: float) -> None:
    # Sixteenths: exact in float16, so that the two compute from the same numbers.
    teacher_NV = (drawn(0, 6, V) * 16).round() / 16 + torch.arange(V) / 256
    student_NV = drawn(1, 6, V).requires_grad_()
    wire = TopKWire(k=k, temperatures=(2.0, 1.0))
    payload_NX = wire.encode(teacher_NV)
    found = with_gradient(wire.forward_kl(payload_NX, student_NV, temperature), student_NV)
    expected = with_gradient(bucketed_kl(teacher_NV, student_NV, k, temperature), student_NV)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, check_dtype=False)
    whole_N = whole_kl(teacher_NV, student_NV, temperature)
    assert (
        found[0] <= whole_N + 1e-6
    ).all()  # merging outcomes loses some of what tells them apart


@pytest.mark.parametrize("k", [V, 1000])
def test_topk_of_everything_is_the_whole_kl(k: int) -> None:
    teacher_NV = (drawn(0, 6, V) * 16).round() / 16
    student_NV = drawn(1, 6, V).requires_grad_()
    wire = TopKWire(k=k)
    payload_NX = wire.encode(teacher_NV)
    for temperature in wire.temperatures:
        found = with_gradient(wire.forward_kl(payload_NX, student_NV, temperature), student_NV)
        expected = with_gradient(whole_kl(teacher_NV, student_NV, temperature), student_NV)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_topk_is_right_where_the_tails_are_tiny() -> None:
    """Of 1 − Σ p float32 keeps nothing below 6e-8; here the student's tail has 1e-10."""
    teacher_NV = torch.tensor([[30.0, 29.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 24.0, -1.0]])
    student_NV = torch.tensor([[25.0, 26.0, 0.5, 1.0, 2.0], [30.0, 1.0, 2.0, 32.0, 3.0]])
    student_NV.requires_grad_()
    wire = TopKWire(k=2, temperatures=(1.0,))
    payload_NX = wire.encode(teacher_NV)
    value, gradient = with_gradient(wire.forward_kl(payload_NX, student_NV, 1.0), student_NV)
    exact_NV = student_NV.detach().double().requires_grad_()
    expected_value, expected = with_gradient(bucketed_kl(teacher_NV, exact_NV, 2, 1.0), exact_NV)
    # Logits of 32 are themselves 4e-6 apart in float32.
    torch.testing.assert_close(value.double(), expected_value, rtol=0, atol=4e-6)
    # Relative, also of those that are 1e-10.
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-14)


def test_topk_of_teachers_that_rule_tokens_out_is_finite() -> None:
    teacher_NV = torch.full((1, V), -torch.inf)
    teacher_NV[0, 3] = 1.0
    student_NV = drawn(1, 1, V).requires_grad_()
    for k in (1, 4, V):
        wire = TopKWire(k=k)
        value = wire.forward_kl(wire.encode(teacher_NV), student_NV, 2.0)
        found = with_gradient(value, student_NV)
        expected = with_gradient(-log_softmax(student_NV / 2, dim=-1)[:, 3], student_NV)
        torch.testing.assert_close(found, expected)


def test_bytes_of_a_position_are_as_documented() -> None:
    logits_PV = drawn(0, 3, 200)
    assert TopKWire(k=64).encode(logits_PV).shape == (3, 384 + 4 * 3)
    assert TopKWire(k=3, temperatures=(1.0,)).encode(logits_PV).shape == (3, 3 * 6 + 4 + 2)
    assert SampledWire().encode(logits_PV, np.arange(3)).shape == (3, 72 + 4)
    assert SampledWire(num_samples=5).encode(logits_PV, np.arange(3)).shape == (3, 30 + 4 + 2)


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_sampled_value_and_gradient_are_unbiased(exponent: float) -> None:
    num_positions, num_draws = 4, 2000
    wire = SampledWire(num_samples=7, temperature=2.0, exponent=exponent)
    teacher_NV, student_NV = drawn(0, num_positions, V), drawn(1, num_positions, V)
    seeds_P = np.arange(num_positions * num_draws)
    payload_PX = wire.encode(teacher_NV.repeat(num_draws, 1), seeds_P)
    student_PV = student_NV.repeat(num_draws, 1).requires_grad_()
    found = with_gradient(wire.forward_kl(payload_PX, student_PV, 2.0), student_PV)
    student_NV.requires_grad_()
    expected = with_gradient(whole_kl(teacher_NV, student_NV, 2.0), student_NV)
    for drawn_P, exact_N in zip(found, expected, strict=True):
        draws_DN = drawn_P.reshape(num_draws, *exact_N.shape)
        error_N = draws_DN.std(0) / num_draws**0.5
        assert ((draws_DN.mean(0) - exact_N).abs() <= 4 * error_N).all()
        assert error_N.norm() < 0.05 * exact_N.norm()  # so the bound can be missed


def test_samples_depend_on_the_position_and_the_two_seeds_alone() -> None:
    logits_PV, seeds_P = drawn(0, 150, V), np.arange(150) + 2**40
    whole = SampledWire().encode(logits_PV, seeds_P)
    order = np.random.default_rng(0).permutation(150)[:70]
    assert (SampledWire().encode(logits_PV[order], seeds_P[order]) == whole[order]).all()
    ids_PS = whole[:, :48]
    for other in (
        SampledWire().encode(logits_PV, seeds_P + 1),
        SampledWire(seed=1).encode(logits_PV, seeds_P),
    ):
        assert (ids_PS != other[:, :48]).any(1).float().mean() > 0.9


@pytest.mark.parametrize("wire", [DenseWire(dtype="bfloat16"), TopKWire(k=3), SampledWire()])
def test_an_answer_about_no_position_has_something_to_carry(
    wire: DenseWire | TopKWire | SampledWire,
) -> None:
    teacher, asked = engine(llama(0)), request(wire=wire)
    whole = teacher.answer(asked)
    assert np.array_equal(on_host(teacher.call_on_device(asked)).payload, whole.payload)
    assert asked.targets_BT is not None
    nothing = replace(asked, targets_BT=np.zeros_like(asked.targets_BT))
    output = teacher.call_on_device(nothing)
    assert len(output.payload_PX) == 1
    assert teacher.answer(nothing).payload.shape == (0, whole.payload.shape[1])
    nothing.check(on_host(output), NUM_TOKENS)


def test_what_a_wire_cannot_serve_is_refused_with_the_reason() -> None:
    key = "teachers.0.wire"
    for wire in (DenseWire(), HiddenWire()):
        wire.check(key, ReverseKL(), [3.3])
    topk, sampled = TopKWire(temperatures=(1.0, 2.0)), SampledWire(temperature=2.0)
    topk.check(key, ForwardKL(), [2.0, 1.0])
    sampled.check(key, ForwardKL(), [2.0])
    with pytest.raises(ConfigError, match=r"teachers.0.wire.*'reverse_kl'.*unstable.*forward_kl"):
        topk.check(key, ReverseKL(), [1.0])
    with pytest.raises(ConfigError, match=r"teachers.0.wire.*'jsd'.*unbiased.*forward_kl"):
        sampled.check(key, GeneralisedJSD(), [2.0])
    with pytest.raises(ConfigError, match=r"wire.temperatures \[1.0, 2.0\].*temperature 3"):
        topk.check(key, ForwardKL(), [2.0, 3.0])
    with pytest.raises(ConfigError, match=r"wire.temperature is 2.*trained at 4"):
        sampled.check(key, ForwardKL(), [2.0, 4.0])
    with pytest.raises(ValueError, match=r"temperatures.*above 0.*0.0"):
        TopKWire(temperatures=(1.0, 0.0))
