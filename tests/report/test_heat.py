"""Heat maps: every trial in one cell, the mean of each."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.report.heat import MAX_BINS, MIN_BINS, heat_grid
from distill.search.trials import Trial


def trial(temperature: float, alpha: float, accuracy: float, status: str = "finished") -> Trial:
    values = {"kd.temperature": temperature, "kd.alpha": alpha}
    return Trial("t", status, values, {"eval.accuracy": accuracy})  # type: ignore[arg-type]


def test_cells_hold_means_and_counts():
    trials = [
        trial(1, 0.5, 0.6),
        trial(1, 0.5, 0.8),
        trial(4, 0.9, 0.9),
        trial(4, 0.5, 0, "failed"),
    ]
    grid = heat_grid(trials, "eval.accuracy")
    assert grid is not None
    assert (grid.x_labels, grid.y_labels) == (["1", "4"], ["0.5", "0.9"])
    assert grid.count_YX.tolist() == [[2, 0], [0, 1]]
    np.testing.assert_allclose(grid.mean_YX, [[0.7, np.nan], [np.nan, 0.9]])


def test_a_key_that_does_not_vary_has_no_map():
    assert heat_grid([trial(1, 0.5, 0.6), trial(1, 0.9, 0.8)], "eval.accuracy") is None
    assert heat_grid([], "eval.accuracy") is None


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0.5, 20), st.floats(0, 1)), min_size=10, max_size=40, unique=True)
)
def test_continuous_values_are_binned_and_none_is_lost(points):
    grid = heat_grid([trial(t, a, a) for t, a in points], "eval.accuracy")
    if grid is not None:
        assert grid.count_YX.sum() == len(points)
        total = np.nansum(grid.mean_YX * grid.count_YX)
        np.testing.assert_allclose(total, sum(a for _, a in points))
        if len({t for t, _ in points}) > 7:
            assert MIN_BINS < len(grid.x_labels) <= MAX_BINS


def test_few_values_from_a_range_are_binned_and_the_edges_named():
    drawn = [1.0183, 2.2471, 4.0952, 9.1306]
    grid = heat_grid(
        [trial(t, a, 0.5) for t, a in zip(drawn, (0.3, 0.6) * 2, strict=True)], "eval.accuracy"
    )
    assert grid is not None
    assert grid.x_labels == ["1.02 – 3.05", "3.05 – 9.13"]  # even on a log scale
    assert grid.y_labels == ["0.3", "0.6"]  # a list of values stays one
    assert grid.count_YX.tolist() == [[1, 1], [1, 1]]


def test_a_narrow_range_has_even_bins():
    drawn = [0.1234, 0.3115, 0.4321, 0.5234]
    grid = heat_grid(
        [trial(t, a, 0.5) for t, a in zip((1, 2) * 2, drawn, strict=True)], "eval.accuracy"
    )
    assert grid is not None
    assert grid.y_labels == ["0.123 – 0.323", "0.323 – 0.523"]


def test_a_uniform_range_is_not_binned_on_a_log_scale():
    """Though the largest alpha is a hundred times the smallest."""
    drawn = [0.00812, 0.3115, 0.5321, 0.9234]
    pairs = zip((1, 2) * 2, drawn, strict=True)
    grid = heat_grid([trial(t, a, 0.5) for t, a in pairs], "eval.accuracy")
    assert grid is not None
    assert grid.y_labels == ["0.008 – 0.466", "0.466 – 0.923"]
