"""The fused loss of language models against the whole logits, computed independently.

Shape suffixes: N positions, H hidden, V vocabulary, K teachers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from distill.aggregation import (
    Attention,
    FixedWeights,
    LearnedRouter,
    Single,
    Uncertainty,
    UniformMean,
)
from distill.aggregation.mixture import Mixture
from distill.errors import ConfigError
from distill.objectives import (
    ForwardKL,
    GeneralisedJSD,
    Objective,
    ReverseKL,
    TotalVariation,
    UniversalLogits,
)
from distill.records import Head, ScheduleValues, Target, TeacherAnswers, TokenAnswers
from distill.training.fused import Chunk, fused
from distill.training.token_loss import Reader, TokenLoss
from distill.wires import (
    DenseWire,
    HiddenWire,
    SampledWire,
    TopKWire,
    WireFormat,
)
from distill.wires.legality import check_mixing

N, H, V, PADDED = 13, 6, 11, 16
ELEMENTWISE: list[Objective] = [
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

    objective: Objective
    aggregation: Mixture = field(default_factory=UniformMean)
    alpha: float = 0.7
    temperature: float = 2.0
    queried_KN: Tensor = field(default_factory=lambda: torch.ones(2, N, dtype=torch.bool))
    wires: tuple[WireFormat, ...] = (DenseWire(dtype="float32"), HiddenWire(dtype="float32"))

    @property
    def labels_N(self) -> Tensor:
        return torch.arange(N) * 7 % V

    def student(self) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states, weight and bias."""
        hidden_NH, weight_VH, bias_V = drawn(0, N, H), drawn(1, PADDED, H), drawn(2, PADDED)
        return hidden_NH.requires_grad_(), weight_VH.requires_grad_(), bias_V.requires_grad_()

    def teachers(self) -> tuple[Tensor, list[Reader], TokenAnswers]:
        """Their logits [K, N, V] as they are, and the same as they travel."""
        payloads, readers, logits = [], [], []
        for k, wire in enumerate(self.wires):
            hidden_NH, head_VH = drawn(10 + k, N, H).float(), drawn(20 + k, PADDED + k, H).float()
            logits_NV = hidden_NH @ head_VH.T
            takes = hidden_NH if wire.takes == "hidden" else logits_NV
            if wire.type in ("topk", "sampled"):
                takes = takes[:, :V]
            seeds_N = np.arange(N)[self.queried_KN[k]]
            payloads.append(wire.encode(takes[self.queried_KN[k]], seeds_N))
            readers.append(Reader(wire, Head(head_VH) if wire.takes == "hidden" else None, V))
            logits.append(logits_NV[:, :V])
        return torch.stack(logits), readers, TokenAnswers(tuple(payloads), self.queried_KN)

    def loss(self) -> TokenLoss:
        _, readers, answers = self.teachers()
        schedule_values = ScheduleValues(self.temperature, self.alpha)
        return TokenLoss(
            self.labels_N, V, schedule_values, answers, readers, self.aggregation, self.objective
        )


def target_of(case: Case) -> tuple[Target, Tensor]:
    """The aggregate of what the teachers said about the positions that someone answered."""
    kept_N = case.queried_KN.any(0)
    logits_KNV, queried_KN = case.teachers()[0][:, kept_N], case.queried_KN[:, kept_N]
    answers = TeacherAnswers(logits_KNV * queried_KN[..., None], queried_KN)
    weights_KN = case.aggregation.weigh(answers, None, None).weights_KB
    return case.aggregation.target(answers, weights_KN, case.temperature), kept_N


def soft_and_hard(case: Case, z_NV: Tensor) -> tuple[Tensor, Tensor]:
    """c(T) Σ D and Σ CE, all logits at once, gradients autograd's own."""
    target, kept_N = target_of(case)
    divergence_N = case.objective(z_NV[kept_N], target, case.temperature)
    soft = case.objective.coefficient(case.temperature) * divergence_N.sum()
    return soft, cross_entropy(z_NV, case.labels_N, reduction="sum")


