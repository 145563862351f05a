"""Gates that learn: their gradient, their optimizer, and how they travel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from distill.config.moe import AllExperts, StudentAwareRouter
from distill.errors import TeacherAnswerError, TeacherError
from distill.moe.optimizer import GateOptimizer
from distill.records import GateState
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import GateRequest, GateStateRequest
from tests.toys_language import NUM_TOKENS
from tests.toys_moe import NUM_EXPERTS, engine, mixture, request

QUIET = StudentAwareRouter(noise=False, balance=0.3)


def asked_about(moe: StudentAwareRouter, **changes: Any) -> GateRequest:
    asked = request(moe=moe, **changes)
    num_positions = int(asked.counts_B.sum())
    student_PV = np.random.default_rng(1).normal(size=(num_positions, NUM_TOKENS))
    return GateRequest(asked, student_PV.astype(np.float32))


def directly(asked: GateRequest, family: str) -> list[tuple[Tensor, Tensor]]:
    """Of each layer's own gate weight: its value and the gradient of the sum of L_R, by autograd
    through a model whose own k is N."""
    model: Any = mixture(family, own=NUM_EXPERTS)
    inputs = {k: torch.from_numpy(v) for k, v in asked.request.inputs().items()}
    targets_BT = torch.from_numpy(asked.request.targets_BT)
    output = model(**inputs, use_cache=False, output_router_logits=True)
    logp_T_PV = log_softmax(output.logits[targets_BT], 1)
    logp_S_PV = log_softmax(torch.from_numpy(asked.student_PV), 1)
    total = (logp_T_PV.exp() * (logp_T_PV - logp_S_PV)).sum()
    for logits_nE in output.router_logits:
        importance_E = logits_nE.softmax(1)[targets_BT.flatten()].sum(0)
        cv = importance_E.std() / importance_E.mean()
        total = total + 0.3 * cv**2 * len(logp_T_PV) / len(output.router_logits)
    gates = [layer.mlp.gate.weight for layer in model.model.layers]
    return list(zip(gates, torch.autograd.grad(total, gates), strict=True))


@pytest.mark.parametrize("family", ["mixtral", "qwen2", "olmoe"])
def test_gradient_is_that_of_the_dense_loss(family: str) -> None:
    asked = asked_about(QUIET)
    found = engine(mixture(family), QUIET).gate_gradient(asked)
    asked.check(found, NUM_TOKENS)
    parts = []
    for weight, gradient in directly(asked, family):
        parts += [gradient.flatten(), torch.zeros(weight.numel())]  # W_n has no part without noise
    expected = torch.cat(parts).numpy()
    assert np.abs(expected).max() > 0.01
    # In the order of a gate's parameters: W_n, then its own.
    half = parts[0].numel()
    ours = found.values.reshape(-1, 2, half)[:, ::-1].reshape(-1)
    np.testing.assert_allclose(ours, expected, atol=2e-4)


def test_gradient_is_the_slope_of_the_loss_parts() -> None:
    """Noise included: of W_n too."""
    moe = StudentAwareRouter(balance=0.3)
    model: Any = mixture().double()
    model.set_experts_implementation("eager")  # the others know no float64
    teacher = engine(model, moe)
    asked = asked_about(moe, seed=5)
    start = teacher.call(GateStateRequest())
    values = start.values + np.random.default_rng(2).normal(size=start.values.shape) * 0.1
    values = values.astype(np.float32)

    def at(values: np.ndarray) -> tuple[float, np.ndarray]:
        state = GateState(1, values, start.shapes)
        found = teacher.gate_gradient(replace(asked, request=replace(asked.request, gate=state)))
        return found.kl_sum + found.balance_sum, found.values

    gradient = at(values)[1]
    for seed in range(3):
        step = np.random.default_rng(seed).normal(size=values.shape).astype(np.float32)
        step *= 2.0**-10
        ahead, behind = (values + step).astype(np.float32), (values - step).astype(np.float32)
        slope = at(ahead)[0] - at(behind)[0]
        expected = float(((ahead.astype(np.float64) - behind) * gradient).sum())
        assert slope == pytest.approx(expected, rel=2e-3, abs=1e-5)


def test_shares_of_rows_add_up() -> None:
    """The divergence's part; CV² is of each forward."""
    moe = StudentAwareRouter(balance=0)
    asked = asked_about(moe)
    whole = engine(mixture(), moe).gate_gradient(asked)
    by_row = engine(mixture(), moe, max_batch_tokens=1).gate_gradient(asked)
    np.testing.assert_allclose(by_row.values, whole.values, atol=1e-4)
    assert by_row.kl_sum == pytest.approx(whole.kl_sum, rel=1e-4)
    assert by_row.num_positions == whole.num_positions == len(asked.student_PV)
    assert whole.balance_sum == 0


def test_a_student_like_its_teacher_leaves_the_gate_alone() -> None:
    moe = StudentAwareRouter(noise=False, balance=0)
    teacher = engine(mixture(), moe)
    asked = asked_about(moe)
    same = replace(asked, student_PV=teacher.answer(asked.request).payload)
    found = teacher.gate_gradient(same)
    assert found.kl_sum == pytest.approx(0, abs=1e-4)
    assert np.abs(found.values).max() < 1e-3 * np.abs(teacher.gate_gradient(asked).values).max()


