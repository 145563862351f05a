"""Attention over teachers: the good one wins with labels, and each loss trains only its own part.

Shape suffixes: B rows, K teachers, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.aggregation import Aggregation, Attention, Uncertainty, UniformMean
from distill.config import Optimizer, Student, Trainer
from distill.models.features import feature_space
from distill.models.student import build_feature_student
from distill.objectives import ForwardKL, TotalVariation
from distill.records import UNLABELLED, Batch, LossOutput, ScheduleValues, TeacherAnswers
from distill.training.class_module import DistillModule
from distill.training.engines import TorchEngine
from tests.objective_references import weighted_sum
from tests.toys import NUM_CLASSES, ToyTeachers, tiny_bert, toy_batches

TEACHERS = ("good", "uniform", "random")
NUM_FEATURES, CLASSES = 6, ("a", "b", "c", "d")
NUM_TRAINED, NUM_TESTED, BATCH_SIZE, NUM_STEPS, LR = 128, 512, 32, 80, 1e-2


class Task:
    """Rows whose labels a noisy linear map decides, and three teachers: one knows the map, one is
    uniform, and one is random and sure of it."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        num_rows = NUM_TRAINED + NUM_TESTED
        self.features_BD = normal(num_rows, NUM_FEATURES)
        scores_BC = self.features_BD @ normal(NUM_FEATURES, len(CLASSES))
        self.labels_B = (scores_BC + 0.3 * normal(num_rows, len(CLASSES))).argmax(1)
        random_BC = 4 * normal(num_rows, len(CLASSES))
        self.logits_KBC = torch.stack([2 * scores_BC, torch.zeros_like(scores_BC), random_BC])

    def part(self, rows_B: Tensor) -> tuple[Batch, TeacherAnswers]:
        count = len(rows_B)
        batch = Batch(
            rows_B=rows_B.numpy(),
            labels_B=self.labels_B[rows_B],
            domains_B=torch.full((count,), -1),
            valid_B=torch.ones(count, dtype=torch.bool),
            num_valid=count,
            num_labelled=int((self.labels_B[rows_B] != UNLABELLED).sum()),
            features_BD=self.features_BD[rows_B],
        )
        are_asked_KB = torch.ones(len(TEACHERS), count, dtype=torch.bool)
        return batch, TeacherAnswers(self.logits_KBC[:, rows_B], are_asked_KB)

    def trained(
        self, aggregation: Aggregation, seed: int, schedule_values: ScheduleValues
    ) -> tuple[float, Tensor]:
        """The student's test accuracy, and the mean weight of each teacher on the test rows."""
        space = feature_space([str(i) for i in range(NUM_FEATURES)], [0.0] * 6, [1.0] * 6)
        student = build_feature_student(Student(layers=1, hidden=16, dropout=0), space, CLASSES, 0)
        torch.manual_seed(seed)
        module = DistillModule(student, ForwardKL(), aggregation, TEACHERS, len(CLASSES))
        engine = TorchEngine(module, Optimizer(lr=LR), Trainer(engine="torch"), torch.device("cpu"))
        engine.train()
        for step in range(NUM_STEPS):
            rows_B = torch.arange(step * BATCH_SIZE, (step + 1) * BATCH_SIZE) % NUM_TRAINED
            engine.backward(engine.forward(*self.part(rows_B), schedule_values).loss)
            engine.step(LR)
        engine.eval()
        tested_B = torch.arange(NUM_TRAINED, NUM_TRAINED + NUM_TESTED)
        with torch.no_grad():
            output: Any = module(*self.part(tested_B), schedule_values)
        hits_B = output.logits_BV.argmax(1) == self.labels_B[tested_B]
        return float(hits_B.float().mean()), output.weights_KB.mean(1)


