"""The fused head, its chunks, and the loss of parts of the vocabulary, one by one.

Shape suffixes: N positions, H hidden, V vocabulary, C columns, K teachers.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distill.aggregation.mixture import Space
from distill.objectives import ForwardKL, GeneralisedJSD, Objective, TotalVariation
from distill.objectives.log_softmax import LEFT_OUT
from distill.records import UNLABELLED, ScheduleValues
from distill.training.fused import LEAST_ROWS, LIVE_COPIES, ROWS_OF_SPLIT, Chunk, FusedHead, slices
from distill.training.split_loss import ChunkTeachers, SplitLoss
from distill.training.token_loss import TokenLoss

N, H, V, K = 6, 4, 9, 2


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


# ---- the head ---------------------------------------------------------------------------------


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("left_out", [(), (2, 5)])
@pytest.mark.parametrize("chunk", [Chunk(2), Chunk(4, 3)], ids=["rows", "columns"])
def test_a_head_is_the_layer_and_never_predicts_what_is_left_out(
    has_bias: bool, left_out: tuple[int, ...], chunk: Chunk
) -> None:
    layer = nn.Linear(H, V, bias=has_bias, dtype=torch.double).eval()
    head = FusedHead.of(layer, left_out)
    assert head.weight is layer.weight and head.bias is layer.bias and not head.training
    assert FusedHead.of(layer.train(), left_out).training
    assert head.state_dict().keys() == layer.state_dict().keys()
    assert all(p.device.type == "cpu" for p in (*head.parameters(), *head.buffers()))
    hidden_NH = drawn(0, N, H)
    expected_NV = layer(hidden_NH).detach()
    expected_NV[:, list(left_out)] = LEFT_OUT
    assert torch.equal(head(hidden_NH), expected_NV)
    labels_N = torch.tensor([0, 1, 3, 4, 6, 8])
    value = head(hidden_NH, TokenLoss(labels_N, V, ScheduleValues()), chunk)
    expected = cross_entropy(expected_NV, labels_N, reduction="sum")
    torch.testing.assert_close(value.detach(), expected)
    value.backward()
    grad_VH = layer.weight.grad
    assert grad_VH is not None
    is_zero_V = (grad_VH == 0).all(1)
    assert is_zero_V.nonzero()[:, 0].tolist() == list(left_out)


def test_rows_of_a_chunk_fill_the_budget() -> None:
    """4 bytes a logit, of the student and of each teacher whose logits are rebuilt."""
    assert (LEAST_ROWS, ROWS_OF_SPLIT, LIVE_COPIES) == (16, 256, 6)
    assert Chunk.within(4.0, 1000, 3) == Chunk(250)
    assert Chunk.within(1.0, 1000, 0, can_split=True) == Chunk(250)
    assert Chunk.within(4 * 16 * 1e3 / 1e6, 1000, 0, can_split=True) == Chunk(16)
    assert Chunk.within(4 * 15 * 1e3 / 1e6, 1000, 0) == Chunk(15)
    assert Chunk.within(1e-9, 1000, 0) == Chunk(1)
    # 15 rows are too few: columns of 256 rows, six temporaries and one of each of two teachers.
    assert Chunk.within(4 * 45 * 1e3 / 1e6, 1000, 2, can_split=True) == Chunk(256, 21)
    assert Chunk.within(1e-9, 1000, 2, can_split=True) == Chunk(256, 1)


def test_slices_cover_all_without_overlap() -> None:
    assert list(slices(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(slices(6, 3)) == [slice(0, 3), slice(3, 6)] and list(slices(0, 3)) == []


# ---- parts of the vocabulary --------------------------------------------------------------------

LABELS_N = torch.tensor([0, UNLABELLED, 4, 8, 3, UNLABELLED])
ANSWERED_N = torch.tensor([True, True, False, True, True, True])
WEIGHTS_KN = torch.tensor([[0.25, 1.0, 0.5, 0.0, 0.6, 0.1]]).double()
WEIGHTS_KN = torch.cat([WEIGHTS_KN, 1 - WEIGHTS_KN])


@pytest.mark.parametrize("width", [1, 4, V])
@pytest.mark.parametrize("space", ["logits", "probabilities"])
@pytest.mark.parametrize(
    "objective", [ForwardKL(weight=0.5), GeneralisedJSD(), TotalVariation()], ids=lambda o: o.type
)
def test_parts_add_up_to_the_loss_of_the_whole(
    width: int, space: Space, objective: Objective
) -> None:
    """Rows without a label have no cross-entropy, those without an answer no divergence."""
    z_NV, z_KNV, temperature, alpha = 3 * drawn(1, N, V), 3 * drawn(2, K, N, V), 2.5, 0.3
    teachers = ChunkTeachers(
        lambda at: z_KNV[..., at],
        WEIGHTS_KN,
        ANSWERED_N,
        space,
        objective,
        temperature,
        is_routed=True,
    )
    columns = list(slices(V, width))
    found = SplitLoss(lambda at: z_NV[:, at], columns, LABELS_N, alpha, teachers)
    grad_NV = torch.cat([found.gradient(at, z_NV[:, at]) for at in columns], 1)

    student_NV = z_NV.clone().requires_grad_()
    logp_S_NV = (student_NV / temperature).log_softmax(-1)
    if space == "logits":
        p_T_NV = ((WEIGHTS_KN[..., None] * z_KNV).sum(0) / temperature).softmax(-1)
    else:
        p_T_NV = (WEIGHTS_KN[..., None] * (z_KNV / temperature).softmax(-1)).sum(0)
    p_S_NV = logp_S_NV.exp()
    if objective.type == "forward_kl":
        apart_N = 0.5 * temperature**2 * (p_T_NV * (p_T_NV.log() - logp_S_NV)).sum(1)
    elif objective.type == "jsd":
        m_NV = (p_T_NV + p_S_NV) / 2
        apart_N = 0.5 * (p_T_NV * (p_T_NV / m_NV).log() + p_S_NV * (p_S_NV / m_NV).log()).sum(1)
        apart_N = temperature**2 * apart_N
    else:
        apart_N = temperature * 0.5 * (p_T_NV - p_S_NV).abs().sum(1)
    kd = apart_N[ANSWERED_N].sum()
    has_label_N = LABELS_N >= 0
    ce = cross_entropy(student_NV[has_label_N], LABELS_N[has_label_N], reduction="sum")
    value = alpha * kd + (1 - alpha) * ce
    torch.testing.assert_close(found.value, value.detach())
    torch.testing.assert_close((found.kd, found.ce), (kd.detach(), ce.detach()))
    torch.testing.assert_close(grad_NV, torch.autograd.grad(value, student_NV)[0])
    assert found.hits == (z_NV.argmax(1) == LABELS_N).sum()
    logp_KNV = z_KNV.log_softmax(-1)
    of_labels_KN = logp_KNV[:, torch.arange(N), LABELS_N.clamp(min=0)]
    assert found.label_logp_Kn is not None
    torch.testing.assert_close(found.label_logp_Kn[:, has_label_N], of_labels_KN[:, has_label_N])


def test_of_equal_logits_the_first_token_is_the_choice() -> None:
    """As argmax of the whole: also where they are in different parts."""
    z_NV = torch.tensor([[1.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    labels_N = torch.tensor([1, 0])
    for width in (1, 2, 4):
        found = SplitLoss(lambda at: z_NV[:, at], list(slices(4, width)), labels_N, 0.0, None)
        assert found.hits == 2 and found.label_logp_Kn is None and found.kd == 0
        others = SplitLoss(lambda at: z_NV[:, at], list(slices(4, width)), labels_N + 1, 0.0, None)
        assert others.hits == 0
