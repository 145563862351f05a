"""Temperature schedules in the loop: a fit resumed within a log interval is the undisturbed one."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.aggregation import UniformMean
from distill.config import KD, Optimizer
from distill.config.temperature import Auto, ConstantTemperature, Convergence, Cosine, LossRatio
from distill.objectives import ForwardKL
from distill.records import UNLABELLED, Cursor, Mean
from distill.training.checkpoints import FolderStore
from distill.training.class_module import DistillModule
from distill.training.loop import Meters, Selection, TrainingIntervals, train
from distill.training.schedule import Schedule
from tests.toys import NUM_CLASSES, ToyTeachers, tiny_bert, toy_batches
from tests.toys_ranks import Ranks, ThreadEngine

NUM_STEPS, LOG, CHECKPOINT = 20, 3, 5
OPTIMIZER = Optimizer(lr=6e-2)  # high: a loss that rises at times
CASES = [(LossRatio(), 1), (Convergence(), 1), (Auto(low=1.2), 1), (Cosine(), 1), (LossRatio(), 2)]
Lines = list[tuple[int, dict[str, float]]]
Fit = tuple[Cursor, dict[str, Tensor], Lines]
Whole = Callable[..., Fit]


class Killed(Exception):
    pass


class Teachers(ToyTeachers):
    """Two teachers; the process ends before a step."""

    def __init__(self, killed_at: int | None = None) -> None:
        super().__init__([tiny_bert(8), tiny_bert(9)])
        self._killed_at = killed_at

    def feed(self, batches: Any, start: int, stop: int, wait: Any = None) -> Any:
        for step in super().feed(batches, start, stop):
            if step.step == self._killed_at:
                raise Killed
            yield step


def module_of() -> DistillModule:
    student = tiny_bert(0)
    return DistillModule(student, ForwardKL(), UniformMean(), ("a", "b"), NUM_CLASSES)


def run(folder: Path, schedule: Any, num_ranks: int = 1, killed_at: int | None = None) -> Fit:
    """A fit, or the rest of one; of the first rank: the cursor, weights, and training metrics."""
    ranks = Ranks(num_ranks)
    # In this thread: the seed of their weights is the process's.
    engines = [ThreadEngine(module_of(), ranks, rank, OPTIMIZER) for rank in range(num_ranks)]
    sources = [Teachers(killed_at) for _ in range(num_ranks)]
    lines: Lines = []

    def rank_main(rank: int) -> Cursor:
        return train(
            engines[rank],
            toy_batches(rank=rank, world_size=num_ranks, micro=4),
            sources[rank],
            Schedule(NUM_STEPS, OPTIMIZER, KD(temperature=2, alpha=0.7, schedule=schedule)),
            FolderStore(folder, num_ranks),
            lambda engine: {"eval.accuracy": 0.5},
            Selection("eval.accuracy"),
            TrainingIntervals(LOG, 100, CHECKPOINT),
            logger(lines) if rank == 0 else lambda step, metrics: None,
        )

    with ThreadPoolExecutor(num_ranks) as pool:
        fits = [pool.submit(rank_main, rank) for rank in range(num_ranks)]
        cursors = [fit.result() for fit in fits]
    assert all(cursor == cursors[0] for cursor in cursors)
    return cursors[0], engines[0].module_state(), lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Undisturbed fits, each once: (schedule, number of ranks) -> what :func:`run` returns."""
    return functools.cache(lambda *args: run(tmp_path_factory.mktemp("whole"), *args))


def logger(lines: Lines) -> Callable[[int, dict[str, float]], None]:
    """Keeps the training metrics, not the evaluations."""
    return lambda step, metrics: lines.append((step, metrics)) if "loss" in metrics else None


def saved_cursor(folder: Path) -> dict[str, Any]:
    newest = max((folder / "checkpoints").glob("step-*"))
    return json.loads((newest / "cursor.json").read_text())["cursor"]


@pytest.mark.parametrize(("schedule", "num_ranks"), CASES, ids=lambda c: getattr(c, "type", c))
def test_killed_within_an_interval_and_resumed_is_undisturbed(
    tmp_path: Path, whole: Whole, schedule: Any, num_ranks: int
) -> None:
    undisturbed, weights, lines = whole(schedule, num_ranks)
    temperatures = [metrics["kd.temperature"] for _, metrics in lines]
    assert schedule == Cosine() or temperatures[4] > temperatures[3]  # the loss rose by step 12
    with pytest.raises(Killed):
        run(tmp_path, schedule, num_ranks, killed_at=12)
    cut = saved_cursor(tmp_path)
    assert cut["step"] == 10 and cut["step"] % LOG != 0
    assert len(cut["open_loss"]) == (num_ranks if schedule.reads_losses else 0)
    resumed, resumed_weights, rest = run(tmp_path, schedule, num_ranks)
    assert all(torch.equal(resumed_weights[name], tensor) for name, tensor in weights.items())
    assert resumed.losses == undisturbed.losses
    assert [m["kd.temperature"] for _, m in rest] == temperatures[3:]
    if schedule.reads_losses:
        assert [m["ce.loss"] for _, m in rest] == [m["ce.loss"] for _, m in lines[3:]]


