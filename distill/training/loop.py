"""THE training loop. Experts, routers, baselines and distilled students all train through it.

It uses an engine (plain torch, or DeepSpeed), a source of targets (teachers, or none), a
schedule, and a store of checkpoints; it starts no process and reads no configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from distill.config.temperature import LOSS
from distill.data.batches import BatchSource
from distill.errors import Interrupted, TrainingError
from distill.evaluation.quality import confusion_counts
from distill.records import (
    UNLABELLED,
    Answers,
    Batch,
    Cursor,
    LossOutput,
    Mean,
    ScheduleValues,
    Step,
)
from distill.teachers.waiting import Recovery, Wait, until_done
from distill.training.schedule import Schedule

MEANS = (
    "_depth",
    "_rate",
    ".tokens_per_row",
    ".tokens_per_call",
    ".staleness",
    ".perplexity",
    ".mass_outside",
)
"""Suffixes of the timings that are averaged over ranks; the others are summed."""


class TargetSource(Protocol):
    """Joins batches with the teachers' outputs, in order; sends requests ahead where it can."""

    def feed(
        self, batches: BatchSource, start: int, stop: int, wait: Wait = until_done
    ) -> Iterator[Step]:
        """``wait``: how it waits for the teachers; see teachers/waiting.py."""
        ...

    def timings(self) -> dict[str, float]: ...
    def flush(self) -> None:
        """Persist the outputs so far; called before a checkpoint."""
        ...

    def close(self) -> None: ...


class NoTeachers:
    """The source of targets of a fit that is trained on labels alone."""

    def feed(
        self, batches: BatchSource, start: int, stop: int, wait: Wait = until_done
    ) -> Iterator[Step]:
        for step in range(start, stop):
            yield Step(step, [(batch, None) for batch in batches.at(step)])

    def timings(self) -> dict[str, float]:
        return {}

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Engine(Protocol):
    """One rank's share of the optimisation. The plain-torch engine is the reference."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def module(self) -> nn.Module:
        """The trainable module, for forwards outside the loss; with ZeRO 3 every rank runs them."""
        ...

    is_sharded: bool
    """Whether a checkpoint can be loaded only by the same number of ranks."""

    def forward(
        self, batch: Batch, answers: Answers | None, schedule_values: ScheduleValues
    ) -> LossOutput: ...
    def backward(self, loss: Tensor) -> None: ...
    def step(self, lr: float) -> float:
        """Reduce, clip, update, clear; returns the gradient norm before clipping."""
        ...

    def train(self) -> None: ...
    def eval(self) -> None: ...
    def reduce(self, values: Tensor) -> Tensor:
        """The sum over ranks, on every rank."""
        ...

    def agree(self, value: int) -> int:
        """The largest value of all ranks, on every rank; does not wait for the device."""
        ...

    def barrier(self) -> None: ...
    def save(self, folder: Path) -> None:
        """Write model, optimizer and this rank's share; every rank calls it."""
        ...

    def load(self, folder: Path) -> None: ...
    def module_state(self) -> dict[str, Tensor]:
        """The whole trainable module, float32 on the CPU, on rank 0; every rank calls it."""
        ...


class Store(Protocol):
    """Checkpoints and best weights."""

    def restore(self, engine: Engine) -> Cursor: ...
    def save(self, engine: Engine, cursor: Cursor) -> None: ...
    def save_best(self, engine: Engine, cursor: Cursor) -> None: ...


@dataclass(frozen=True)
class TrainingIntervals:
    """Intervals, in steps."""

    log: int
    evaluate: int
    checkpoint: int


@dataclass(frozen=True)
class Selection:
    """The validation metric that selects the best weights."""

    metric: str
    prefers_low: bool = False

    def score(self, metrics: Mapping[str, float]) -> float:
        """Higher is better."""
        return -metrics[self.metric] if self.prefers_low else metrics[self.metric]


WAY_OUT = (
    ": lower optimizer.lr (with a new output), or look for damaged rows; the last checkpoint is "
    "from before this"
)
"""End of the message of a fit that diverged."""
Log = Callable[[int, dict[str, float]], None]
Evaluate = Callable[[Engine], dict[str, float]]
Report = Callable[[Cursor], None]
Announce = Callable[[str | None], None]


