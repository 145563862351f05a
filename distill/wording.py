"""Counts, percentages and numbers in messages and tables: ``1,024 rows``, ``90.9 %``, ``1.25``."""

import math


def counted(num: float, one: str, many: str | None = None) -> str:
    """``num`` with its noun; ``many``: the plural where it is not ``one`` with an s."""
    noun = one if num == 1 else many or f"{one}s"
    return f"{num:,} {noun}"


MISSING = "–"


def percent(value: float | None) -> str:
    return MISSING if is_missing(value) else f"{value * 100:.1f} %"  # type: ignore[operator]


def three_digits(value: float | None) -> str:
    """90.9, 1.25, 454: three significant digits, never an exponent."""
    if value is None or is_missing(value):
        return MISSING
    if math.isinf(value):
        return "∞"
    rounded = float(f"{value:.3g}")  # first, so that 9.996 is 10.0 and not 10.00
    if abs(rounded) >= 100 or rounded == 0:
        return f"{value:.0f}"
    return f"{value:.{min(2 - math.floor(math.log10(abs(rounded))), 3)}f}"


def count(value: float | None) -> str:
    """22.7 M, 310 k, 96."""
    if value is None or is_missing(value):
        return MISSING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def is_no_number(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
