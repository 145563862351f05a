"""Temperature schedules: how T changes while a student is trained. ``kd.schedule``.

T(t) = low + (high − low) · s(t), with s from 0 to 1, t the step and N the number of steps.
``constant`` and ``cosine`` are functions of the step. The others read losses: the mean
cross-entropy with the labels (the metric ``ce.loss``, at temperature 1, so that it does not depend
on T) of each finished interval of ``trainer.log_every`` steps. Their T changes only where an
interval ends.

HPM-KD, arXiv 2512.09886. *Ours* marks what differs from the paper's text or what it leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from distill.variant import Variant

Losses = Sequence[Sequence[float]]
"""[step, mean cross-entropy] of each finished interval in order; step: steps done at its end."""

LOSS = "ce.loss"
"""The metric that loss-driven schedules read."""


class _Schedule(Variant):
    reads_losses: ClassVar[bool] = False
    """Whether T depends on the training losses, not on the step alone."""
    min_intervals: ClassVar[int] = 0
    """Finished intervals before T can change."""

    def range_of(self, temperature: float) -> tuple[float, float]:
        """Lowest and highest T; ``temperature``: T0."""
        raise NotImplementedError

    def text(self, temperature: float) -> str:
        """For people: ``cosine, 1 to 3``; "" where T is constant."""
        low, high = self.range_of(temperature)
        return "" if self.type == "constant" else f"{self.type}, {low:g} to {high:g}"

    def at(self, step: int, num_steps: int, temperature: float, losses: Losses = ()) -> float:
        """T of a step, 0 … num_steps − 1. ``losses``: of the intervals finished before it."""
        raise NotImplementedError


class ConstantTemperature(_Schedule):
    """T = ``kd.temperature`` at every step."""

    type: Literal["constant"] = "constant"

    def range_of(self, temperature: float) -> tuple[float, float]:
        return temperature, temperature

    def at(self, step: int, num_steps: int, temperature: float, losses: Losses = ()) -> float:
        return temperature


class _Varying(_Schedule):
    low: float | None = Field(default=None, gt=0)
    """Lowest temperature; null: half of ``kd.temperature``."""
    high: float | None = Field(default=None, gt=0)
    """Highest temperature; null: 1.5 times ``kd.temperature``."""

    def range_of(self, temperature: float) -> tuple[float, float]:
        low = temperature / 2 if self.low is None else self.low
        return low, 1.5 * temperature if self.high is None else self.high

    def share(self, step: int, num_steps: int, losses: Losses) -> float:
        """s(t): 0 is the lowest temperature, 1 the highest."""
        raise NotImplementedError

    def at(self, step: int, num_steps: int, temperature: float, losses: Losses = ()) -> float:
        low, high = self.range_of(temperature)
        return low + (high - low) * self.share(step, num_steps, losses)


class Cosine(_Varying):
    """s = (1 + cos(π·t/N)) / 2: from the highest to the lowest temperature."""

    type: Literal["cosine"] = "cosine"

    def share(self, step: int, num_steps: int, losses: Losses) -> float:
        return (1 + math.cos(math.pi * step / num_steps)) / 2


class LossRatio(_Varying):
    """s = (L − L_min) / (L_max − L_min), with L the mean loss of the last interval, L_min and L_max
    the lowest and highest of all so far; 1 until two differ (ours)."""

    type: Literal["loss_ratio"] = "loss_ratio"
    reads_losses: ClassVar[bool] = True
    min_intervals: ClassVar[int] = 2

    def share(self, step: int, num_steps: int, losses: Losses) -> float:
        means = [mean for _, mean in losses]
        if not means or min(means) == max(means):
            return 1.0
        return (means[-1] - min(means)) / (max(means) - min(means))


class Convergence(_Varying):
    """s = 1 − exp(−λ·|dL/dt|), with dL/dt the slope between the means of the last two intervals and
    λ = 1 / the first slope that is not 0; 1 until there is one.

    Ours: the paper prints s = exp(−λ·|dL/dt|), but its text describes a high T while the loss
    changes fast; and it leaves λ open.
    """

    type: Literal["convergence"] = "convergence"
    reads_losses: ClassVar[bool] = True
    min_intervals: ClassVar[int] = 2

    def share(self, step: int, num_steps: int, losses: Losses) -> float:
        first = next((s for i in range(1, len(losses)) if (s := _slope(losses, i))), 0.0)
        if first == 0:
            return 1.0
        return 1 - math.exp(-_slope(losses, len(losses) - 1) / first)


def _slope(losses: Losses, i: int) -> float:
    """|dL/dt| per step, between the means of the intervals i − 1 and i."""
    (before, earlier), (now, later) = losses[i - 1], losses[i]
    return abs((later - earlier) / (now - before))


class Auto(_Varying):
    """T = ``kd.temperature`` for the first 10 % of the steps (ours: and at least three intervals).
    Then one of the other schedules, chosen by a straight line that is fitted (least squares) to the
    mean losses so far: the line falls and R² ≥ 0.5: ``loss_ratio``; it falls, R² < 0.5:
    ``convergence``; flat: ``cosine``. Ours: a line that rises, or falls by at most 1 % of the mean
    loss, is flat."""

    type: Literal["auto"] = "auto"
    reads_losses: ClassVar[bool] = True
    min_intervals: ClassVar[int] = 3

    def at(self, step: int, num_steps: int, temperature: float, losses: Losses = ()) -> float:
        chosen = choice(losses, num_steps)
        if chosen is None:
            return temperature
        schedule = CHOICES[chosen.type](low=self.low, high=self.high)
        return schedule.at(step, num_steps, temperature, losses)


CHOICES = {"loss_ratio": LossRatio, "convergence": Convergence, "cosine": Cosine}
OBSERVED = 0.1
"""Share of the steps after which ``auto`` chooses."""
STEADY = 0.5
"""R² from which on a falling line is ``loss_ratio``."""
FLAT = 0.01
"""Share of the mean loss that a line must fall by."""

TemperatureSchedule = Annotated[
    ConstantTemperature | Cosine | LossRatio | Convergence | Auto, Field(discriminator="type")
]


class Choice(NamedTuple):
    """The schedule that ``auto`` chose, and by what."""

    type: Literal["loss_ratio", "convergence", "cosine"]
    step: int
    """Number of steps done then."""
    fall: float
    """Of the line from the first to the last mean, as a share of the mean loss; < 0: it rises."""
    r2: float

    @property
    def text(self) -> str:
        moves = "falls" if self.fall >= 0 else "rises"
        return (
            f"kd.schedule auto chose {self.type} at step {self.step:,}: {LOSS} {moves} by "
            f"{abs(self.fall):.1%} along a line with R² {self.r2:.2f}"
        )


def choice(losses: Losses, num_steps: int) -> Choice | None:
    """The choice of ``auto``; None before the end of the interval at which it is made."""
    made = _chosen_at(losses, num_steps)
    if made is None:
        return None
    fall, r2 = _line(losses[: made + 1])
    kind = "cosine" if fall <= FLAT else "loss_ratio" if r2 >= STEADY else "convergence"
    return Choice(kind, int(losses[made][0]), fall, r2)


def _chosen_at(losses: Losses, num_steps: int) -> int | None:
    """Index of the interval at whose end ``auto`` chooses."""
    ends = enumerate(step for step, _ in losses)
    observed = (i for i, step in ends if step >= OBSERVED * num_steps)
    return next((i for i in observed if i + 1 >= Auto.min_intervals), None)


def _line(losses: Losses) -> tuple[float, float]:
    """Of the least-squares line: its fall as a share of the mean loss, and R²."""
    num = len(losses)
    mean_step = math.fsum(step for step, _ in losses) / num
    mean_loss = math.fsum(loss for _, loss in losses) / num
    centred = [(step - mean_step, loss - mean_loss) for step, loss in losses]
    xx = math.fsum(x * x for x, _ in centred)
    xy = math.fsum(x * y for x, y in centred)
    yy = math.fsum(y * y for _, y in centred)
    if yy == 0 or mean_loss <= 0:
        return 0.0, 0.0
    fall = -xy / xx * (losses[-1][0] - losses[0][0])
    return fall / mean_loss, xy * xy / (xx * yy)


class ChoiceReader:
    """Reads the choice of ``auto`` from the lines of a fit's metrics.jsonl."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._losses: list[list[float]] = []
        self.choice: Choice | None = None

    def read(self, line: Mapping[str, Any]) -> Choice | None:
        """The choice, once: at the line that ends its interval."""
        if self.choice is not None or LOSS not in line["metrics"]:
            return None
        self._losses.append([line["step"], line["metrics"][LOSS]])
        self.choice = choice(self._losses, self._num_steps)
        return self.choice
