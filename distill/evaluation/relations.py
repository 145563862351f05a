"""Does the student behave like its teacher? Four metamorphic relations on their probabilities.

MetaCompress, arXiv 2511.05476. [paper]: the relations. [ours]: their thresholds, all parameters.
All at temperature 1. Shape suffixes: R rows, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from distill.evaluation.calibration import NUM_BINS, calibration
from distill.variant import Section

RELATIONS = ("agreement", "distribution", "confidence", "calibration")
RATES = (*RELATIONS, "any")
TINY = 1e-12


class Relations(Section):
    """When a relation counts as violated [ours]."""

    divergence: Literal["jsd", "kl", "tv"] = "jsd"
    """Between p_T and p_S: Jensen–Shannon (nats), KL(p_T ‖ p_S) (nats), or total variation."""
    epsilon: float = Field(default=0.1, gt=0)
    """distribution: the maximum divergence that counts as similar."""
    tau: float = Field(default=0.9, gt=0, le=1)
    """confidence: at or above this probability the teacher is confident; the student must be
    confident of the same label."""
    delta: float = Field(default=0.05, gt=0)
    """calibration: the maximum |max p_T − max p_S| of a row; also the maximum difference of the two
    ECEs."""
    num_bins: int = Field(default=NUM_BINS, ge=2)
    """Bins of the ECE."""


def described(relations: Relations) -> dict[str, str]:
    """Of each relation, and of ``any``, the rows that violate it, for a reader of a table."""
    divergence = {"jsd": "JSD", "kl": "KL divergence", "tv": "total variation"}
    return {
        "agreement": "the predicted classes differ",
        "distribution": f"{divergence[relations.divergence]} of the probabilities is more than "
        f"{relations.epsilon:g}",
        "confidence": f"the teachers' confidence is at least {relations.tau:.0%}; the student's is "
        "lower, or for another class",
        "calibration": f"the largest probabilities differ by more than {relations.delta * 100:g} "
        "percentage points",
        "any": "at least one of these",
    }


@dataclass(frozen=True, eq=False)
class Violations:
    """Which relation each row violates, bool [R]."""

    agreement_R: np.ndarray
    distribution_R: np.ndarray
    confidence_R: np.ndarray
    calibration_R: np.ndarray
    divergence_R: np.ndarray  # float: how far apart the two are, for a list of the worst

    @property
    def any_R(self) -> np.ndarray:
        return self.agreement_R | self.distribution_R | self.confidence_R | self.calibration_R

    def rates(self) -> dict[str, float]:
        """The share of rows that violates each relation, and ``any``; of at least one row."""
        assert len(self.agreement_R) > 0
        rates = {name: float(getattr(self, f"{name}_R").mean()) for name in RELATIONS}
        return rates | {"any": float(self.any_R.mean())}


def violations(teacher_RC: np.ndarray, student_RC: np.ndarray, relations: Relations) -> Violations:
    """Of probabilities, row by row.

    agreement:    argmax p_T ≠ argmax p_S
    distribution: D(p_T, p_S) > ε
    confidence:   max p_T ≥ τ, and the labels differ or max p_S < τ
    calibration:  |max p_T − max p_S| > δ, the per-sample variant
    """
    assert teacher_RC.shape == student_RC.shape
    top_T_R, top_S_R = teacher_RC.max(1), student_RC.max(1)
    differs_R = teacher_RC.argmax(1) != student_RC.argmax(1)
    divergence_R = divergence(teacher_RC, student_RC, relations.divergence)
    return Violations(
        agreement_R=differs_R,
        distribution_R=divergence_R > relations.epsilon,
        confidence_R=(top_T_R >= relations.tau) & (differs_R | (top_S_R < relations.tau)),
        calibration_R=np.abs(top_T_R - top_S_R) > relations.delta,
        divergence_R=divergence_R,
    )


def divergence(
    teacher_RC: np.ndarray, student_RC: np.ndarray, kind: Literal["jsd", "kl", "tv"]
) -> np.ndarray:
    """[R]: JSD in [0, ln 2], KL(p_T ‖ p_S) ≥ 0, or TV in [0, 1]."""
    if kind == "tv":
        return 0.5 * np.abs(teacher_RC - student_RC).sum(1)
    if kind == "kl":
        return _kl(teacher_RC, student_RC)
    middle_RC = 0.5 * (teacher_RC + student_RC)
    return 0.5 * (_kl(teacher_RC, middle_RC) + _kl(student_RC, middle_RC))


def _kl(p_RC: np.ndarray, q_RC: np.ndarray) -> np.ndarray:
    ratio_RC = np.maximum(p_RC, TINY) / np.maximum(q_RC, TINY)
    return np.maximum((p_RC * np.log(ratio_RC)).sum(1), 0.0)  # rounding may leave −1e-17


def ece_gap(
    teacher_RC: np.ndarray, student_RC: np.ndarray, labels_R: np.ndarray, num_bins: int
) -> float:
    """|ECE_T − ECE_S|: the calibration relation over the whole data set."""
    return abs(
        calibration(teacher_RC, labels_R, num_bins).ece
        - calibration(student_RC, labels_R, num_bins).ece
    )


def relative_drop(teacher_drop: float, student_drop: float) -> float | None:
    """(ΔAcc_S − ΔAcc_T) / ΔAcc_T: 2.85 is the paper's 285 %. None where ΔAcc_T ≤ 0.

    ΔAcc is an accuracy before minus the accuracy after: under attack, or on transformed inputs.
    """
    return None if teacher_drop <= 0 else (student_drop - teacher_drop) / teacher_drop
