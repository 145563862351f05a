"""Learning rate, temperature and alpha as pure functions of the step, and of the mean losses so far
if the temperature depends on them. The cursor keeps those; there is no other state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distill.config import KD, Optimizer
from distill.config.temperature import Losses
from distill.records import ScheduleValues


@dataclass(frozen=True)
class Schedule:
    """``at(step)`` for steps 0 … num_steps − 1."""

    num_steps: int
    optimizer: Optimizer
    kd: KD | None = None

    @property
    def reads_losses(self) -> bool:
        """Whether :meth:`at` needs the losses of the intervals that have finished."""
        return self.kd is not None and self.kd.schedule.reads_losses

    def at(self, step: int, losses: Losses = ()) -> ScheduleValues:
        """``losses``: of the finished intervals before this step; see config/temperature.py."""
        lr = self.optimizer.lr * self.rate(step)
        if self.kd is None:
            return ScheduleValues(lr=lr)
        temperature = self.kd.schedule.at(step, self.num_steps, self.kd.temperature, losses)
        return ScheduleValues(temperature=temperature, alpha=self.kd.alpha, lr=lr)

    def rate(self, step: int) -> float:
        """The share of the peak rate: linear warm-up, then cosine, linear or constant."""
        warmup = round(self.optimizer.warmup * self.num_steps)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, self.num_steps - warmup)
        match self.optimizer.decay:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * done))
            case "linear":
                return 1 - done
            case "constant":
                return 1.0