def test_frozen_gates_answer_as_all_experts_and_learning_ones_do_not() -> None:
    asked = request()
    all_teachers = engine(mixture(), AllExperts()).answer(asked).payload
    for lr, is_equal in ((0.0, True), (1e-2, False)):
        moe = StudentAwareRouter(lr=lr)
        teacher = engine(mixture(), moe)
        optimizer = GateOptimizer(teacher.call(GateStateRequest()), moe)
        for step in range(2):
            about = asked_about(moe, gate=optimizer.state, seed=step)
            found = teacher.gate_gradient(about)
            optimizer.step(found.values, found.num_positions)
        assert optimizer.state.version == 2
        answer = teacher.answer(replace(asked, gate=optimizer.state))
        assert np.array_equal(answer.payload, all_teachers) == is_equal
        # Nothing stays behind: who names no gate is answered by the folder's.
        assert np.array_equal(teacher.answer(asked).payload, all_teachers)


def test_steps_bring_the_teacher_nearer_to_the_student() -> None:
    moe = StudentAwareRouter(lr=1e-2, noise=False)
    teacher = engine(mixture(), moe)
    optimizer = GateOptimizer(teacher.call(GateStateRequest()), moe)
    divergences = []
    for _ in range(8):
        found = teacher.gate_gradient(asked_about(moe, gate=optimizer.state))
        divergences.append(found.kl_sum / found.num_positions)
        optimizer.step(found.values, found.num_positions)
    assert divergences[-1] < 0.98 * divergences[0]


def test_a_restarted_replica_answers_bit_for_bit_and_training_goes_on() -> None:
    moe = StudentAwareRouter(lr=1e-2)
    clients = [LocalTeachers({"t": engine(mixture(), moe)}) for _ in range(2)]
    optimizer = GateOptimizer(clients[0].call("t", GateStateRequest()), moe)

    def step(optimizer: GateOptimizer, client: LocalTeachers, number: int) -> None:
        about = asked_about(moe, gate=optimizer.state, seed=number)
        found = client.call("t", about)
        optimizer.step(found.values, found.num_positions)

    for number in range(2):
        step(optimizer, clients[0], number)
    resumed = GateOptimizer(clients[1].call("t", GateStateRequest()), moe)
    resumed.load_state_dict(optimizer.state_dict())
    state, saved = resumed.state, optimizer.state
    assert (state.version, state.shapes) == (saved.version, saved.shapes)
    asked = request(gate=resumed.state)
    first, second = (client.call("t", asked).payload for client in clients)
    assert np.array_equal(first, second)
    step(optimizer, clients[0], 2)
    step(resumed, clients[1], 2)
    assert np.array_equal(optimizer.state.values, resumed.state.values)
    assert resumed.state.version == 3


def test_equal_versions_of_two_runs_are_told_apart() -> None:
    teacher = engine(mixture(), StudentAwareRouter())
    start = teacher.call(GateStateRequest())
    others = [replace(start, version=1, values=start.values + shift) for shift in (0.0, 1.0)]
    first, second = (teacher.answer(request(gate=gate)).payload for gate in others)
    assert not np.allclose(first, second)
    assert np.array_equal(teacher.answer(request(gate=others[0])).payload, first)


def test_a_gate_of_another_shape_is_refused() -> None:
    moe = StudentAwareRouter()
    other = engine(mixture("qwen2"), moe)
    teacher = engine(mixture(), moe)
    gate = teacher.call(GateStateRequest())
    wider = replace(gate, values=np.append(gate.values, gate.values[0]))
    deeper = replace(gate, shapes="another")
    for wrong in (wider, deeper):
        with pytest.raises(TeacherError, match=r"a gate of another shape: version 0 .* one and"):
            teacher.answer(request(gate=wrong))
    assert (
        other.call(GateStateRequest()).shapes == gate.shapes
    )  # both are four experts of 24 numbers a layer
    optimizer = GateOptimizer(gate, moe)
    saved = optimizer.state_dict() | {"shapes": "another"}
    with pytest.raises(TeacherError, match="a gate of another shape"):
        optimizer.load_state_dict(saved)


def test_a_student_of_other_tokens_is_refused_and_a_broken_gradient_too() -> None:
    moe = StudentAwareRouter()
    teacher = engine(mixture(), moe)
    asked = asked_about(moe, gate=teacher.call(GateStateRequest()))
    narrow = replace(asked, student_PV=asked.student_PV[:, 1:])
    with pytest.raises(TeacherAnswerError, match="student's logits have shape"):
        teacher.gate_gradient(narrow)
    found = teacher.gate_gradient(asked)
    for change, message in (
        ({"request_id": "x"}, "belongs to request x"),
        ({"values": found.values[1:]}, "values, the gate has"),
        ({"values": found.values * np.nan}, "holds NaN or infinity: serve"),
        ({"num_positions": 1}, "is of 1 positions"),
    ):
        with pytest.raises(TeacherAnswerError, match=message):
            asked.check(replace(found, **change), NUM_TOKENS)


def test_bfloat16_logits_of_the_student_travel_as_bits() -> None:
    moe = StudentAwareRouter()
    teacher, asked = engine(mixture(), moe), asked_about(moe)
    rounded = torch.from_numpy(asked.student_PV).bfloat16()
    bits = rounded.view(torch.int16).numpy().view(np.uint16)
    first, second = (
        teacher.gate_gradient(replace(asked, student_PV=payloads)).values
        for payloads in (bits, rounded.float().numpy())
    )
    assert np.array_equal(first, second)
