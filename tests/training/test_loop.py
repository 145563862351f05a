"""The loop's promises, on real tiny models: equal whatever the cut, resumable bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.aggregation import Attention, UniformMean
from distill.config import KD, Optimizer, Trainer
from distill.errors import CheckpointError, Interrupted, TrainingError
from distill.objectives import ForwardKL
from distill.records import Cursor, ScheduleValues, TeacherAnswers
from distill.training.checkpoints import FolderStore
from distill.training.class_module import DistillModule
from distill.training.engines import TorchEngine
from distill.training.loop import (
    NoTeachers,
    Selection,
    TrainingIntervals,
    _over_ranks,
    train,
)
from distill.training.schedule import Schedule
from tests.toys import NUM_CLASSES, ToyTeachers, tiny_bert, toy_batches

CPU = torch.device("cpu")
TEACHERS = ("a", "b")


def module_of(aggregation: Any = None, dropout: float = 0.0, student: Any = None) -> DistillModule:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return DistillModule(
            student or tiny_bert(0, dropout),
            ForwardKL(),
            aggregation or UniformMean(),
            TEACHERS,
            NUM_CLASSES,
        )


def run(
    folder: Path,
    num_steps: int = 12,
    stop_at: int | None = None,
    micro: int | None = None,
    aggregation: Any = None,
    dropout: float = 0.1,
) -> tuple[Cursor, DistillModule, list[tuple[int, dict[str, float]]]]:
    """A fit of ``num_steps``, cut after ``stop_at`` steps if given."""
    torch.manual_seed(3)
    module = module_of(aggregation, dropout)
    engine = TorchEngine(module, Optimizer(lr=5e-3), Trainer(engine="torch"), CPU)
    store = FolderStore(folder)
    lines: list[tuple[int, dict[str, float]]] = []

    def log(step: int, metrics: dict[str, float]) -> None:
        lines.append((step, metrics))

    try:
        cursor = train(
            engine,
            toy_batches(micro=micro),
            ToyTeachers([tiny_bert(8), tiny_bert(9)]),
            Schedule(num_steps, Optimizer(lr=5e-3), KD(temperature=2, alpha=0.7)),
            store,
            lambda engine: {"eval.accuracy": 0.5},
            Selection("eval.accuracy"),
            TrainingIntervals(log=1, evaluate=5, checkpoint=4),
            log,
            lambda: stop_at is not None and len(lines) >= stop_at,
        )
    except Interrupted:
        cursor = Cursor(step=stop_at or 0)
    return cursor, module, lines


@pytest.mark.parametrize("aggregation", [UniformMean(), Attention()], ids=lambda a: a.type)
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, aggregation: Any) -> None:
    _, whole, lines = run(tmp_path / "whole", aggregation=aggregation)
    run(tmp_path / "cut", stop_at=7, aggregation=aggregation)
    torch.rand(100)  # the resumed process has other random numbers behind it
    cursor, resumed, rest = run(tmp_path / "cut", aggregation=aggregation)
    assert cursor.step == 12 and rest[0][0] > 5
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert lines[-1] == rest[-1]


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    _, whole, lines = run(tmp_path / "whole", dropout=0)
    _, cut, cut_lines = run(tmp_path / "cut", micro=5, dropout=0)
    for (_, a), (_, b) in zip(lines, cut_lines, strict=True):
        assert a.get("loss", 0) == pytest.approx(b.get("loss", 0), rel=1e-5)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(tensor, cut.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_loss_is_the_mean_over_the_global_batch() -> None:
    module = module_of().eval()
    (whole,) = toy_batches(shuffle=False).at(0)
    parts = toy_batches(shuffle=False, micro=3).at(0)
    teachers = ToyTeachers([tiny_bert(8), tiny_bert(9)])

    def losses(batches: Any) -> torch.Tensor:
        (step,) = teachers.feed(batches, 0, 1)
        schedule_values = ScheduleValues(temperature=2.0, alpha=0.4)
        return torch.stack([module(b, a, schedule_values).loss for b, a in step.parts])

    assert len(parts) == 4 and whole.num_labelled == 9
    (expected,) = losses(toy_batches(shuffle=False))
    torch.testing.assert_close(losses(toy_batches(shuffle=False, micro=3)).sum(), expected)


def test_a_filler_row_adds_nothing() -> None:
    module = module_of()
    batch = toy_batches(rank=3, world_size=4, shuffle=False).at(4)[0]  # 2 rows for 4 ranks
    assert not batch.valid_B.any()
    payloads = TeacherAnswers(torch.zeros(2, 1, NUM_CLASSES), torch.ones(2, 1, dtype=torch.bool))
    output = module(batch, payloads, ScheduleValues(temperature=2.0, alpha=0.5))
    output.loss.backward()
    assert output.loss == 0
    assert all((p.grad is None) or (p.grad == 0).all() for p in module.parameters())


def test_teacher_equal_to_student_gives_no_soft_loss() -> None:
    student = tiny_bert(4)
    module = module_of(student=student).eval()
    (step,) = ToyTeachers([student, student], all_teachers=True).feed(toy_batches(), 0, 1)
    batch, payloads = step.parts[0]
    output = module(batch, payloads, ScheduleValues(temperature=3.0, alpha=1.0))
    assert abs(output.loss.item()) < 1e-6
    assert output.metrics["teacher.a.kl"].sum < 1e-5


def test_alpha_weighs_soft_against_hard() -> None:
    module = module_of().eval()
    (step,) = ToyTeachers([tiny_bert(8), tiny_bert(9)]).feed(toy_batches(), 0, 1)
    batch, payloads = step.parts[0]

    def loss(alpha: float) -> torch.Tensor:
        return module(batch, payloads, ScheduleValues(temperature=2.0, alpha=alpha)).loss

    torch.testing.assert_close(loss(0.3), 0.3 * loss(1.0) + 0.7 * loss(0.0))
    hard = module(
        batch, None, ScheduleValues(alpha=1.0)
    ).loss  # without teachers: cross-entropy alone
    torch.testing.assert_close(loss(0.0), hard)


def test_unlabelled_batches_train_on_the_teachers_alone() -> None:
    module = module_of()
    (step,) = ToyTeachers([tiny_bert(8), tiny_bert(9)]).feed(toy_batches(), 0, 1)
    batch, payloads = step.parts[0]
    unlabelled = replace(batch, labels_B=torch.full_like(batch.labels_B, -100), num_labelled=0)
    output = module(unlabelled, payloads, ScheduleValues(temperature=2.0, alpha=0.5))
    assert output.loss.isfinite() and output.loss > 0 and "ce.loss" not in output.metrics


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    module = module_of()
    optimizer = Optimizer(lr=1e-3)
    engine = TorchEngine(module, optimizer, Trainer(engine="torch"), CPU)

    class Poisoned(NoTeachers):
        def feed(self, batches: Any, start: int, stop: int, wait: Any = None) -> Any:
            for step in super().feed(batches, start, stop):
                if step.step == 6:
                    with torch.no_grad():
                        module.student.classifier.bias.fill_(float("nan"))  # type: ignore[union-attr]
                yield step

    with pytest.raises(TrainingError, match="gradient norm became nan by step 7"):
        train(
            engine,
            toy_batches(),
            Poisoned(),
            Schedule(10, optimizer),
            FolderStore(tmp_path),
            lambda engine: {"eval.accuracy": 0.5},
            Selection("eval.accuracy"),
            TrainingIntervals(log=1, evaluate=100, checkpoint=4),
        )
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000004"]


def test_a_corrupt_checkpoint_is_refused_with_the_way_out(tmp_path: Path) -> None:
    run(tmp_path, num_steps=8)
    damaged = tmp_path / "checkpoints/step-00000008/engine.pt"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"engine.pt is corrupt.*delete .*step-00000008"):
        run(tmp_path, num_steps=12)
    damaged.unlink()
    with pytest.raises(CheckpointError, match=r"engine.pt is missing"):
        run(tmp_path, num_steps=12)


def test_schedule_warms_up_and_decays() -> None:
    cosine = Schedule(100, Optimizer(lr=1.0, warmup=0.1, decay="cosine"))
    assert [cosine.at(s).lr for s in (0, 9)] == pytest.approx([0.1, 1.0])
    assert cosine.at(55).lr == pytest.approx(0.5) and cosine.at(99).lr < 0.001
    linear = Schedule(100, Optimizer(lr=1.0, warmup=0, decay="linear"))
    assert linear.at(75).lr == pytest.approx(0.25)
    constant = Schedule(100, Optimizer(lr=1.0, warmup=0, decay="constant"), KD(temperature=4))
    assert constant.at(99) == ScheduleValues(temperature=4, alpha=0.5, lr=1.0)


def test_ranks_add_up_what_each_of_them_has_to_tell():
    """A rank that heard nothing of a mixture counts neither in its sums nor in its means."""

    class TwoRanks:
        device, world_size = CPU, 2

        def reduce(self, both):
            other = {"a.rows": 5.0, "b.silent_mass_rate": 0.5, "c.idlest_expert_rate": math.nan}
            values = torch.tensor([other[name] for name in sorted(other)], dtype=torch.float64)
            known = ~values.isnan()
            return both + torch.stack([values.nan_to_num(), known.double()])

    mine = {"a.rows": 3.0, "b.silent_mass_rate": math.nan, "c.idlest_expert_rate": math.nan}
    assert _over_ranks(mine, TwoRanks()) == {"a.rows": 8.0, "b.silent_mass_rate": 0.5}
