"""Gates for continuous integration: ``fidelity.any > 0.2`` fails the evaluation where it holds."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from distill.errors import ConfigError

COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
WRITTEN = re.compile(r"\s*(\S.*?)\s*(>=|<=|>|<)\s*(\S+)\s*")  # a domain may hold spaces


@dataclass(frozen=True)
class QualityGate:
    """A condition that must not hold."""

    metric: str
    comparison: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.bound:g}"

    def passed(self, metrics: Mapping[str, float | None]) -> str | None:
        """That it does not hold, and the value; None where it fails."""
        value = metrics.get(self.metric)
        if value is None or COMPARISONS[self.comparison](value, self.bound):
            return None
        return f"passed: {self.metric} is {value:.4g}, not {self.comparison} {self.bound:g}"

    def failure(self, metrics: Mapping[str, float | None]) -> str | None:
        """Why it fails, or None. A metric that is not defined here fails: it was not measured."""
        value = metrics[self.metric]
        if value is None:
            return f"--fail-if {self}: {self.metric} is not defined on this data"
        if COMPARISONS[self.comparison](value, self.bound):
            return f"--fail-if {self}: it is {value:.4g}"
        return None


def parse_gate(text: str) -> QualityGate:
    """ConfigError for a gate that cannot be read."""
    match = WRITTEN.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--fail-if {text!r}: write a metric, one of {', '.join(COMPARISONS)}, and a number, "
            "such as 'fidelity.any > 0.2'"
        )
    metric, comparison, bound = match.groups()
    try:
        value = float(bound)
    except ValueError:
        raise ConfigError(f"--fail-if {text!r}: {bound!r} is not a number") from None
    if not math.isfinite(value):
        raise ConfigError(f"--fail-if {text!r}: {bound} cannot be compared: give a finite number")
    return QualityGate(metric, comparison, value)


def check_metric(gate: QualityGate, known: Iterable[str]) -> None:
    """ConfigError for a metric that will not be measured."""
    names = sorted(known)
    if gate.metric not in names:
        raise ConfigError(f"--fail-if '{gate}': {_unknown(gate.metric, names)}")


def _unknown(metric: str, names: list[str]) -> str:
    """The reason why a metric is not measured, or the nearest name."""
    if metric.startswith("fidelity.") and not any(n.startswith("fidelity.") for n in names):
        return f"{metric} needs a teacher to compare with: give --teacher"
    if metric.startswith("robustness.") and not any(n.startswith("robustness.") for n in names):
        return f"{metric} needs inputs to transform or attack: give --language"
    close = difflib.get_close_matches(metric, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the metrics are {', '.join(names)}"
    return f"there is no metric {metric}: {hint}"
