"""SAR's step of the gates by hand: L_R and its gradient, AdamW, and what is logged.

Shape suffixes: P positions, V vocabulary, E experts, L layers, G values of the gates.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from distill.config.moe import StudentAwareRouter
from distill.moe import draws
from distill.moe.gates import ExpertRouting
from distill.moe.gradient import Share, cv_squared, gate_gradient
from distill.moe.optimizer import GateOptimizer
from distill.records import GateGradient, GateState
from distill.teachers.requests import GateRequest, GateStateRequest
from distill.training.gate_training import GateTraining
from tests.toys_language import NUM_TOKENS
from tests.toys_moe import NUM_EXPERTS, mixture

IDS_BT = torch.from_numpy(np.random.default_rng(0).integers(0, NUM_TOKENS, (2, 8)))
TARGETS_BT = torch.zeros(2, 8, dtype=torch.bool)
TARGETS_BT[0, 2:7] = TARGETS_BT[1, 4:6] = True
STUDENT_PV = torch.from_numpy(np.random.default_rng(1).normal(size=(7, NUM_TOKENS))).float()
SEEDS_MBT = draws.token_seeds(0, 1, np.arange(2), 8)


def test_cv_squared_is_the_unbiased_variance_over_the_squared_mean() -> None:
    assert float(cv_squared(torch.tensor([1.0, 2.0, 3.0]))) == pytest.approx(1 / 4)
    assert float(cv_squared(torch.tensor([2.0, 6.0]))) == pytest.approx(8 / 16)
    assert float(cv_squared(torch.tensor([5.0, 5.0, 5.0]))) == 0
    assert float(cv_squared(torch.tensor([7.0]))) == 0
    assert float(cv_squared(torch.zeros(3))) == 0  # and not NaN
    # 1e-10 is added to the squared mean.
    assert float(cv_squared(torch.tensor([0.0, 2e-5]))) == pytest.approx(2e-10 / 2e-10)


def share_of(
    model: Any, routing: ExpertRouting, moe: StudentAwareRouter, temperature: float, block: int
) -> Share:
    def forward() -> Tensor:
        return model.model(input_ids=IDS_BT, use_cache=False).last_hidden_state[TARGETS_BT]

    def logits_of(hidden_mH: Tensor) -> Tensor:
        return model.lm_head(hidden_mH)

    return gate_gradient(
        routing, moe, forward, logits_of, STUDENT_PV, SEEDS_MBT, TARGETS_BT, temperature, block
    )


def expected_share(moe: StudentAwareRouter, temperature: float) -> tuple[Tensor, float, float]:
    """Σ KL(p_T ‖ p_S) + β · P · mean_l CV²(importance) by autograd through the model's own code
    with k = N, of the gates alone, at W_n = 0 and no noise."""
    model: Any = mixture(own=NUM_EXPERTS)
    output = model(input_ids=IDS_BT, use_cache=False, output_router_logits=True)
    logp_T_PV = log_softmax(output.logits[TARGETS_BT] / temperature, 1)
    logp_S_PV = log_softmax(STUDENT_PV / temperature, 1)
    kl = (logp_T_PV.exp() * (logp_T_PV - logp_S_PV)).sum()
    amounts = [z.softmax(1)[TARGETS_BT.flatten()].sum(0) for z in output.router_logits]
    cvs = [a_E.var() / a_E.mean() ** 2 for a_E in amounts]
    balance = moe.balance * sum(cvs, torch.zeros(())) / len(cvs) * len(STUDENT_PV)
    weights = [layer.mlp.gate.weight for layer in model.model.layers]
    slopes = torch.autograd.grad(kl + balance, weights)
    parts = [part for slope in slopes for part in (torch.zeros(slope.numel()), slope.flatten())]
    return torch.cat(parts), kl.item(), float(balance.detach())


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("balance", [0.0, 0.01, 3.0])
def test_the_gradient_is_that_of_the_definition(temperature: float, balance: float) -> None:
    moe = StudentAwareRouter(noise=False, balance=balance)
    gradient_G, kl_sum, balance_sum = expected_share(moe, temperature)
    model: Any = mixture()
    routing = ExpertRouting(model)
    for block in (512, 3, 1):
        found = share_of(model, routing, moe, temperature, block)
        assert found.kl_sum == pytest.approx(kl_sum, rel=1e-5)
        assert found.balance_sum == pytest.approx(balance_sum, rel=1e-4, abs=1e-9)
        torch.testing.assert_close(found.gradient_G, gradient_G, rtol=1e-3, atol=2e-4)
    assert found.gradient_G.dtype == torch.float32
    # Nothing stays behind: no gradients, and nothing that requires one.
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_only_gates_have_a_gradient_and_what_fails_leaves_none_behind() -> None:
    model: Any = mixture()
    routing, shown = ExpertRouting(model), []

    def broken() -> Tensor:
        shown.extend(name for name, p in model.named_parameters() if p.requires_grad)
        raise ValueError("no forward")

    with pytest.raises(ValueError, match="no forward"):
        gate_gradient(
            routing, StudentAwareRouter(), broken, None, STUDENT_PV, SEEDS_MBT, TARGETS_BT
        )  # type: ignore[arg-type]
    assert shown == [
        f"model.layers.{layer}.mlp.gate.{name}"
        for layer in (0, 1)
        for name in ("noise_weight", "own.weight")
    ]
    assert not any(p.requires_grad for p in model.parameters())


def test_noise_reaches_w_n_and_can_be_left_out() -> None:
    model: Any = mixture()
    routing = ExpertRouting(model)
    noisy = share_of(model, routing, StudentAwareRouter(balance=0), 1.0, 512)
    quiet = share_of(model, routing, StudentAwareRouter(balance=0, noise=False), 1.0, 512)
    of_noise = [slice(0, 96), slice(192, 288)]  # W_n of each layer, before its W_g
    assert all(noisy.gradient_G[part].abs().max() > 1e-3 for part in of_noise)
    assert not any(quiet.gradient_G[part].any() for part in of_noise)
    assert noisy.kl_sum != pytest.approx(quiet.kl_sum, rel=1e-4)
    again = share_of(model, routing, StudentAwareRouter(balance=0), 1.0, 512)
    assert torch.equal(again.gradient_G, noisy.gradient_G)


def start_of(values: list[float]) -> GateState:
    return GateState(4, np.array(values, np.float32), "shapes")


def adamw(
    values: list[float], gradients: list[list[float]], lr: float, decay: float
) -> list[float]:
    """Loshchilov & Hutter 2019, β (.9, .999), ε 1e-8."""
    found, first, second = list(values), [0.0] * len(values), [0.0] * len(values)
    for step, gradient in enumerate(gradients, start=1):
        for i, g in enumerate(gradient):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g * g
            found[i] -= lr * decay * found[i]
            mean, square = first[i] / (1 - 0.9**step), second[i] / (1 - 0.999**step)
            found[i] -= lr * mean / (square**0.5 + 1e-8)
    return found


@pytest.mark.parametrize("decay", [0.0, 0.01, 5.0])
def test_gates_take_the_steps_of_adamw(decay: float) -> None:
    start, lr = [1.0, -2.0, 0.5], 0.01
    gradients = [[0.3, -0.1, 0.0], [0.1, 0.2, 0.0], [-0.4, 0.2, 0.0]]
    optimizer = GateOptimizer(start_of(start), StudentAwareRouter(lr=lr, weight_decay=decay))
    for number, gradient in enumerate(gradients, start=1):
        state = optimizer.step(7 * torch.tensor(gradient), num_positions=7)
        assert state.version == 4 + number and state.values.dtype == np.float32
        expected = adamw(start, gradients[:number], lr, decay)
        assert state.values.tolist() == pytest.approx(expected, rel=1e-5)
    # Without a gradient only the decay moves a weight.
    assert (state.values[2] == np.float32(0.5)) == (decay == 0)


def test_weight_decay_is_on_by_default() -> None:
    optimizer = GateOptimizer(start_of([100.0]), StudentAwareRouter(lr=1.0))
    state = optimizer.step(torch.zeros(1), num_positions=1)
    assert state.values.tolist() == pytest.approx([100 * (1 - 0.01)])


class Teachers:
    """A client and a stream of one teacher whose gradients are given."""

    def __init__(
        self, shares: list[tuple[list[float], float, float]], positions_per_row: int = 2
    ) -> None:
        self.shares = list(shares)
        self.positions_per_row = positions_per_row
        self.requests: list[GateRequest] = []
        self.arguments: list[tuple[str, str, Any, list[int], int]] = []
        self.gates: list[GateState] = []
        self.seconds: list[tuple[str, float]] = []

    def call(self, teacher: str, request: Any) -> Any:
        assert teacher == "t"
        if isinstance(request, GateStateRequest):
            return start_of([1.0, 2.0])
        return self.gradient(request)

    def request(
        self, name: str, request_id: str, part: Any, rows_N: np.ndarray, step: int = 0
    ) -> Any:
        self.arguments.append((name, request_id, part, rows_N.tolist(), step))
        return SimpleNamespace(
            request_id=request_id,
            gate=self.gates[-1],
            counts_B=np.full(len(rows_N), self.positions_per_row),
        )

    def gradient(self, request: GateRequest) -> GateGradient:
        self.requests.append(request)
        values, kl, balance = self.shares.pop(0)
        num_positions = int(request.request.counts_B.sum())
        return GateGradient(
            request.request.request_id,
            np.array(values, np.float32),
            num_positions,
            kl,
            balance,
            compute_s=0.5 * len(self.requests),
        )

    def take_gate(self, name: str, gate: GateState) -> None:
        assert name == "t"
        self.gates.append(gate)

    def computed(self, name: str, seconds: float) -> None:
        self.seconds.append((name, seconds))


def part_of(rows: list[int], valid: list[bool]) -> Any:
    return SimpleNamespace(rows_B=np.array(rows), valid_B=torch.tensor(valid))


def logits_of(part: Any) -> Tensor:
    return torch.full((2, 3), float(part.rows_B[0]), dtype=torch.float64, requires_grad=True)


PARTS = [part_of([8, 9], [True, True]), part_of([7], [False]), part_of([3, 4], [True, False])]
MOE = StudentAwareRouter(lr=0.1, weight_decay=0.0)


def training_of(client: Any, reduce: Any = lambda sums: sums) -> GateTraining:
    return GateTraining("t", MOE, client, client, reduce)


def test_a_step_sums_over_micro_batches_and_divides_by_positions() -> None:
    """Four positions and two: (1, −1) and (2, −5) give (3, −6) / 6."""
    client = Teachers([([1.0, -1.0], 6.1, 1.3), ([2.0, -5.0], 3.0, 0.5)])
    shown: list[list[float]] = []

    def reduce(sums_G: Tensor) -> Tensor:
        shown.append(sums_G.tolist())
        return sums_G

    training = training_of(client, reduce)
    (first,) = client.gates
    assert first.version == 4 and first.values.tolist() == [1.0, 2.0]
    parts: list[Any] = []

    def noted(part: Any) -> Tensor:
        parts.append(part)
        return logits_of(part)

    state = training.step(PARTS, noted, step=11, temperature=1.5)
    assert parts == PARTS, "also of a micro-batch without rows: ranks run it together"
    assert client.arguments == [
        ("t", "t/gate/11/0", PARTS[0], [8, 9], 11),
        ("t", "t/gate/11/2", PARTS[2], [3], 11),
    ]
    assert [r.temperature for r in client.requests] == [1.5, 1.5]
    for request, value in zip(client.requests, (8.0, 3.0), strict=True):
        assert request.student_PV.dtype == np.float32
        assert request.student_PV.tolist() == [[value] * 3] * 2
    assert client.seconds == [("t", 0.5), ("t", 1.0)]
    assert shown == [[3.0, -6.0, 6.1 + 3.0, 1.3 + 0.5, 6.0]], "in float64"
    expected = adamw([1.0, 2.0], [[0.5, -1.0]], 0.1, 0.0)
    assert state.values.tolist() == pytest.approx(expected)
    assert client.gates[1] is state and state.version == 5


def test_sums_of_ranks_add_up_before_the_step() -> None:
    """The other rank: (3, 0) over 6 positions, KL 4, balance 2."""
    client = Teachers([([1.0, -1.0], 6.0, 1.0)])
    shown: list[list[float]] = []

    def reduce(sums_G: Tensor) -> Tensor:
        assert sums_G.dtype == torch.float64
        shown.append(sums_G.tolist())
        return sums_G + torch.tensor([3.0, 0.0, 4.0, 2.0, 6.0])

    training = training_of(client, reduce)
    state = training.step(PARTS[:1], logits_of, step=0, temperature=1.0)
    assert shown == [[1.0, -1.0, 6.0, 1.0, 4.0]]
    assert state.values.tolist() == pytest.approx(adamw([1.0, 2.0], [[0.4, -0.1]], 0.1, 0.0))
    assert training.timings() == pytest.approx(
        {
            "teacher.t.gate_kl_rate": 10 / 10,
            "teacher.t.gate_balance_rate": 3 / 10,
            "teacher.t.gate_version_rate": 5.0,
        }
    )


def test_what_is_logged_is_the_mean_over_steps_since_the_last_call() -> None:
    """Of each step the mean over its positions: 6/4 and 2/4, then 9/4."""
    shares = [([0.0, 0.0], kl, balance) for kl, balance in ((6.0, 1.0), (2.0, 2.0), (9.0, 4.0))]
    training = training_of(Teachers(shares))
    for step in (0, 1):
        training.step(PARTS[:1], logits_of, step, temperature=1.0)
    logged = training.timings()
    assert logged["teacher.t.gate_kl_rate"] == pytest.approx((6 + 2) / 4 / 2)
    assert logged["teacher.t.gate_balance_rate"] == pytest.approx((1 + 2) / 4 / 2)
    assert logged["teacher.t.gate_version_rate"] == 6
    training.step(PARTS[:1], logits_of, 2, temperature=1.0)
    logged = training.timings()
    assert logged["teacher.t.gate_kl_rate"] == pytest.approx(9 / 4)
    assert logged["teacher.t.gate_balance_rate"] == pytest.approx(4 / 4)
    assert training.timings() == {
        "teacher.t.gate_kl_rate": 0.0,
        "teacher.t.gate_balance_rate": 0.0,
        "teacher.t.gate_version_rate": 7.0,
    }


def test_the_mean_of_one_position_is_its_own_value() -> None:
    training = training_of(Teachers([([1.0, 1.0], 6.0, 3.0)], positions_per_row=1))
    training.step(PARTS[2:], logits_of, 0, temperature=1.0)
    logged = training.timings()
    assert logged["teacher.t.gate_kl_rate"] == 6 and logged["teacher.t.gate_balance_rate"] == 3


def test_a_step_without_positions_leaves_the_gates_alone() -> None:
    client = Teachers([])
    training = training_of(client)
    state = training.step(PARTS[1:2], logits_of, step=0, temperature=1.0)
    assert state.version == 4 and state.values.tolist() == [1.0, 2.0]
    assert client.arguments == [] and client.gates[-1] is state
    assert training.timings()["teacher.t.gate_kl_rate"] == 0


def test_a_resumed_training_sends_its_teacher_the_gates_and_goes_on() -> None:
    shares = [([1.0, -1.0], 6.0, 1.0), ([2.0, -5.0], 3.0, 0.5)]
    first = training_of(Teachers(shares))
    first.step(PARTS[:1], logits_of, 0, temperature=1.0)
    saved = first.state_dict()
    client = Teachers(shares[1:])
    resumed = training_of(client)
    resumed.load_state_dict(saved)
    assert client.gates[-1].version == 5
    assert client.gates[-1].values.tolist() == pytest.approx(saved["values"].tolist())
    states = [t.step(PARTS[:1], logits_of, 1, temperature=1.0) for t in (first, resumed)]
    assert np.array_equal(states[0].values, states[1].values)
    assert states[0].version == states[1].version == 6
