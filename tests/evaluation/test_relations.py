"""The metamorphic relations against hand-made rows, and what they promise for all rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from distill.evaluation.relations import (
    RATES,
    RELATIONS,
    Relations,
    described,
    divergence,
    ece_gap,
    relative_drop,
    violations,
)

TEACHER = np.array([[0.95, 0.05], [0.95, 0.05], [0.60, 0.40], [0.60, 0.40], [0.92, 0.08]])
STUDENT = np.array([[0.94, 0.06], [0.85, 0.15], [0.45, 0.55], [0.58, 0.42], [0.10, 0.90]])


def test_each_relation_on_rows_made_for_it() -> None:
    found = violations(TEACHER, STUDENT, Relations(epsilon=0.1, tau=0.9, delta=0.06))
    # alike · sure turned unsure · another label, both unsure · alike · sure of the other label
    assert found.agreement_R.tolist() == [False, False, True, False, True]
    assert found.confidence_R.tolist() == [False, True, False, False, True]
    assert found.calibration_R.tolist() == [False, True, False, False, False]
    assert found.distribution_R.tolist() == [False, False, False, False, True]
    assert found.rates() == {
        "agreement": 0.4,
        "distribution": 0.2,
        "confidence": 0.4,
        "calibration": 0.2,
        "any": 0.6,
    }


def probabilities(num: int) -> st.SearchStrategy[np.ndarray]:
    odds = arrays(np.float64, (num, 3), elements=st.floats(1e-6, 1.0))
    return odds.map(lambda odds_RC: odds_RC / odds_RC.sum(1, keepdims=True))


@given(probabilities(6))
def test_a_model_violates_nothing_beside_itself(probs_RC: np.ndarray) -> None:
    assert set(violations(probs_RC, probs_RC, Relations()).rates().values()) == {0.0}
    labels_R = np.zeros(len(probs_RC), np.int64)
    assert ece_gap(probs_RC, probs_RC, labels_R, 10) == 0


@given(probabilities(6), probabilities(6))
def test_any_is_the_union_and_jsd_is_from_entropies(p_RC: np.ndarray, q_RC: np.ndarray) -> None:
    found = violations(p_RC, q_RC, Relations())
    parts = np.stack([getattr(found, f"{name}_R") for name in RELATIONS])
    assert (found.any_R == parts.any(0)).all()
    middle_RC = (p_RC + q_RC) / 2
    expected_R = (entropy(p_RC, middle_RC, axis=1) + entropy(q_RC, middle_RC, axis=1)) / 2
    np.testing.assert_allclose(divergence(p_RC, q_RC, "jsd"), expected_R, atol=1e-9)
    total_R = [np.abs(p - q).sum() / 2 for p, q in zip(p_RC, q_RC, strict=True)]
    np.testing.assert_allclose(divergence(p_RC, q_RC, "tv"), total_R)
    assert (divergence(p_RC, q_RC, "kl") >= 0).all()


def test_the_defaults_are_the_documented_thresholds() -> None:
    assert Relations().model_dump() == {
        "divergence": "jsd",
        "epsilon": 0.1,
        "tau": 0.9,
        "delta": 0.05,
        "num_bins": 10,
    }


def two_classes(*p_first: float) -> np.ndarray:
    return np.array([[p, 1 - p] for p in p_first])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        # of p_T = (1/2, 1/2) and p_S = (1/4, 3/4), by hand
        ("tv", 0.25),
        ("kl", 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
        (
            "jsd",
            0.25 * math.log(4 / 3)
            + 0.25 * math.log(4 / 5)
            + 0.125 * math.log(2 / 3)
            + 0.375 * math.log(6 / 5),
        ),
    ],
)
def test_distribution_is_violated_above_epsilon_and_not_at_it(kind, value: float) -> None:
    teacher_RC, student_RC = two_classes(0.5), two_classes(0.25)
    (found,) = divergence(teacher_RC, student_RC, kind)
    assert found == pytest.approx(value, rel=1e-9)
    for epsilon, expected in [(found, False), (found * 0.99, True), (found * 1.01, False)]:
        relations = Relations(divergence=kind, epsilon=epsilon)
        result = violations(teacher_RC, student_RC, relations)
        assert result.distribution_R.tolist() == [expected]
        assert result.divergence_R.tolist() == [found]


def test_kl_is_that_of_the_student_from_the_teacher() -> None:
    p_RC, q_RC = two_classes(0.9), two_classes(0.6)
    forward, backward = entropy(p_RC[0], q_RC[0]), entropy(q_RC[0], p_RC[0])
    assert divergence(p_RC, q_RC, "kl")[0] == pytest.approx(forward)
    assert abs(forward - backward) > 0.05


@given(probabilities(6), probabilities(6))
def test_kl_is_the_relative_entropy(p_RC: np.ndarray, q_RC: np.ndarray) -> None:
    expected_R = entropy(p_RC, q_RC, axis=1)
    np.testing.assert_allclose(divergence(p_RC, q_RC, "kl"), expected_R, atol=1e-9)


def test_a_probability_of_zero_counts_as_1e_12() -> None:
    p_RC, q_RC = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert divergence(p_RC, q_RC, "kl")[0] == pytest.approx(12 * math.log(10))
    # 0 · log(0 / q) = 0
    assert divergence(p_RC, two_classes(0.5), "kl")[0] == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("teacher", "student", "is_violated"),
    [
        (0.9, 0.9, False),  # at the threshold both are confident
        (0.9, 0.89, True),
        (0.89, 0.5, False),  # the teacher is not confident
        (0.95, 0.05, True),  # as confident of another class
        (0.05, 0.1, False),  # the second class, both confident
        (0.05, 0.2, True),
    ],
)
def test_confidence_counts_from_tau_on(teacher: float, student: float, is_violated: bool) -> None:
    found = violations(two_classes(teacher), two_classes(student), Relations())
    assert found.confidence_R.tolist() == [is_violated]


def test_calibration_compares_the_largest_probabilities_with_delta() -> None:
    teacher_RC, student_RC = two_classes(0.75, 0.75, 0.75, 0.75), two_classes(0.5, 1, 0.25, 0.875)
    at = violations(teacher_RC, student_RC, Relations(delta=0.25))
    assert at.calibration_R.tolist() == [False, False, False, False]  # 0.25 of the second class
    below = violations(teacher_RC, student_RC, Relations(delta=0.24))
    assert below.calibration_R.tolist() == [True, True, False, False]


def test_the_gap_of_the_calibration_errors() -> None:
    """Ten rows of which the first class is right in six."""
    labels_R = np.array([0] * 6 + [1] * 4)
    teacher_RC, student_RC = np.tile([[0.75, 0.25]], (10, 1)), np.tile([[0.95, 0.05]], (10, 1))
    # ECE_T = |0.6 − 0.75|, ECE_S = |0.6 − 0.95|
    assert ece_gap(teacher_RC, student_RC, labels_R, 10) == pytest.approx(0.2)
    assert ece_gap(student_RC, teacher_RC, labels_R, 10) == pytest.approx(0.2)
    # In halves 0.75 and 0.65 are in one bin, whose mean is that of the labels: an ECE of 0.1.
    mixed_RC = np.repeat([[0.75, 0.25], [0.65, 0.35]], 5, axis=0)
    assert ece_gap(mixed_RC, teacher_RC, labels_R, 2) == pytest.approx(0.05)
    assert ece_gap(teacher_RC, mixed_RC, labels_R, 2) == pytest.approx(0.05)
    # Apart: accuracies of 1 and 0.2, so errors of 0.25 and 0.45 with equal weights.
    assert ece_gap(mixed_RC, teacher_RC, labels_R, 10) == pytest.approx(0.2)


def test_the_rules_are_described_with_their_thresholds() -> None:
    shown = described(Relations(divergence="tv", epsilon=0.2, tau=0.8, delta=0.07))
    assert set(shown) == set(RATES)
    assert shown["distribution"] == "total variation of the probabilities is more than 0.2"
    assert "at least 80%" in shown["confidence"]
    assert shown["calibration"].endswith("by more than 7 percentage points")
    assert described(Relations())["distribution"].startswith("JSD of")
    assert described(Relations(divergence="kl"))["distribution"].startswith("KL divergence of")


def test_jsd_and_kl_of_disjoint_rows() -> None:
    p_RC, q_RC = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert divergence(p_RC, q_RC, "jsd")[0] == pytest.approx(math.log(2))
    assert math.isfinite(divergence(p_RC, q_RC, "kl")[0])


def test_rates_are_of_at_least_one_row() -> None:
    one_RC = two_classes(0.7)
    assert violations(one_RC, one_RC, Relations()).rates()["any"] == 0.0
    none_RC = np.zeros((0, 2))
    with pytest.raises(AssertionError):
        violations(none_RC, none_RC, Relations()).rates()


def test_relative_drop() -> None:
    assert relative_drop(0.10, 0.385) == pytest.approx(2.85)  # the paper's 285 %
    assert relative_drop(0.10, 0.05) == pytest.approx(-0.5)
    assert relative_drop(0.0, 0.3) is None and relative_drop(-0.1, 0.3) is None
    assert relative_drop(0.5, 1.0) == 1.0
