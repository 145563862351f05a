"""A metric over two searched keys: the mean and the count in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from distill.search.trials import Trial, Value
from distill.wording import three_digits

MAX_VALUES = 7
"""More distinct numbers than these are binned, and so are numbers drawn from a range."""
MIN_BINS, MAX_BINS = 2, 5
TEMPERATURE, ALPHA = "kd.temperature", "kd.alpha"


@dataclass(frozen=True)
class Heatmap:
    """Rows are y, columns x; both ascend. An empty cell has mean NaN and count 0."""

    x: str
    y: str
    x_labels: list[str]
    y_labels: list[str]
    mean_YX: np.ndarray
    count_YX: np.ndarray


def heat_grid(
    trials: Sequence[Trial], metric: str, x: str = TEMPERATURE, y: str = ALPHA
) -> Heatmap | None:
    """Mean of ``metric`` over all other keys; None where either key does not vary."""
    known = [
        t
        for t in trials
        if t.status == "finished" and metric in t.metrics and x in t.values and y in t.values
    ]
    x_labels, column_N = _cells([t.values[x] for t in known])
    y_labels, row_N = _cells([t.values[y] for t in known])
    if len(x_labels) < 2 or len(y_labels) < 2:
        return None
    count_YX = np.zeros((len(y_labels), len(x_labels)), np.int64)
    sum_YX = np.zeros(count_YX.shape)
    np.add.at(count_YX, (row_N, column_N), 1)
    np.add.at(sum_YX, (row_N, column_N), [t.metrics[metric] for t in known])
    with np.errstate(invalid="ignore"):
        return Heatmap(x, y, x_labels, y_labels, sum_YX / count_YX, count_YX)


def _cells(values: Sequence[Value]) -> tuple[list[str], np.ndarray]:
    """Labels in order, and the index among them of each value."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        names = sorted({str(v) for v in values})
        return names, np.array([names.index(str(v)) for v in values], np.int64)
    distinct = sorted(set(numbers))
    if len(distinct) <= MAX_VALUES and not _are_drawn(distinct):
        labels = [f"{v:g}" for v in distinct]
        return labels, np.searchsorted(distinct, numbers)
    if len(distinct) < 2:
        return [f"{three_digits(v)}" for v in distinct], np.zeros(len(numbers), np.int64)
    low, high = distinct[0], distinct[-1]
    is_log = low > 0 and _are_logarithmic(numbers)
    num_bins = min(max(int(len(numbers) ** 0.5), MIN_BINS), MAX_BINS)
    edges = (np.geomspace if is_log else np.linspace)(low, high, num_bins + 1)
    labels = [f"{three_digits(a)} – {three_digits(b)}" for a, b in pairwise(edges.tolist())]
    return labels, np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, num_bins - 1)


def _are_drawn(values: Sequence[float]) -> bool:
    """Whether they come from a range (uniform, loguniform): values of a list have few digits."""
    return any(float(f"{value:.3g}") != value for value in values)


def _are_logarithmic(values: Sequence[float]) -> bool:
    """Whether positive ``values`` are spread evenly on a log scale rather than on a linear one:
    their median is nearer to the geometric mean of both ends."""
    low, high, median = min(values), max(values), float(np.median(values))
    share = (median - low) / (high - low)
    log_share = np.log(median / low) / np.log(high / low)
    return bool(abs(log_share - 0.5) < abs(share - 0.5))
