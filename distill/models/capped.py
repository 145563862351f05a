"""Dimensions of a transformer under ``student.size_mb``, which is used to 95-100 %.

Rungs are (layers, hidden), with hidden in multiples of 8; on each of them the width of the
feed-forward layers (ffn) takes what is left of the cap. Of the rungs that use 95 % of it or more,
that wins whose ffn is nearest to its proportion. Where ffn would have to be over twice or under
half of that, hidden goes in steps of 4, 2 and 1 as well. [ours]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log2

USED = 0.95
STEPS = (8, 4, 2, 1)
"""Of hidden."""
NEAR = 2.0
"""Times ffn may be off its proportion before finer steps of hidden are tried."""
FAR = 4.0
"""Times that it may be off at all."""
ALIGNED = 8
"""ffn is a multiple of it where that uses enough of the cap."""


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    ffn: int


@dataclass(frozen=True)
class Family:
    """What the search must know of a kind of transformer; sizes are bytes of its file."""

    rungs: Callable[[int], Iterable[tuple[int, int]]]
    """(layers, hidden), from small to large, with hidden in multiples of the argument."""
    default_ffn: Callable[[int], int]
    """By its proportion to hidden."""
    fixed_ffn: int | None
    num_params: Callable[[Shape], int]
    """Fast, for rungs that are far off."""
    size: Callable[[Shape], int]
    """Exact."""


def largest_within(family: Family, cap: int) -> Shape | None:
    """None where not even the smallest shape with an ffn of its proportion fits."""
    smallest = next(iter(family.rungs(STEPS[0])))
    if family.size(_default(family, *smallest)) > cap:
        return None
    found: dict[Shape, int] = {}
    good: list[Shape] = []
    for step in STEPS:
        for layers, hidden in family.rungs(step):
            shape = _filled(family, layers, hidden, cap)
            if shape is not None and shape not in found:
                found[shape] = family.size(shape)
        good = [shape for shape, size in found.items() if size >= USED * cap]
        good.sort(key=lambda shape: _distance(family, shape))
        if good and _distance(family, good[0]) <= log2(NEAR):
            return good[0]
    if not found:  # the cap is far above the largest shape
        largest = [_with(family, *rung, FAR) for rung in family.rungs(STEPS[0])]
        return max(largest, key=family.num_params)
    return good[0] if good else max(found, key=lambda shape: found[shape])


def next_above(family: Family, cap: int) -> int | None:
    """Bytes of the smallest shape above the cap, with hidden in its finest steps; for messages."""
    sizes = [
        size
        for layers, hidden in family.rungs(STEPS[-1])
        if (size := family.size(_with(family, layers, hidden, 1 / FAR))) > cap
    ]
    return min(sizes, default=None)


def _filled(family: Family, layers: int, hidden: int, cap: int) -> Shape | None:
    """The widest of these layers that fits; None where none does, or all are far too small."""
    low, high = (_with(family, layers, hidden, times) for times in (1 / FAR, FAR))
    if 4 * family.num_params(low) > cap:
        return None
    if low == high:
        return low if family.size(low) <= cap else None
    if family.size(low) > cap:
        return None
    if 4 * family.num_params(high) < USED * cap / 2:
        return None
    per_unit = 4 * (family.num_params(high) - family.num_params(low)) // (high.ffn - low.ffn)
    ffn = min(high.ffn, low.ffn + (cap - family.size(low)) // per_unit)
    while family.size(Shape(layers, hidden, ffn)) > cap:  # the header names ffn: a few bytes
        ffn -= 1
    aligned = Shape(layers, hidden, ffn // ALIGNED * ALIGNED)
    if aligned.ffn >= low.ffn and family.size(aligned) >= USED * cap:
        return aligned
    return Shape(layers, hidden, ffn)


def _with(family: Family, layers: int, hidden: int, times: float) -> Shape:
    """The shape whose ffn is ``times`` its proportion."""
    if family.fixed_ffn is not None:
        return Shape(layers, hidden, family.fixed_ffn)
    return Shape(layers, hidden, max(1, int(family.default_ffn(hidden) * times)))


def _default(family: Family, layers: int, hidden: int) -> Shape:
    return _with(family, layers, hidden, 1.0)


def _distance(family: Family, shape: Shape) -> float:
    """How far ffn is from its proportion, in powers of two."""
    return abs(log2(shape.ffn / _default(family, shape.layers, shape.hidden).ffn))
