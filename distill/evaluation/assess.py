"""Quality, fidelity and robustness of one classifier, with or without a teacher to compare with.

Shape suffixes: R rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from distill.evaluation.attacked import UnderAttack, attack_model
from distill.evaluation.calibration import Calibration, calibration
from distill.evaluation.classifiers import Classifier, probs_of
from distill.evaluation.intervals import bootstrap
from distill.evaluation.quality import confusion
from distill.evaluation.relations import ece_gap, relative_drop, violations
from distill.evaluation.samples import Sample
from distill.evaluation.settings import Evaluation, Kind, transformations_of
from distill.evaluation.variants import Variants, make_variants, pick


class EvaluationProgress(Protocol):
    """Receives lines for people, and the state of bars by label."""

    def say(self, message: str) -> None: ...
    def update(self, label: str, done: float | None = None, total: float | None = None) -> None: ...


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """The rows that models are evaluated on."""

    samples: Sequence[Sample]
    label_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    kind: Kind | None
    """Of the texts; None leaves transformations and attacks out (features: noise alone)."""
    sd_D: np.ndarray | None = None
    """Of each feature; None for texts."""

    @cached_property
    def labels_R(self) -> np.ndarray:
        return np.array([sample.label for sample in self.samples], np.int64)

    @cached_property
    def domains_R(self) -> np.ndarray:
        """Strings."""
        return np.array([sample.domain for sample in self.samples], object)


@dataclass(frozen=True)
class Difference:
    """A sample on which student and teacher differ, original or transformed."""

    row: int
    variant: str
    """``original``, or the transformation."""
    domain: str
    label: str
    teacher: str
    teacher_p: float
    student: str
    student_p: float
    divergence: float
    text: str
    pair: str | None


@dataclass(frozen=True, eq=False)
class ModelPredictions:
    """One model's predictions, and the results of the attacks on it."""

    probs_RC: np.ndarray
    calibration: Calibration
    variant_probs: dict[str, np.ndarray]
    """By transformation, for the rows that it changed."""
    attacks: UnderAttack | None


@dataclass(frozen=True, eq=False)
class Assessment:
    """All measures; ``metrics`` has the stable names."""

    metrics: dict[str, float | None]
    student: ModelPredictions
    teacher: ModelPredictions | None
    differences: list[Difference]
    notes: list[str]
    """What was left out, counted or not defined: for people."""
    changed: dict[str, int] = field(default_factory=dict)
    """By transformation, the number of rows that it changed."""


def assess(
    student: Classifier,
    teacher: Classifier | None,
    task: EvaluationTask,
    settings: Evaluation,
    progress: EvaluationProgress,
) -> Assessment:
    """All measures of ``settings``. Raises DataError where too many sources do not parse."""
    if task.kind is not None or task.sd_D is not None:
        progress.say("transforming rows")
    variants = variants_of(task, settings)  # first: it may refuse the data
    own = examine(student, task, variants, settings, progress)
    others = None if teacher is None else examine(teacher, task, variants, settings, progress)
    return compare(own, others, task, variants, settings)


def variants_of(task: EvaluationTask, settings: Evaluation) -> Variants:
    """The transformed rows, the same for every model."""
    has_some = task.kind is not None or task.sd_D is not None
    names = transformations_of(task.kind, settings.transform) if has_some else ()
    chosen = pick(len(task.samples), settings.transform.num_samples, settings.seed)
    return make_variants(task, chosen, names, settings)


def examine(
    model: Classifier,
    task: EvaluationTask,
    variants: Variants,
    settings: Evaluation,
    progress: EvaluationProgress,
) -> ModelPredictions:
    """One model's predictions for all rows, transformed ones included, and the attacks on it."""
    rows = f"{len(task.samples):,} rows"
    if variants:
        rows += f" and {sum(len(c.places) for c in variants.values()):,} transformed ones"
    progress.say(f"predicting {rows}: {model.name}")
    probs_RC = probs_of(model, task.samples)
    found = {name: probs_of(model, changed.samples) for name, changed in variants.items()}
    attacks = None
    if task.kind is not None and settings.attack.methods:
        attacks = attack_model(model, task, probs_RC, settings, progress)
    bins = calibration(probs_RC, task.labels_R, settings.relations.num_bins)
    return ModelPredictions(probs_RC, bins, found, attacks)


