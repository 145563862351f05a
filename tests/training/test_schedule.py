"""Learning rate, temperature and alpha of each step, by hand."""

from __future__ import annotations

import math

import pytest

from distill.config import KD, Optimizer
from distill.config.temperature import Cosine, LossRatio
from distill.records import ScheduleValues
from distill.training.schedule import Schedule


def rates(num_steps: int, **optimizer: object) -> list[float]:
    schedule = Schedule(num_steps, Optimizer(lr=4.0, **optimizer))  # type: ignore[arg-type]
    return [schedule.at(step).lr for step in range(num_steps)]


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    assert rates(10, warmup=0.5, decay="constant") == pytest.approx([0.8, 1.6, 2.4, 3.2] + [4] * 6)
    # A fraction of the steps, to the nearest one.
    assert rates(10, warmup=0.26, decay="constant") == pytest.approx([4 / 3, 8 / 3] + [4] * 8)
    assert rates(10, warmup=0.04, decay="constant") == [4] * 10


def test_decay_is_over_the_steps_after_the_warm_up() -> None:
    """The first of them is at the peak; 0 would be at the step after the last one."""
    assert rates(6, warmup=1 / 3, decay="linear") == pytest.approx([2, 4, 4, 3, 2, 1])
    cosine = [2 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    assert rates(6, warmup=1 / 3, decay="cosine") == pytest.approx([2, 4, *cosine])
    assert rates(2, warmup=0.9, decay="linear") == pytest.approx([2, 4])  # nothing after it


def test_the_default_is_a_tenth_of_warm_up_and_a_cosine() -> None:
    optimizer = Optimizer()
    assert (optimizer.lr, optimizer.weight_decay, optimizer.clip_norm) == (1e-3, 0.01, 1.0)
    assert optimizer.betas == (0.9, 0.999)
    schedule = Schedule(20, optimizer)
    assert schedule.rate(0) == 0.5 and schedule.rate(1) == schedule.rate(2) == 1
    # 4 of 18 steps on: cos 40°.
    assert schedule.rate(6) == pytest.approx((1 + math.cos(math.radians(40))) / 2)


def test_temperature_and_alpha_are_those_of_kd_and_without_it_of_no_teacher() -> None:
    optimizer = Optimizer(lr=2.0, warmup=0, decay="constant")
    assert (KD().temperature, KD().alpha) == (2.0, 0.5)
    assert Schedule(9, optimizer, KD(temperature=3, alpha=0.2)).at(5) == ScheduleValues(
        3.0, 0.2, 2.0
    )
    assert Schedule(9, optimizer).at(5) == ScheduleValues(lr=2.0)
    cosine = Schedule(8, optimizer, KD(temperature=4, schedule=Cosine()))
    assert [cosine.at(step).temperature for step in (0, 4)] == pytest.approx([6, 4])


def test_only_schedules_that_read_losses_take_them() -> None:
    optimizer = Optimizer()
    assert not Schedule(9, optimizer).reads_losses
    assert not Schedule(9, optimizer, KD(schedule=Cosine())).reads_losses
    ratio = Schedule(9, optimizer, KD(temperature=2, schedule=LossRatio()))
    assert ratio.reads_losses
    # A quarter of the way from the lowest mean to the highest: 1 + 2 / 4.
    losses = [[1, 3.0], [2, 1.0], [3, 1.5]]
    assert ratio.at(4, losses).temperature == pytest.approx(1.5)
    assert ratio.at(4).temperature == 3
