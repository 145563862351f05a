"""Temperature schedules: values by hand, the choice of ``auto``, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import TypeAdapter

from distill.config import KD
from distill.config.temperature import (
    Auto,
    ChoiceReader,
    ConstantTemperature,
    Convergence,
    Cosine,
    LossRatio,
    TemperatureSchedule,
    choice,
)


def every(interval: int, *means: float) -> list[list[float]]:
    """Mean losses of intervals of so many steps."""
    return [[interval * (i + 1), mean] for i, mean in enumerate(means)]


def test_constant_is_the_default_and_is_the_temperature_itself() -> None:
    assert KD().schedule == ConstantTemperature()
    assert ConstantTemperature().at(7, 10, 3.3, every(1, 2.0, 1.0)) == 3.3


def test_cosine_falls_from_high_to_low() -> None:
    temperatures = [Cosine().at(step, 100, 4.0) for step in (0, 25, 50, 75, 100)]
    half = math.sqrt(0.5)
    assert temperatures == pytest.approx([6, 4 + 2 * half, 4, 4 - 2 * half, 2])
    own = Cosine(low=1, high=5)
    assert [own.at(step, 10, 4.0) for step in (0, 5)] == pytest.approx([5, 3])
    assert Cosine(high=5).at(0, 10, 4.0) == 5 and Cosine(low=1).at(10, 10, 4.0) == 1


def test_loss_ratio_is_the_place_of_the_last_loss_between_the_lowest_and_the_highest() -> None:
    def at(*means: float) -> float:
        return LossRatio().at(99, 100, 2.0, every(10, *means))  # from 1 to 3

    assert at() == at(1.5) == at(1.5, 1.5) == 3  # until two differ
    assert at(2.0, 1.0) == 1 and at(1.0, 2.0) == 3
    assert at(2.0, 1.0, 1.25) == pytest.approx(1 + 2 * 0.25)
    assert at(2.0, 0.5, 3.0, 1.0) == pytest.approx(1 + 2 * 0.5 / 2.5)


def test_convergence_compares_the_last_slope_with_the_first() -> None:
    def at(losses: list[list[float]]) -> float:
        return Convergence().at(99, 100, 2.0, losses)  # from 1 to 3

    def expected(ratio: float) -> Any:
        return pytest.approx(1 + 2 * (1 - math.exp(-ratio)))

    assert at([]) == at(every(10, 2.0)) == at(every(10, 2.0, 2.0)) == 3
    assert at(every(10, 2.0, 1.0)) == expected(1)
    assert at(every(10, 2.0, 1.0, 0.75)) == expected(0.25)
    assert at(every(10, 2.0, 1.0, 4.0)) == expected(3)  # rising fast is not converged
    assert at(every(10, 2.0, 1.0, 1.0)) == 1
    assert at(every(10, 2.0, 2.0, 1.5, 1.4)) == expected(0.2)  # the first slope that is not 0
    # An interval without a labelled row has no loss: twice as many steps, half the slope.
    assert at([[10, 2.0], [20, 1.0], [40, 0.0]]) == expected(0.5)


def noisy(noise: float) -> list[list[float]]:
    """A line 2 − t/100 with a disturbance of mean 0 that is orthogonal to it: 1, −1, −1, 1."""
    signs = (1, -1, -1, 1)
    return [[10 * (i + 1), 1.9 - 0.1 * i + noise * s] for i, s in enumerate(signs)]


# The line's sum of squares is 0.1² · (2.25 + 0.25 + 0.25 + 2.25) = 0.05, the noise's 4 · noise².
HALF = math.sqrt(0.05 / 4)  # of the variance each: R² = 0.5


@pytest.mark.parametrize(
    ("losses", "kind"),
    [
        (noisy(0), "loss_ratio"),
        (noisy(0.999 * HALF), "loss_ratio"),
        (noisy(1.001 * HALF), "convergence"),
        (every(10, 1.0, 1.0, 1.0, 1.0), "cosine"),
        (every(10, 1.0, 1.1, 1.2, 1.3), "cosine"),  # rises
        (every(10, 1.0, 0.997, 0.994, 0.991), "cosine"),  # 0.9 % of the mean
        (every(10, 1.0, 0.995, 0.990, 0.985), "loss_ratio"),  # 1.5 %
    ],
)
def test_auto_chooses_by_a_line_through_the_first_tenth(
    losses: list[list[float]], kind: Any
) -> None:
    num_steps = 400  # a tenth: four intervals
    chosen = choice(losses, num_steps)
    assert chosen is not None and chosen.type == kind and chosen.step == 40
    auto = Auto(low=1.5)
    assert auto.at(39, num_steps, 2.0, losses[:3]) == 2.0
    later = [*losses, [50, 0.7], [60, 0.6], [70, 0.63]]  # does not change the choice
    rest = {"loss_ratio": LossRatio, "convergence": Convergence, "cosine": Cosine}[kind](low=1.5)
    assert auto.at(75, num_steps, 2.0, later) == rest.at(75, num_steps, 2.0, later) != 2.0


def test_the_r2_and_fall_of_a_line() -> None:
    chosen = choice(noisy(HALF), 400)
    assert chosen is not None
    assert chosen.r2 == pytest.approx(0.5) and chosen.fall == pytest.approx(0.3 / 1.75)
    assert chosen.text.endswith(f"chose {chosen.type} at step 40: ce.loss falls by 17.1% along a "
                                "line with R² 0.50")  # fmt: skip


def test_auto_waits_for_three_intervals_where_a_tenth_has_fewer() -> None:
    losses = every(50, 2.0, 1.5, 1.0)
    assert Auto().at(149, 300, 2.0, losses[:2]) == 2.0
    assert choice(losses[:2], 300) is None
    assert choice(losses, 300) == ("loss_ratio", 150, pytest.approx(1.0 / 1.5), pytest.approx(1))


def test_the_driver_reads_the_choice_from_the_metrics_of_a_fit() -> None:
    reader = ChoiceReader(400)
    found = []
    for step, mean in noisy(0) + every(10, 1, 1, 1, 1, 1)[4:]:
        found.append(reader.read({"step": step, "metrics": {"loss": 3.0, "ce.loss": mean}}))
        assert reader.read({"step": step, "metrics": {"eval.accuracy": 0.5}}) is None
    assert [c is None for c in found] == [True, True, True, False, True]
    assert found[3] == choice(noisy(0), 400)


def test_range_and_types_are_checked() -> None:
    with pytest.raises(ValueError, match=r"kd.schedule.low 3 must be below kd.schedule.high 3 \("):
        KD(temperature=2, schedule=Cosine(low=3))
    assert KD(temperature=3, schedule=Cosine(low=3)).schedule.range_of(3) == (3, 4.5)
    adapter: TypeAdapter[Any] = TypeAdapter(TemperatureSchedule)
    for raw in ({"type": "constant", "low": 1}, {"type": "linear"}, {"type": "auto", "low": 0}):
        with pytest.raises(ValueError):
            adapter.validate_python(raw)
    assert not ConstantTemperature.reads_losses and not Cosine.reads_losses
    assert LossRatio.reads_losses and Convergence.reads_losses and Auto.reads_losses
    assert LossRatio().text(4) == "loss_ratio, 2 to 6" and ConstantTemperature().text(4) == ""
