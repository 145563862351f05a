"""Heat maps: every trial in one cell, the mean of each."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.report.heat import NUM_BINS, heat_grid
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
            assert len(grid.x_labels) == NUM_BINS