def train(
    engine: Engine,
    batches: BatchSource,
    source: TargetSource,
    schedule: Schedule,
    store: Store,
    evaluate: Evaluate,
    selection: Selection,
    intervals: TrainingIntervals,
    log: Log = lambda step, metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
    report: Report = lambda cursor: None,
    before_step: Callable[[int], None] = lambda step: None,
    announce: Announce = lambda reason: None,
) -> Cursor:
    """Train up to ``schedule.num_steps``, from the checkpoint that ``store`` restores.

    ``report`` is called after each evaluation, at the end of its step; it may end the fit by an
    exception. ``announce`` is called with the reason when a teacher is away (after a checkpoint),
    and with None once it is back. ``before_step`` is called with the number of the first step, and
    at the end of each step, before its evaluation, with that of the next. Raises Interrupted after
    a checkpoint if a stop is requested, TeacherAway after one if a teacher stays away,
    TrainingError on a loss, gradient norm or evaluation that is not finite; the last checkpoint
    stays in all cases.
    """
    cursor = store.restore(engine)
    meters = Meters()
    meters.resume(engine, LOSS, cursor.open_loss)
    engine.train()

    def save() -> None:
        if schedule.reads_losses:
            cursor.open_loss = meters.open(engine, LOSS)
        store.save(engine, cursor)

    recovery = Recovery(engine, save, announce, should_stop)
    before_step(cursor.step)
    for step in source.feed(batches, cursor.step, schedule.num_steps, recovery):
        schedule_values = schedule.at(step.step, cursor.losses)
        for batch, answers in step.parts:
            output = engine.forward(batch, answers, schedule_values)
            engine.backward(output.loss)
            meters.add(output.metrics)
        meters.grad_norm = engine.step(schedule_values.lr)
        cursor.step = step.step + 1
        before_step(cursor.step)
        _refuse_divergence("gradient norm", meters.grad_norm, cursor.step)

        is_last = cursor.step == schedule.num_steps
        is_stopping = False
        if cursor.step % intervals.log == 0 or is_last:
            metrics, is_stopping = meters.reduce(engine, should_stop())
            _refuse_divergence("loss", metrics["loss"], cursor.step)
            if schedule.reads_losses and LOSS in metrics:  # no labelled row: no loss
                cursor.losses.append([cursor.step, metrics[LOSS]])
            knob_metrics = {"lr": schedule_values.lr, "kd.temperature": schedule_values.temperature}
            log(cursor.step, metrics | knob_metrics | _over_ranks(source.timings(), engine))
        is_evaluation = cursor.step % intervals.evaluate == 0 or is_last
        if is_evaluation:
            engine.eval()
            metrics = _finite(evaluate(engine), cursor.step)
            engine.train()
            cursor.history.append({"step": cursor.step, **metrics})
            log(cursor.step, metrics)
            if (score := selection.score(metrics)) > cursor.best_value:
                cursor.best_step, cursor.best_value = cursor.step, score
                store.save_best(engine, cursor)
        if cursor.step % intervals.checkpoint == 0 or is_last or is_stopping:
            save()
        if is_stopping and not is_last:
            raise Interrupted(f"stopped at step {cursor.step} of {schedule.num_steps}")
        if is_evaluation:
            report(cursor)
    return cursor


def _over_ranks(timings: dict[str, float], engine: Engine) -> dict[str, float]:
    """Seconds, rows and bytes are summed over ranks, names that end as MEANS averaged.

    All ranks have the same names. NaN: a rank has no value; names without any value are left out.
    """
    if not timings:
        return {}
    names = sorted(timings)
    local = torch.tensor([timings[name] for name in names], dtype=torch.float64)
    is_known = ~local.isnan()
    both = torch.stack([local.where(is_known, 0.0), is_known.double()])
    found = zip(names, *engine.reduce(both.to(engine.device)).tolist(), strict=True)
    return {n: sum / num if n.endswith(MEANS) else sum for n, sum, num in found if num}


def _refuse_divergence(name: str, value: float, step: int) -> None:
    """The same on every rank, and before anything is saved."""
    if not math.isfinite(value):
        raise TrainingError(f"the {name} became {value} by step {step}{WAY_OUT}")


