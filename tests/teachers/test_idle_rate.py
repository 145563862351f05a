"""What a teacher did not do, over ranks and replicas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distill.config import Serving
from distill.teachers.meter import Meter
from distill.teachers.served import ServedTeacher
from distill.training.loop import _over_ranks


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Ranks:
    """An engine whose other ranks have these timings."""

    device = torch.device("cpu")

    def __init__(self, *others: dict[str, float]) -> None:
        self.others = others

    def reduce(self, both: torch.Tensor) -> torch.Tensor:
        for other in self.others:
            values = torch.tensor([other[name] for name in sorted(other)], dtype=torch.float64)
            known = ~values.isnan()
            both = both + torch.stack([values.nan_to_num(), known.double()])
        return both


def served(name: str, replicas: int = 1, adapter: str | None = None) -> ServedTeacher:
    return ServedTeacher(name, "base", Serving(replicas=replicas), adapter=adapter)


def test_compute_adds_up_over_ranks_before_idleness_is_taken() -> None:
    """3 replicas in 4 s have 12 s to give: two ranks together took 7 of them."""
    clock = Clock()
    teachers = [served("a", replicas=3), served("b", replicas=2)]
    meters = [Meter(teachers, 2, clock) for _ in range(2)]
    meters[0].received("a", compute_s=5.0)
    meters[0].received("b", compute_s=1.0)
    meters[1].received("a", compute_s=2.0)
    clock.now += 4.0
    mine, other = (meter.read() for meter in meters)
    engine: Any = Ranks(other)
    text = _over_ranks(mine, engine)
    assert text["teacher.a.compute_s"] == 7
    assert text["teacher.a.idle_rate"] == pytest.approx(1 - 7 / 12)
    # As many replicas as ranks: each has one of its own.
    assert text["teacher.b.idle_rate"] == pytest.approx(1 - 1 / 8)


def test_each_record_has_its_own_time() -> None:
    clock = Clock()
    meter = Meter([served("a")], 1, clock)
    rates = []
    for seconds, compute_s in ((10.0, 1.0), (2.0, 1.0), (5.0, 0.0)):
        clock.now += seconds
        meter.received("a", compute_s=compute_s)
        rates.append(meter.read()["teacher.a.idle_rate"])
    assert rates == pytest.approx([0.9, 0.5, 1.0])


def test_replicas_that_are_shared_are_busy_with_all_who_share_them() -> None:
    clock = Clock()
    adapters = [served(name, replicas=2, adapter=f"on-{name}") for name in "ab"]
    meter = Meter([*adapters, served("c")], 1, clock)
    for name, compute_s in (("a", 1.0), ("b", 3.0), ("c", 1.0)):
        meter.received(name, compute_s=compute_s)
    clock.now += 4.0
    found = meter.read()
    rates = [found[f"teacher.{name}.idle_rate"] for name in "abc"]
    assert rates == pytest.approx([0.5, 0.5, 0.75])
