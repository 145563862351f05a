"""ECE against its definition; intervals against the known spread of a mean."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from distill.evaluation.calibration import calibration
from distill.evaluation.intervals import bootstrap


def test_ece_of_two_bins() -> None:
    probs_RC = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.6, 0.4], [0.05, 0.95]])
    labels_R = np.array([0, 1, 1, 0, 1])
    found = calibration(probs_RC, labels_R, num_bins=2)
    # All confidences lie above a half: 0.9, 0.9, 0.65, 0.6, 0.95, of which four are right.
    assert found.count_M.tolist() == [0, 5]
    assert found.ece == pytest.approx(abs(0.8 - 0.8))
    finer = calibration(probs_RC, labels_R, num_bins=10)
    # (0.5, 0.6]: 0.6 right; (0.6, 0.7]: 0.65 right; (0.8, 0.9]: two at 0.9, one right; 0.95 right
    assert finer.ece == pytest.approx((0.4 + 0.35 + 2 * 0.4 + 0.05) / 5)


def test_a_sure_and_right_model_is_calibrated() -> None:
    labels_R = np.array([0, 1, 1])
    assert calibration(np.eye(2)[labels_R], labels_R).ece == 0
    assert calibration(np.eye(2)[1 - labels_R], labels_R).ece == 1


def test_intervals_are_those_of_a_mean_and_reproducible() -> None:
    rng = np.random.default_rng(0)
    labels_R = rng.integers(0, 2, 400)
    right_R = rng.random(400) < 0.8
    probs_RC = np.eye(2)[np.where(right_R, labels_R, 1 - labels_R)] * 0.8 + 0.1
    found = bootstrap(probs_RC, labels_R, 10, num_draws=400, level=0.95, seed=1)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    mean = right_R.mean()
    assert found["accuracy"].low == pytest.approx(mean - half, abs=0.012)
    assert found["accuracy"].high == pytest.approx(mean + half, abs=0.012)
    assert found == bootstrap(probs_RC, labels_R, 10, num_draws=400, level=0.95, seed=1)
    assert found != bootstrap(probs_RC, labels_R, 10, num_draws=400, level=0.95, seed=2)


def test_each_draw_is_the_measure_of_the_drawn_rows() -> None:
    """One draw's interval is a point: that of the rows that the same generator draws."""
    rng = np.random.default_rng(0)
    probs_RC = rng.dirichlet([1.0, 2.0, 1.0], 50)
    labels_R = rng.integers(0, 3, 50)
    rows = np.random.default_rng(7).integers(0, 50, 50)
    found = bootstrap(probs_RC, labels_R, 5, num_draws=1, level=0.9, seed=7)
    drawn, truth = probs_RC[rows], labels_R[rows]
    assert found["accuracy"].low == pytest.approx((drawn.argmax(1) == truth).mean())
    assert found["f1"].low == pytest.approx(f1_score(truth, drawn.argmax(1), average="macro"))
    assert found["ece"].low == pytest.approx(calibration(drawn, truth, 5).ece)
