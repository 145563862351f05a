"""Metrics as people read them: labels, digits and percent signs."""

from __future__ import annotations

from distill.metrics import PARAMETERS, SHARE, metric
from distill.search.trials import Value
from distill.wording import MISSING, count, percent, three_digits


def label(name: str) -> str:
    """``size (MB)``; a name without a label stays as it is."""
    found = metric(name)
    return name if found is None else found.label or name


def is_share(name: str) -> bool:
    """Whether it is stored as 0.81 and shown as 81 %."""
    found = metric(name)
    return found is not None and found.unit == SHARE


def shown(name: str, value: float | None) -> str:
    """A metric's value without its unit, but with % where it is a share."""
    if is_share(name):
        return percent(value)
    found = metric(name)
    is_count = found is not None and found.unit == PARAMETERS
    return count(value) if is_count else three_digits(value)


def shown_value(value: Value | None) -> str:
    """A searched key's value: 3, 0.01, 2.9e-05, forward_kl."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
