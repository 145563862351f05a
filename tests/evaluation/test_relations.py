"""The metamorphic relations against hand-made rows, and what they promise for all rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from distill.evaluation.relations import (
    RELATIONS,
    Relations,
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


def test_jsd_and_kl_of_disjoint_rows() -> None:
    p_RC, q_RC = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert divergence(p_RC, q_RC, "jsd")[0] == pytest.approx(math.log(2))
    assert math.isfinite(divergence(p_RC, q_RC, "kl")[0])


def test_relative_drop() -> None:
    assert relative_drop(0.10, 0.385) == pytest.approx(2.85)  # the paper's 285 %
    assert relative_drop(0.10, 0.05) == pytest.approx(-0.5)
    assert relative_drop(0.0, 0.3) is None