def compare(
    student: ModelPredictions,
    teacher: ModelPredictions | None,
    task: EvaluationTask,
    variants: Variants,
    settings: Evaluation,
) -> Assessment:
    """The metrics of the student, and of the two together."""
    notes = [*_notes(task), *variants.notes]
    if student.attacks is not None:
        notes += student.attacks.notes(task)
    metrics: dict[str, float | None] = {}
    for prefix, one in (("", student), ("teacher.", teacher)):
        if one is not None:
            found = _quality(one, task, settings) | _robustness(one, task, variants)
            metrics |= {f"{prefix}{name}": value for name, value in found.items()}
    differences: list[Difference] = []
    if teacher is not None:
        metrics |= _fidelity(student, teacher, task, variants, settings, notes)
        differences = _worst(student, teacher, task, variants, settings)
    counts = {name: len(changed.places) for name, changed in variants.items()}
    return Assessment(metrics, student, teacher, differences, notes, counts)


def _quality(
    seen: ModelPredictions, task: EvaluationTask, settings: Evaluation
) -> dict[str, float | None]:
    labels_R, domains_R = task.labels_R, task.domains_R
    predicted_R = seen.probs_RC.argmax(1)
    counts = confusion(labels_R, predicted_R, len(task.label_names))
    metrics: dict[str, float | None] = {f"test.{n}": v for n, v in counts.metrics().items()}
    metrics["test.ece"] = seen.calibration.ece
    hits_R = predicted_R == labels_R
    for domain in task.domain_names:
        if (domains_R == domain).any():
            metrics[f"test.accuracy.{domain}"] = float(hits_R[domains_R == domain].mean())
    for c, name in enumerate(task.label_names):
        is_true_R, is_predicted_R = labels_R == c, predicted_R == c
        if is_true_R.any():
            recall = float(is_predicted_R[is_true_R].mean())
            precision = float(is_true_R[is_predicted_R].mean()) if is_predicted_R.any() else 0.0
            metrics[f"test.precision.{name}"] = precision
            metrics[f"test.recall.{name}"] = recall
            total = precision + recall
            metrics[f"test.f1.{name}"] = 2 * precision * recall / total if total else 0.0
    if settings.intervals.num_draws:
        drawn, level = settings.intervals.num_draws, settings.intervals.level
        bins = settings.relations.num_bins
        found = bootstrap(seen.probs_RC, labels_R, bins, drawn, level, settings.seed)
        for name, (low, high) in found.items():
            metrics |= {f"interval.{name}.low": low, f"interval.{name}.high": high}
    return metrics


def _robustness(
    seen: ModelPredictions, task: EvaluationTask, variants: Variants
) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {}
    if variants:
        before_R, labels_R = seen.probs_RC.argmax(1), task.labels_R
        hits, flips = [], []
        for name, changed in variants.items():
            predicted = seen.variant_probs[name].argmax(1)
            hits.append(predicted == labels_R[changed.places])
            flips.append(predicted != before_R[changed.places])
            metrics[f"robustness.transformed.{name}.accuracy"] = float(hits[-1].mean())
            metrics[f"robustness.transformed.{name}.flips"] = float(flips[-1].mean())
        metrics["robustness.transformed.accuracy"] = float(np.concatenate(hits).mean())
        metrics["robustness.transformed.drop"] = _lost(seen, task, variants)
        metrics["robustness.transformed.flips"] = float(np.concatenate(flips).mean())
    if seen.attacks is not None:
        metrics |= seen.attacks.metrics()
    return metrics