def dense(case: Case, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> Tensor:
    soft, hard = soft_and_hard(case, (hidden_NH @ weight_VH.T + bias_V)[:, :V])
    return case.alpha * soft + (1 - case.alpha) * hard


def with_gradients(value: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def chunked(case: Case, chunk: Chunk) -> list[Tensor]:
    inputs = case.student()
    return with_gradients(fused(*inputs, case.loss(), chunk, num_columns=V), inputs)


def assert_equals_dense(case: Case, chunk: Chunk) -> None:
    inputs = case.student()
    expected = with_gradients(dense(case, *inputs), inputs)
    torch.testing.assert_close(chunked(case, chunk), expected, rtol=1e-5, atol=1e-6)


# One position, not a divisor, more than there are; parts of the vocabulary, one column, all.
CHUNKS = [Chunk(1), Chunk(5), Chunk(N + 1), Chunk(5, 4), Chunk(N, 1), Chunk(1, V)]
ROWS_AND_COLUMNS = [Chunk(5), Chunk(5, 4)]
chunks = pytest.mark.parametrize("chunk", ROWS_AND_COLUMNS, ids=["rows", "columns"])


@by_type
@pytest.mark.parametrize("chunk", CHUNKS, ids=str)
def test_chunked_is_dense_in_value_and_gradient(objective: Objective, chunk: Chunk) -> None:
    assert_equals_dense(Case(objective), chunk)


@chunks
@pytest.mark.parametrize("mix", ["logits", "probabilities"])
@pytest.mark.parametrize("aggregation", [UniformMean, FixedWeights])
def test_teachers_that_answer_some_positions_and_none(
    aggregation: type[Mixture], mix: str, chunk: Chunk
) -> None:
    # Of 13 positions one is answered by nobody, and a chunk of 5 by the second teacher alone.
    queried_KN = torch.stack([torch.arange(N) >= 6, torch.arange(N) % 3 != 0])
    queried_KN[1, 1:5] = True
    weights = {"weights": (0.2, 0.8)} if aggregation is FixedWeights else {}
    assert_equals_dense(
        Case(ForwardKL(), aggregation(mix=mix, **weights), queried_KN=queried_KN), chunk
    )


@chunks
def test_one_teacher_a_position(chunk: Chunk) -> None:
    # As an oracle or a single teacher asks.
    first_N = torch.arange(N) % 2 == 0
    queried_KN = torch.stack([first_N, ~first_N])
    assert_equals_dense(Case(ReverseKL(), Single(teacher="a"), queried_KN=queried_KN), chunk)


@pytest.mark.parametrize("is_hard", [True, False])
def test_weights_that_depend_on_the_logits(is_hard: bool) -> None:
    assert_equals_dense(Case(ForwardKL(), Uncertainty(is_hard=is_hard)), Chunk(5))


@chunks
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_one_of_the_two_terms_alone(temperature: float, alpha: float, chunk: Chunk) -> None:
    case = Case(GeneralisedJSD(), alpha=alpha, temperature=temperature)
    assert_equals_dense(case, chunk)


@chunks
def test_sums_are_those_of_the_terms(chunk: Chunk) -> None:
    queried_KN = torch.stack([torch.arange(N) >= 6, torch.arange(N) >= 3])
    case = Case(TotalVariation(), FixedWeights(weights=(0.25, 0.75)), queried_KN=queried_KN)
    hidden_NH, weight_VH, bias_V = case.student()
    z_NV = (hidden_NH @ weight_VH.T + bias_V)[:, :V].detach()
    soft, hard = soft_and_hard(case, z_NV)
    for alpha in (0.0, 0.5, 1.0):  # measured also where they do not count
        loss = replace(case, alpha=alpha).loss()
        fused(hidden_NH, weight_VH, bias_V, loss, chunk, num_columns=V)
        found = (loss.sums.kd.double(), loss.sums.ce.double())
        torch.testing.assert_close(found, (soft, hard), rtol=1e-5, atol=1e-5)
        assert loss.sums.hits == (z_NV.argmax(1) == case.labels_N).sum()
        assert loss.sums.num_answered == 10
        # Seven positions that both answered, three that the second did alone.
        torch.testing.assert_close(loss.sums.weights_K, torch.tensor([7 * 0.25, 7 * 0.75 + 3]))


@chunks
def test_teacher_equal_to_student_is_zero(chunk: Chunk) -> None:
    hidden_NH, weight_VH = drawn(0, N, H).float(), drawn(1, PADDED, H).float()
    wire = HiddenWire(dtype="float32")
    answers = TokenAnswers((wire.encode(hidden_NH),), torch.ones(1, N, dtype=torch.bool))
    loss = TokenLoss(
        torch.zeros(N, dtype=torch.long),
        V,
        ScheduleValues(temperature=2.0, alpha=1.0),
        answers,
        [Reader(wire, Head(weight_VH), V)],
        UniformMean(),
        ReverseKL(),
    )
    inputs = hidden_NH.requires_grad_(), weight_VH.clone().requires_grad_()
    for found in with_gradients(fused(*inputs, None, loss, chunk, num_columns=V), inputs):
        torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-5, rtol=0)


def test_labels_alone_need_no_teacher() -> None:
    case = Case(ForwardKL(), alpha=0.0)
    inputs = case.student()
    expected = with_gradients(dense(case, *inputs), inputs)
    for chunk in ROWS_AND_COLUMNS:
        loss = TokenLoss(case.labels_N, V, ScheduleValues(alpha=0.9))
        found = with_gradients(fused(*inputs, loss, chunk, num_columns=V), inputs)
        torch.testing.assert_close(found, expected)


def test_bfloat16_logits_are_the_rounded_ones() -> None:
    rounded = Case(ForwardKL(), wires=(DenseWire(dtype="bfloat16"), DenseWire(dtype="float32")))
    z_NV = rounded.teachers()[0][0]
    inputs = rounded.student()
    student_NV = (inputs[0] @ inputs[1].T + inputs[2])[:, :V]

    def soft(z_T_NV: Tensor) -> Tensor:
        logits_KNV = torch.stack([z_T_NV, rounded.teachers()[0][1]])
        logp_NV = log_softmax(logits_KNV.mean(0) / rounded.temperature, dim=-1)
        target = Target(logp_NV, torch.full((2, N), 0.5))
        divergence_N = rounded.objective(student_NV, target, rounded.temperature)
        hard = cross_entropy(student_NV, rounded.labels_N, reduction="sum")
        return rounded.alpha * 4 * divergence_N.sum() + (1 - rounded.alpha) * hard

    expected = with_gradients(soft(z_NV.bfloat16().float()), inputs)
    torch.testing.assert_close(chunked(rounded, Chunk(5)), expected, rtol=1e-5, atol=1e-6)


KEEPS_ALL = TopKWire(k=V, temperatures=(2.0,))


@pytest.mark.parametrize(
    "wires", [(KEEPS_ALL, KEEPS_ALL), (KEEPS_ALL, HiddenWire(dtype="float32"))]
)
def test_teachers_compared_one_by_one_have_the_gradient_of_their_mixture(
    wires: tuple[WireFormat, ...],
) -> None:
    queried_KN = torch.stack([torch.arange(N) >= 6, torch.arange(N) % 3 != 0])
    aggregation = FixedWeights(weights=(0.3, 0.7), mix="probabilities")
    case = Case(ForwardKL(), aggregation, queried_KN=queried_KN, wires=wires)
    inputs = case.student()
    expected = with_gradients(dense(case, *inputs), inputs)
    found = chunked(case, Chunk(5))
    # The kept logits travel in float16.
    torch.testing.assert_close(found[1:], expected[1:], rtol=2e-3, atol=2e-3)
    # The value is larger by what the teachers differ among themselves, Σ w_k KL(p_k ‖ p).
    target, kept_N = target_of(case)
    logp_KNV = log_softmax(case.teachers()[0][:, kept_N] / case.temperature, dim=-1)
    apart_KN = (logp_KNV.exp() * (logp_KNV - target.logp_NV)).sum(-1)
    apart = case.alpha * 4 * (target.weights_KN * apart_KN).sum()
    torch.testing.assert_close(found[0], expected[0] + apart, rtol=1e-3, atol=1e-3)


def test_sampled_gradient_is_unbiased_with_two_teachers_masks_and_padding() -> None:
    """Every position NUM_DRAWS times, each with a seed of its own; the mean within 4 σ."""
    num_draws = 1200
    wires = (SampledWire(temperature=2.0), SampledWire(temperature=2.0, exponent=0.7, seed=3))
    queried_KN = torch.stack([torch.arange(N) >= 6, torch.arange(N) % 3 != 0])
    case = Case(
        ForwardKL(), UniformMean(mix="probabilities"), 1.0, queried_KN=queried_KN, wires=wires
    )
    logits_KNV, readers, _ = case.teachers()
    repeated_KP = queried_KN.repeat(1, num_draws)
    payloads = []
    for k, wire in enumerate(wires):
        seeds = np.flatnonzero(repeated_KP[k].numpy())
        said_PV = logits_KNV[k].repeat(num_draws, 1)[repeated_KP[k]]
        payloads.append(wire.encode(said_PV, seeds))
    loss = TokenLoss(
        case.labels_N.repeat(num_draws),
        V,
        ScheduleValues(2.0, 1.0),
        TokenAnswers(tuple(payloads), repeated_KP),
        readers,
        case.aggregation,
        ForwardKL(),
    )
    z_NV = drawn(5, N, V).float()
    # With the identity as the head, the hidden states' gradient is the logits'.
    z_PV = z_NV.repeat(num_draws, 1).requires_grad_()
    head_VV = torch.cat([torch.eye(V), torch.ones(PADDED - V, V)])
    value = fused(z_PV, head_VV, None, loss, Chunk(4096), num_columns=V)
    (grad_PV,) = torch.autograd.grad(value, z_PV)
    draws_DNV = grad_PV.reshape(num_draws, N, V)
    student_NV = z_NV.requires_grad_()
    soft, _ = soft_and_hard(case, student_NV)
    (expected_NV,) = torch.autograd.grad(soft, student_NV)
    error_NV = draws_DNV.std(0) / num_draws**0.5
    assert ((draws_DNV.mean(0) - expected_NV).abs() <= 4 * error_NV + 1e-6).all()
    # The bound can be missed: it is far below the gradient itself.
    assert error_NV.norm() < 0.05 * expected_NV.norm()


def test_uld_compares_each_teacher_in_its_own_vocabulary() -> None:
    case = Case(UniversalLogits(), FixedWeights(weights=(0.3, 0.7)), alpha=1.0)
    wide_NV, narrow_NV = drawn(7, N, V + 3).float(), drawn(8, N, V - 4).float()
    wire = DenseWire(dtype="float32")
    payloads = tuple(wire.encode(z) for z in (wide_NV, narrow_NV))
    loss = TokenLoss(
        case.labels_N,
        V,
        ScheduleValues(2.0, 1.0),
        TokenAnswers(payloads, case.queried_KN),
        [Reader(wire, None, V + 2), Reader(wire)],  # the wide one's last column is padding
        case.aggregation,
        case.objective,
    )
    inputs = case.student()
    found = with_gradients(fused(*inputs, loss, Chunk(5), num_columns=V), inputs)
    p_S_NV = ((inputs[0] @ inputs[1].T + inputs[2])[:, :V] / 2).softmax(-1)

    def apart(z_NV: Tensor) -> Tensor:
        total = torch.zeros(())
        for z_V, p_S_V in zip(z_NV, p_S_NV, strict=True):
            p_T = sorted((z_V / 2).softmax(-1), reverse=True)
            p_S = sorted(p_S_V, key=lambda p: p.item(), reverse=True)
            width = max(len(p_T), len(p_S))
            zeros = [torch.zeros(())] * width
            pairs = zip((p_T + zeros)[:width], (p_S + zeros)[:width], strict=True)
            total = total + sum(((a - b).abs() for a, b in pairs), torch.zeros(()))
        return total

    value = 2 * (0.3 * apart(wide_NV[:, : V + 2]) + 0.7 * apart(narrow_NV))
    expected = with_gradients(value, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, check_dtype=False)


def test_mixing_that_a_wire_cannot_serve_is_refused() -> None:
    exact, cut = HiddenWire(), TopKWire()
    check_mixing(UniformMean(), [exact, exact], ForwardKL())
    check_mixing(UniformMean(mix="probabilities"), [exact, cut], ForwardKL())
    check_mixing(Single(teacher="a"), [cut, cut], ForwardKL())  # nothing to mix
    check_mixing(UniformMean(), [exact, exact], UniversalLogits())
    with pytest.raises(ConfigError, match=r"aggregation.mix: logits .*topk.*mix: probabilities"):
        check_mixing(UniformMean(), [exact, cut], ForwardKL())
    with pytest.raises(ConfigError, match=r"aggregation.type 'uncertainty'.*sampled"):
        check_mixing(Uncertainty(), [SampledWire()], ForwardKL())
    with pytest.raises(ConfigError, match=r"aggregation.type 'uncertainty'.*'uld'"):
        check_mixing(Uncertainty(), [exact, exact], UniversalLogits())
    for trained in (Attention(), LearnedRouter()):
        check_mixing(trained, [exact, exact], ForwardKL())
        with pytest.raises(ConfigError, match=rf"'{trained.type}' needs .*topk.*the wire hidden"):
            check_mixing(trained, [exact, cut], ForwardKL())


def test_chunks_fill_the_budget_and_split_the_vocabulary_only_where_rows_do_not_fit() -> None:
    case = Case(ForwardKL())
    per_row = 4 * V * 3 / 1e6  # the student's and two teachers', float32
    assert case.loss().chunk(100 * per_row + 1e-9) == Chunk(100)
    tight = case.loss().chunk(2 * per_row)
    assert tight.columns is not None and tight.columns < V
    # The surest teacher is known only once its logits are whole.
    assert Case(ForwardKL(), Uncertainty()).loss().chunk(2 * per_row + 1e-9) == Chunk(2)


@pytest.mark.parametrize("num_passes", [2, 3])
@pytest.mark.parametrize("objective", [ForwardKL(), ReverseKL()], ids=lambda o: o.type)
def test_a_teacher_with_several_forwards_counts_the_mean_of_its_divergences(
    objective: Objective, num_passes: int
) -> None:
    """(1/M) Σ_m D(p_k^m, p_S), with another teacher that has one forward; each by its weight."""
    wire = DenseWire(dtype="float32")
    said_MNV, other_NV = drawn(30, num_passes, N, V).float(), drawn(31, N, V).float()
    queried_KN = torch.stack([torch.ones(N, dtype=torch.bool), torch.arange(N) % 3 != 0])
    payloads = (
        torch.cat([wire.encode(said_NV) for said_NV in said_MNV], dim=1),
        wire.encode(other_NV[queried_KN[1]]),
    )
    loss = TokenLoss(
        torch.zeros(N, dtype=torch.long),
        V,
        ScheduleValues(2.0, 1.0),
        TokenAnswers(payloads, queried_KN),
        [Reader(wire, None, V, num_passes), Reader(wire, None, V)],
        FixedWeights(weights=(0.25, 0.75), mix="divergences"),
        objective,
    )
    z_NV = drawn(5, N, V).requires_grad_()
    found = fused(z_NV, torch.eye(V).double(), None, loss, Chunk(5))

    def apart(z_T_NV: Tensor) -> Tensor:
        p_T, p_S = (z_T_NV.double() / 2).softmax(-1), (z_NV / 2).softmax(-1)
        a, b = (p_T, p_S) if objective.type == "forward_kl" else (p_S, p_T)
        return (a * (a / b).log()).sum(-1)

    first_N = torch.stack([apart(said_NV) for said_NV in said_MNV]).mean(0)
    w_N = torch.where(queried_KN[1], 0.25, 1.0)
    expected = 4 * (w_N * first_N + (1 - w_N) * apart(other_NV)).sum()
    torch.testing.assert_close(
        with_gradients(found, (z_NV,)), with_gradients(expected, (z_NV,)), rtol=1e-5, atol=1e-5
    )
    sums = loss.sums
    torch.testing.assert_close(sums.weights_K, torch.stack([w_N.sum(), (1 - w_N).sum()]).float())
    expected_K = torch.stack([first_N.sum(), apart(other_NV)[queried_KN[1]].sum()])
    torch.testing.assert_close(sums.apart_K, (4 * expected_K).float(), rtol=1e-4, atol=1e-4)
    assert sums.num_apart_K.tolist() == [N, int(queried_KN[1].sum())]