@pytest.mark.parametrize("alpha", [0.7, 0.9])
@pytest.mark.parametrize("temperature", [2.0, 4.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_good_teacher_wins_and_the_student_gains(
    seed: int, temperature: float, alpha: float
) -> None:
    task, schedule_values = Task(seed), ScheduleValues(temperature, alpha)
    accuracy, weights_K = task.trained(Attention(), seed, schedule_values)
    of_mean, _ = task.trained(UniformMean(), seed, schedule_values)
    assert weights_K[0] >= 0.8
    assert accuracy >= of_mean


def test_a_few_labels_train_weights_that_are_used_on_all_rows() -> None:
    """Every eighth row has a label; those without one count in the distillation loss alone."""
    task = Task(0)
    no_label = torch.arange(NUM_TRAINED) % 8 != 0
    task.labels_B[:NUM_TRAINED][no_label] = UNLABELLED
    _, weights_K = task.trained(Attention(), 0, ScheduleValues(2.0, 0.9))
    assert weights_K[0] >= 0.8


# ---- which loss trains what -------------------------------------------------------------------


def drawn(aggregation: Attention, objective: Any = None) -> tuple[Any, Any, Any]:
    """A module whose attention differs between rows, and one batch: every fourth row has no label,
    the second teacher is queried for even rows only."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module: Any = DistillModule(
            tiny_bert(0), objective or ForwardKL(), aggregation, ("a", "b"), NUM_CLASSES
        )
        for param in module.router.parameters():
            torch.nn.init.normal_(param, std=0.3)
    ((batch, answers),) = parts_of(0)
    return module, batch, answers


def parts_of(step: int, **cut: Any) -> list[tuple[Any, Any]]:
    """The parts of a step, under teachers that differ: those of tiny_bert are nearly uniform."""
    teachers = ToyTeachers([tiny_bert(8), tiny_bert(9)])
    parts = next(teachers.feed(toy_batches(shuffle=False, **cut), step, step + 1)).parts
    return [
        (batch, replace(payloads, logits_KBV=30 * payloads.logits_KBV)) for batch, payloads in parts
    ]


def expected(
    module: DistillModule, batch: Any, answers: Any, schedule_values: ScheduleValues
) -> tuple[Any, ...]:
    """KD term, cross-entropy, likelihood and entropy by their definitions, row by row."""
    attention: Any = module.aggregation
    hidden_BTH = module.student(**batch.inputs(), output_hidden_states=True).hidden_states[-1]
    logits_BV = module.student(**batch.inputs()).logits
    soft = hard = likelihood = entropy = torch.zeros(())
    num_labelled = int((batch.labels_B != UNLABELLED).sum())
    for b in range(len(batch.labels_B)):
        own_TH = hidden_BTH[b, batch.attention_mask_BT[b] == 1]
        asked = answers.queried_KB[:, b]
        score_K: Any = module.router(own_TH.mean(0)[None].detach())[0]  # type: ignore[misc]
        weights_K = score_K[asked].softmax(0)
        probs_KV = answers.logits_KBV[asked, b].softmax(-1)
        at_T_KV = (answers.logits_KBV[asked, b] / schedule_values.temperature).softmax(-1)
        target_V = (weights_K.detach()[:, None] * at_T_KV).sum(0)
        logp_V = (logits_BV[b] / schedule_values.temperature).log_softmax(-1)
        soft = soft + (target_V * (target_V.log() - logp_V)).sum() / len(batch.labels_B)
        entropy = entropy - (weights_K * weights_K.log()).sum() / len(batch.labels_B)
        if (y := int(batch.labels_B[b])) != UNLABELLED:
            hard = hard - logits_BV[b].log_softmax(-1)[y] / num_labelled
            likelihood = likelihood - (weights_K * probs_KV[:, y]).sum().log() / num_labelled
    scale = schedule_values.alpha * schedule_values.temperature**2
    student = scale * soft + (1 - schedule_values.alpha) * hard
    return student, likelihood - scale * attention.entropy_weight * entropy


def gradients(module: DistillModule, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward(retain_graph=True)
    zero = torch.zeros(())
    return {n: p.grad.clone() if p.grad is not None else zero for n, p in module.named_parameters()}


def test_loss_and_every_gradient_are_those_of_the_definitions() -> None:
    """With a β that is seen: the student's gradients are those of its own two terms, and the
    network's those of likelihood and entropy."""
    module, batch, answers = drawn(Attention(dropout=0, entropy_weight=0.5))
    schedule_values = ScheduleValues(temperature=3.0, alpha=0.6)
    found = module(batch, answers, schedule_values)
    student, network = expected(module, batch, answers, schedule_values)
    torch.testing.assert_close(found.loss, student + network, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.metrics["loss"].sum, student.detach(), rtol=1e-5, atol=1e-5)
    of_student, of_network = gradients(module, student), gradients(module, network)
    for name, gradient in gradients(module, found.loss).items():
        own = of_network if name.startswith("router.") else of_student
        torch.testing.assert_close(gradient, own[name], rtol=1e-3, atol=1e-5)
        assert not name.startswith("router.") or of_network[name].norm() > 1e-4


def test_the_distillation_loss_does_not_train_the_weights_at_all() -> None:
    """Without labels and without β nothing does: the gradient is exactly zero."""
    module, batch, answers = drawn(Attention(dropout=0, entropy_weight=0.0))
    batch = replace(batch, labels_B=torch.full_like(batch.labels_B, UNLABELLED), num_labelled=0)
    found = module(batch, answers, ScheduleValues(4.0, 0.9))
    of_router = {n: g for n, g in gradients(module, found.loss).items() if n.startswith("router.")}
    assert of_router and all((gradient == 0).all() for gradient in of_router.values())
    assert found.metrics["router.loss"].count == 0


def test_the_likelihood_does_not_train_the_student() -> None:
    """At α = 1, of a teacher that is the student, its own loss is 0 and its likelihood is not."""
    module, batch, answers = drawn(Attention(dropout=0))
    logits_BV = module.eval().student(**batch.inputs()).logits.detach()
    answers = TeacherAnswers(logits_BV.expand(2, -1, -1), torch.ones_like(answers.queried_KB))
    found = module(batch, answers, ScheduleValues(1.0, 1.0))
    assert found.metrics["router.loss"].sum > 1
    of_student = [g for n, g in gradients(module, found.loss).items() if n.startswith("student.")]
    assert max(float(gradient.abs().max()) for gradient in of_student) < 1e-6


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_entropy_has_the_factor_of_the_distillation_loss(alpha: float) -> None:
    """α · c(T): T² for KL, T for total variation; of a list Σ w_i · c_i(T)."""
    several = weighted_sum((2, "forward_kl"), (0.1, "cosine"))
    for objective, scale in ((ForwardKL(), 9.0), (TotalVariation(), 3.0), (several, 18.1)):
        losses = []
        for beta in (0.0, 0.1):
            module, batch, answers = drawn(Attention(dropout=0, entropy_weight=beta), objective)
            losses.append(module(batch, answers, ScheduleValues(3.0, alpha)))
        entropy = losses[1].metrics["router.entropy"]
        difference = losses[0].loss - losses[1].loss
        wanted = alpha * scale * 0.1 * entropy.sum / entropy.count
        torch.testing.assert_close(difference, wanted, rtol=1e-4, atol=1e-5)


def test_a_teacher_that_was_not_queried_has_no_weight() -> None:
    module, batch, answers = drawn(Attention(dropout=0))
    found: LossOutput = module.eval()(batch, answers, ScheduleValues(2.0, 0.7))
    assert found.weights_KB is not None
    assert (found.weights_KB[~answers.queried_KB] == 0).all()
    torch.testing.assert_close(found.weights_KB.sum(0), torch.ones(len(batch.labels_B)))
    alone = ~answers.queried_KB[1]
    assert alone.any() and (found.weights_KB[0][alone] == 1).all()


@pytest.mark.parametrize(
    ("step", "world_size", "micro"), [(0, 1, 5), (0, 2, None), (0, 3, 2), (4, 3, None)]
)
def test_ranks_and_micro_batches_add_up_to_the_global_batch(
    step: int, world_size: int, micro: int | None
) -> None:
    """Of unequal parts, some without a label, one (step 4) a filler: the loss, its gradients, and
    the metrics' sums."""
    module, _, _ = drawn(Attention(dropout=0, entropy_weight=0.5))
    schedule_values = ScheduleValues(2.0, 0.7)
    ((batch, answers),) = parts_of(step)
    whole = module(batch, answers, schedule_values)
    cuts = [{"rank": r, "world_size": world_size, "micro": micro} for r in range(world_size)]
    parts = [module(*part, schedule_values) for cut in cuts for part in parts_of(step, **cut)]
    assert len(parts) > 1
    total = torch.stack([part.loss for part in parts]).sum()
    torch.testing.assert_close(total, whole.loss, rtol=1e-5, atol=1e-6)
    wanted = gradients(module, whole.loss)
    for name, gradient in gradients(module, total).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-6)
    for name in ("router.loss", "router.entropy", "teacher.b.weight"):
        for field in ("sum", "count"):
            values = [getattr(part.metrics[name], field) for part in parts]
            of_whole = getattr(whole.metrics[name], field)
            torch.testing.assert_close(torch.stack(values).sum(), of_whole, rtol=1e-4, atol=1e-4)


def test_metrics_are_their_definitions() -> None:
    """The accuracy is that of rows whose domain a teacher is named like: here of domain 1 alone."""
    module, batch, answers = drawn(Attention(dropout=0))
    module._domain_teachers = (-1, 1)
    metrics = module(batch, answers, ScheduleValues()).metrics
    weights_KB = module.eval()(batch, answers, ScheduleValues()).weights_KB
    is_home_B = batch.domains_B == 1
    accuracy = metrics["router.accuracy"]
    assert accuracy.count == is_home_B.sum()
    assert accuracy.sum == (weights_KB.argmax(0) == 1)[is_home_B].sum()
    assert metrics["router.loss"].count == (batch.labels_B != UNLABELLED).sum()
    entropy_B = torch.special.entr(weights_KB).sum(0)
    torch.testing.assert_close(metrics["router.entropy"].sum, entropy_B.sum())


def test_bf16_parameters_give_float32_weights() -> None:
    """As DeepSpeed's bf16 makes them."""
    module, batch, answers = drawn(Attention(dropout=0))
    wanted = module.eval()(batch, answers, ScheduleValues()).weights_KB
    module.router.bfloat16()
    found = module(batch, answers, ScheduleValues()).weights_KB
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.1)


# ---- without labels ---------------------------------------------------------------------------


def test_without_labels_it_is_uncertainty_in_the_same_space() -> None:
    attention = Attention(mix="logits")
    assert attention.without_labels() == Uncertainty(mix="logits")
    assert UniformMean().without_labels() == UniformMean()