def _fidelity(
    student: ModelPredictions,
    teacher: ModelPredictions,
    task: EvaluationTask,
    variants: Variants,
    settings: Evaluation,
    notes: list[str],
) -> dict[str, float | None]:
    relations = settings.relations
    clean = violations(teacher.probs_RC, student.probs_RC, relations)
    metrics: dict[str, float | None] = {f"fidelity.{n}": v for n, v in clean.rates().items()}
    gap = ece_gap(teacher.probs_RC, student.probs_RC, task.labels_R, relations.num_bins)
    metrics["fidelity.ece_gap"] = gap
    if gap > relations.delta:
        notes.append(
            f"the calibration errors (ECE) differ by {gap:.3f}, more than relations.delta "
            f"{relations.delta:g}"
        )
    if variants:
        pairs = {n: (teacher.variant_probs[n], student.variant_probs[n]) for n in variants}
        for name, pair in pairs.items():
            rates = violations(*pair, relations).rates()
            metrics |= {f"fidelity.transformed.{name}.{n}": v for n, v in rates.items()}
        joined = [np.concatenate(side) for side in zip(*pairs.values(), strict=True)]
        rates = violations(joined[0], joined[1], relations).rates()
        metrics |= {f"fidelity.transformed.{n}": v for n, v in rates.items()}
        drop = relative_drop(_lost(teacher, task, variants), _lost(student, task, variants))
        metrics["fidelity.transformed.relative_drop"] = drop
        if drop is None:
            notes.append(
                "the teacher's accuracy is not lower on transformed inputs: "
                "fidelity.transformed.relative_drop is not defined"
            )
    if teacher.attacks is not None and student.attacks is not None:
        under = relative_drop(teacher.attacks.lost, student.attacks.lost)
        metrics["fidelity.relative_drop"] = under
        if under is None:
            notes.append(
                "the teacher's accuracy is not lower under attack: fidelity.relative_drop is not "
                "defined"
            )
    return metrics


def _lost(seen: ModelPredictions, task: EvaluationTask, variants: Variants) -> float:
    """Accuracy on the rows that were changed before, less that on their variants; over all."""
    places = np.concatenate([changed.places for changed in variants.values()])
    labels, before = task.labels_R[places], seen.probs_RC[places].argmax(1)
    after = np.concatenate([seen.variant_probs[name].argmax(1) for name in variants])
    return float((before == labels).mean() - (after == labels).mean())


def _worst(
    student: ModelPredictions,
    teacher: ModelPredictions,
    task: EvaluationTask,
    variants: Variants,
    settings: Evaluation,
) -> list[Difference]:
    """Violating samples by divergence, the labels' disagreements first; each row once."""
    blocks: list[tuple[str, Sequence[Sample], np.ndarray, np.ndarray]] = [
        ("original", task.samples, teacher.probs_RC, student.probs_RC)
    ]
    blocks += [
        (name, changed.samples, teacher.variant_probs[name], student.variant_probs[name])
        for name, changed in variants.items()
    ]
    found: list[tuple[bool, float, str, Sample, np.ndarray, np.ndarray]] = []
    for variant, samples, teacher_RC, student_RC in blocks:
        violated = violations(teacher_RC, student_RC, settings.relations)
        for i in np.flatnonzero(violated.any_R).tolist():
            far = float(violated.divergence_R[i])
            differs = bool(violated.agreement_R[i])
            found.append((differs, far, variant, samples[i], teacher_RC[i], student_RC[i]))
    found.sort(key=lambda one: one[:2], reverse=True)
    kept: dict[int, Difference] = {}
    for _, far, variant, sample, teacher_C, student_C in found:
        if len(kept) < settings.num_worst and sample.row not in kept:
            kept[sample.row] = _difference(task, far, variant, sample, teacher_C, student_C)
    return list(kept.values())


def _difference(
    task: EvaluationTask,
    far: float,
    variant: str,
    sample: Sample,
    teacher_C: np.ndarray,
    student_C: np.ndarray,
) -> Difference:
    names = task.label_names
    return Difference(
        row=sample.row,
        variant=variant,
        domain=sample.domain,
        label=names[sample.label],
        teacher=names[int(teacher_C.argmax())],
        teacher_p=float(teacher_C.max()),
        student=names[int(student_C.argmax())],
        student_p=float(student_C.max()),
        divergence=far,
        text=sample.text,
        pair=sample.pair,
    )


def _notes(task: EvaluationTask) -> list[str]:
    """Classes without rows: their recall has no meaning, and macro means leave them out."""
    present = set(task.labels_R.tolist())
    empty = [name for c, name in enumerate(task.label_names) if c not in present]
    if not empty:
        return []
    names = ", ".join(map(repr, empty))
    return [
        f"no row has the class {names}: its recall is not defined, and macro means are over the "
        "classes that occur in labels or predictions; add rows of this class"
    ]