@pytest.mark.parametrize("schedule", [LossRatio(), Cosine()], ids=lambda s: s.type)
def test_the_temperature_of_an_interval_follows_the_losses_of_those_before(
    whole: Whole, schedule: Any
) -> None:
    """What is logged is that of the interval's last step; steps count from 0."""
    cursor, _, lines = whole(schedule, 1)
    assert [step for step, _ in lines] == [3, 6, 9, 12, 15, 18, 20]
    means = [[step, metrics["ce.loss"]] for step, metrics in lines]
    assert cursor.losses == (means if schedule.reads_losses else [])
    for i, (step, metrics) in enumerate(lines):
        expected = schedule.at(step - 1, NUM_STEPS, 2.0, means[:i])
        assert metrics["kd.temperature"] == expected


def test_two_ranks_have_the_temperature_of_one(whole: Whole) -> None:
    """Their losses are reduced: a rank's own would differ."""
    found = [whole(Convergence(), n)[2] for n in (1, 2)]
    one, two = ([m["kd.temperature"] for _, m in lines[:4]] for lines in found)
    assert len(set(one)) > 2 and two == pytest.approx(one, rel=1e-4)


def test_a_constant_temperature_keeps_no_losses_and_reads_older_checkpoints(
    tmp_path: Path,
) -> None:
    cursor, _, lines = run(tmp_path, ConstantTemperature())
    assert cursor.losses == cursor.open_loss == []
    assert {metrics["kd.temperature"] for _, metrics in lines} == {2.0}
    saved = saved_cursor(tmp_path)
    older = {name: saved[name] for name in ("step", "best_step", "best_value", "history")}
    assert Cursor(**older) == Cursor(**saved) == cursor


class Sums:
    """The ranks' tensors of one reduction, as each of them would see it."""

    device = torch.device("cpu")

    def __init__(self, rank: int, world_size: int, others: Callable[[Tensor], Tensor]) -> None:
        self.rank, self.world_size = rank, world_size
        self.reduce = others


def test_open_sums_survive_another_number_of_ranks() -> None:
    saved = [[1.0, 1.0], [2.0, 0.5], [4.0, 2.0]]
    for num_ranks in (1, 2, 3, 5):
        total = torch.zeros(2, dtype=torch.float64)
        for rank in range(num_ranks):
            meters, engine = Meters(), Sums(rank, num_ranks, lambda values: values)
            meters.resume(engine, "ce.loss", saved)  # type: ignore[arg-type]
            total += meters.totals["ce.loss"]  # a key on every rank: all reduce the same names
        assert total.tolist() == [7.0, 3.5]


def test_open_sums_of_a_rank_are_its_own() -> None:
    meters = Meters()
    meters.add({"ce.loss": Mean(torch.tensor(0.3), torch.tensor(1.0))})
    engine: Any = Sums(
        1, 2, lambda values: values + torch.tensor([[0.1, 2.0], [0.0, 0.0]]).double()
    )
    first, second = meters.open(engine, "ce.loss")
    assert second == [float(torch.tensor(0.3)), 1.0] and first == [float(torch.tensor(0.1)), 2.0]
    assert Meters().open(engine, "ce.loss") == []


def test_an_interval_without_a_labelled_row_changes_nothing(tmp_path: Path) -> None:
    class Unlabelled(Teachers):
        def feed(self, batches: Any, start: int, stop: int, wait: Any = None) -> Any:
            for step in super().feed(batches, start, stop):
                if 3 <= step.step < 6:
                    for batch, _ in step.parts:
                        batch.labels_B.fill_(UNLABELLED)
                        object.__setattr__(batch, "num_labelled", 0)
                yield step

    lines: Lines = []
    cursor = train(
        ThreadEngine(module_of(), Ranks(1), 0, OPTIMIZER),
        toy_batches(),
        Unlabelled(),
        Schedule(9, OPTIMIZER, KD(schedule=LossRatio())),
        FolderStore(tmp_path),
        lambda engine: {"eval.accuracy": 0.5},
        Selection("eval.accuracy"),
        TrainingIntervals(LOG, 100, CHECKPOINT),
        lambda step, metrics: lines.append((step, metrics)) if "loss" in metrics else None,
    )
    assert [step for step, _ in cursor.losses] == [3, 9]
    assert [m["kd.temperature"] for _, m in lines] == [
        3.0,
        3.0,
        3.0,
    ]  # one mean: nothing to compare