def _finite(metrics: dict[str, float], step: int) -> dict[str, float]:
    """The metrics unchanged; TrainingError if one is not finite: weights are selected, and trials
    stopped, by them."""
    for name, value in metrics.items():
        _refuse_divergence(name, value, step)
    return metrics


@dataclass
class Meters:
    """Sums and counts since the last report; one reduction over ranks turns them into means."""

    totals: dict[str, Tensor] = field(default_factory=dict)  # name -> [sum, count]
    grad_norm: float = 0.0

    def add(self, metrics: dict[str, Mean]) -> None:
        for name, mean in metrics.items():
            pair = torch.stack([mean.sum, mean.count]).double()
            self.totals[name] = self.totals.get(name, 0) + pair

    def open(self, engine: Engine, name: str) -> list[list[float]]:
        """[sum, count] of each rank since the last report, on every rank; [] without any."""
        if name not in self.totals:
            return []
        # Not their sum: added up in another order, the mean would differ in its last digits.
        all_ranks = torch.zeros(engine.world_size, 2, dtype=torch.float64, device=engine.device)
        all_ranks[engine.rank] = self.totals[name]
        return engine.reduce(all_ranks).tolist()

    def resume(self, engine: Engine, name: str, saved: list[list[float]]) -> None:
        """Continue from what :meth:`open` returned, perhaps on another number of ranks."""
        if saved:
            own = saved[engine.rank :: engine.world_size] or [[0.0, 0.0]]
            sums = torch.tensor(own, dtype=torch.float64, device=engine.device)
            self.totals[name] = sums.sum(0)

    def reduce(self, engine: Engine, should_stop: bool) -> tuple[dict[str, float], bool]:
        """The means over all ranks, and whether a stop is requested on any; equal on all ranks."""
        names = sorted(self.totals)
        flag = torch.tensor([float(should_stop), 0.0], device=engine.device)
        stacked = torch.stack([flag.double(), *(self.totals[n].to(engine.device) for n in names)])
        flags, *pairs = engine.reduce(stacked).tolist()
        metrics = {
            n: total / count for n, (total, count) in zip(names, pairs, strict=True) if count
        }
        metrics["grad_norm"] = self.grad_norm
        self.totals.clear()
        return metrics, flags[0] > 0


@torch.no_grad()
def count_predictions(engine: Engine, batches: BatchSource, num_classes: int) -> Tensor:
    """Confusion counts [true class, predicted class], int64: every labelled row once, all ranks.

    The engine must be in evaluation mode. Raises TrainingError, on every rank, for logits that are
    not finite: their argmax would still be a class.
    """
    counts_CC = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=engine.device)
    num_broken = torch.zeros(1, dtype=torch.int64, device=engine.device)
    for step in NoTeachers().feed(batches, 0, batches.steps_per_epoch):
        for batch, answers in step.parts:
            logits_BV = engine.forward(batch, answers, ScheduleValues()).logits_BV
            assert logits_BV is not None, "classes are predicted by classifiers"
            predicted_B = logits_BV.argmax(-1)
            labels_B = batch.labels_B.masked_fill(~batch.valid_B, UNLABELLED).to(engine.device)
            nowhere_B = torch.full_like(labels_B, -1)
            counts_CC += confusion_counts(labels_B, predicted_B, nowhere_B, num_classes, 0)[0]
            is_broken_B = ~logits_BV.isfinite().all(-1)
            num_broken += (is_broken_B & batch.valid_B.to(engine.device)).sum()
    *counts, num_rows = engine.reduce(torch.cat([counts_CC.flatten(), num_broken])).tolist()
    if num_rows:
        raise TrainingError(f"the logits of {num_rows:,} validation rows are not finite{WAY_OUT}")
    return torch.tensor(counts).view(num_classes, num_classes)


@torch.no_grad()
def mean_metrics(engine: Engine, batches: BatchSource) -> dict[str, float]:
    """The module's own metrics as means over every position of ``batches``, all ranks.

    The engine must be in evaluation mode.
    """
    meters = Meters()
    for step in NoTeachers().feed(batches, 0, batches.steps_per_epoch):
        for batch, answers in step.parts:
            meters.add(engine.forward(batch, answers, ScheduleValues()).metrics)
    return meters.reduce(engine, should_stop=False)[0]
