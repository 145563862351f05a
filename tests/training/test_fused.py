"""What the fused head and loss promise, whatever the loss.

Shape suffixes: N positions, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, log_softmax
from transformers import LlamaConfig, LlamaForCausalLM

from distill.records import ScheduleValues
from distill.training.fused import BlockLoss, Chunk, FusedHead, fused
from distill.training.token_loss import TokenLoss

N, H, V = 9, 5, 8


class OfPositions:
    """Any loss that is a sum over positions; remembers whether gradients were to be taken."""

    def __init__(self, of: Callable[[Tensor, slice], Tensor]) -> None:
        self._of = of
        self.took_gradients: list[bool] = []

    def of_chunk(self, rows: slice) -> BlockLoss:
        def loss(logits_mV: Tensor, block: slice) -> Tensor:
            self.took_gradients.append(torch.is_grad_enabled())
            return self._of(logits_mV, slice(rows.start + block.start, rows.start + block.stop))

        return loss

    def of_columns(self, rows, logits_of, columns):
        raise NotImplementedError


def entropies() -> OfPositions:
    """A loss with second derivatives, another one at each position."""
    scale_N = torch.linspace(0.5, 2, N, dtype=torch.double)

    def of(logits_mV: Tensor, at: slice) -> Tensor:
        logp_mV = log_softmax(logits_mV * scale_N[at, None].to(logits_mV.dtype), dim=-1)
        return -(logp_mV.exp() * logp_mV).sum()

    return OfPositions(of)


def inputs(dtype: torch.dtype = torch.double) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(N, H, generator=generator, dtype=torch.double)
    weight_VH = torch.randn(V, H, generator=generator, dtype=torch.double)
    bias_V = torch.randn(V, generator=generator, dtype=torch.double)
    hidden_NH, weight_VH, bias_V = (x.to(dtype) for x in (hidden_NH, weight_VH, bias_V))
    return hidden_NH.requires_grad_(), weight_VH.requires_grad_(), bias_V.requires_grad_()


def test_gradients_match_finite_differences() -> None:
    values = inputs()
    value = fused(*values, entropies(), Chunk(4), num_columns=V - 1)
    gradients = torch.autograd.grad(value, values)
    with torch.no_grad():
        for tensor, gradient in zip(values, gradients, strict=True):
            for index in range(tensor.numel()):
                at = tensor.view(-1)[index : index + 1]
                sides = []
                for step in (1e-5, -2e-5):
                    at += step
                    sides.append(fused(*values, entropies(), Chunk(4), num_columns=V - 1))
                at += 1e-5
                slope = (sides[0] - sides[1]) / 2e-5
                torch.testing.assert_close(gradient.reshape(-1)[index], slope, atol=1e-8, rtol=1e-6)


def test_the_gradient_above_scales_it() -> None:
    values = inputs()

    def twice_used(loss: Tensor) -> Tensor:
        return 3 * loss + loss**2

    found = torch.autograd.grad(twice_used(fused(*values, entropies(), Chunk(2))), values)
    whole = entropies().of_chunk(slice(0, N))(linear(*values), slice(0, N))
    torch.testing.assert_close(found, torch.autograd.grad(twice_used(whole), values))


def test_padding_rows_of_the_weight_get_no_gradient() -> None:
    values = inputs()
    loss = fused(*values, entropies(), Chunk(2), num_columns=V - 3)
    _, grad_VH, grad_V = torch.autograd.grad(loss, values)
    assert (grad_VH[V - 3 :] == 0).all() and (grad_V[V - 3 :] == 0).all()
    assert (grad_VH[: V - 3] != 0).all()


def test_without_gradients_none_are_taken() -> None:
    values, loss = inputs(), entropies()
    with torch.no_grad():
        value = fused(*values, loss, Chunk(4))
    assert loss.took_gradients and not any(loss.took_gradients)
    torch.testing.assert_close(value, fused(*values, entropies(), Chunk(4)).detach())


def test_a_frozen_head_still_passes_gradients_on() -> None:
    values = inputs()
    (expected,) = torch.autograd.grad(fused(*values, entropies(), Chunk(4)), values[:1])
    hidden_NH, weight_VH, bias_V = values[0], values[1].detach(), values[2].detach()
    loss = fused(hidden_NH, weight_VH, bias_V, entropies(), Chunk(4))
    torch.testing.assert_close(torch.autograd.grad(loss, hidden_NH), (expected,))


def test_no_positions_give_zero_with_gradients_of_zero() -> None:
    hidden_NH, weight_VH, bias_V = inputs()
    none_0H = hidden_NH[:0]
    for chunk in (Chunk(4), Chunk(4, 2)):
        value = fused(
            none_0H, weight_VH, bias_V, TokenLoss(torch.zeros(0).long(), V, ScheduleValues()), chunk
        )
        assert value == 0
        for gradient in torch.autograd.grad(value, (hidden_NH, weight_VH, bias_V)):
            assert (gradient == 0).all()


def test_bfloat16_weights_and_autocast_are_within_their_rounding() -> None:
    values = inputs()
    expected = torch.autograd.grad(fused(*values, entropies(), Chunk(4)), values)
    halves, singles = inputs(torch.bfloat16), inputs(torch.float32)
    in_halves = torch.autograd.grad(fused(*halves, entropies(), Chunk(2)), halves)
    with torch.autocast("cpu", torch.bfloat16):
        loss = fused(*singles, entropies(), Chunk(2))
    assert loss.dtype == torch.float32
    autocast = torch.autograd.grad(loss, singles)
    for want, half, cast in zip(expected, in_halves, autocast, strict=True):
        assert half.dtype == torch.bfloat16 and cast.dtype == torch.float32
        for found in (half, cast):
            assert (found.double() - want).norm() < 0.03 * want.norm()


def test_the_sum_over_chunks_does_not_lose_what_bfloat16_would() -> None:
    # 300 equal contributions: a bfloat16 sum stops growing at 256 of them.
    hidden_NH = torch.ones(300, 1, dtype=torch.bfloat16)
    weight_VH = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    loss = OfPositions(lambda logits_mV, at: logits_mV[:, 0].sum())
    (gradient,) = torch.autograd.grad(fused(hidden_NH, weight_VH, None, loss, Chunk(1)), weight_VH)
    assert gradient[0].item() == 300


def tiny_llama(is_tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        tie_word_embeddings=is_tied,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_model_with_a_fused_head_is_the_same_model(is_tied: bool) -> None:
    plain, changed = tiny_llama(is_tied), tiny_llama(is_tied)
    head = changed.get_output_embeddings()
    assert isinstance(head, nn.Linear)
    changed.set_output_embeddings(FusedHead.of(head))
    assert list(changed.state_dict()) == list(plain.state_dict())
    assert len(list(changed.parameters())) == len(list(plain.parameters()))  # tied if they were
    ids_BT = torch.randint(0, 31, (2, 12), generator=torch.Generator().manual_seed(1))
    labels_N = ids_BT[:, 1:].reshape(-1)

    logits_NV = plain(ids_BT).logits[:, :-1].reshape(-1, 31)
    cross_entropy(logits_NV, labels_N, reduction="sum").backward()
    hidden_BTH = changed.model(ids_BT).last_hidden_state
    changed.lm_head(
        hidden_BTH[:, :-1].reshape(-1, 16), TokenLoss(labels_N, 31, ScheduleValues()), Chunk(5)
    ).backward()
    for (name, expected), found in zip(plain.named_parameters(), changed.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=name)

    shown = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(changed.generate(ids_BT, **shown), plain.generate(ids_BT, **shown))
