"""Axes of the page's charts: from data to pixels, and the positions of the ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """Maps ``low`` to ``start`` and ``high`` to ``stop`` (pixels)."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return self.start + (at - low) / (high - low) * (self.stop - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most about ``most`` round numbers on the axis."""
        if not self.is_log:
            return [t for t in _even(self.low, self.high, most) if self.low <= t <= self.high]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            ticks = [d * 10.0**p for p in range(first, last + 1) for d in digits]
            ticks = [t for t in ticks if self.low <= t <= self.high]
            if len(ticks) <= most:
                break
        return ticks if len(ticks) > 1 else [self.low, self.high]


def axis(
    values: Sequence[float],
    start: float,
    stop: float,
    needs_log: bool = False,
    margin: float = 0.06,
) -> Axis:
    """An axis that contains all values, with a margin on both sides."""
    low, high = min(values), max(values)
    if needs_log and low > 0:
        if low == high:
            return Axis(low / 2, high * 2, start, stop, is_log=True)
        room = (high / low) ** margin
        return Axis(low / room, high * room, start, stop, is_log=True)
    room = (high - low) * margin or abs(low) * 0.1 or 1.0
    return Axis(low - room, high + room, start, stop)


def _even(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(d * power for d in (1, 2, 2.5, 5, 10) if d * power >= rough * 0.999)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]
