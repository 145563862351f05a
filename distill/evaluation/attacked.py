"""One model under all the attacks: success rate, accuracy, queries, and the curve over the budget.

Shape suffixes: C classes, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distill.evaluation.attacks import Attacked, CodeSpace, Space, TextSpace, attack, curve
from distill.evaluation.classifiers import Classifier, probs_of
from distill.evaluation.samples import Sample
from distill.evaluation.settings import Evaluation, Kind
from distill.evaluation.variants import pick
from distill.transform import Code, identifiers

if TYPE_CHECKING:
    from distill.evaluation.assess import EvaluationProgress, EvaluationTask


@dataclass(frozen=True, eq=False)
class UnderAttack:
    """The results of the attacks on one model."""

    places: np.ndarray
    """int64: the attacked samples' positions in the task's."""
    num_correct: int
    """Those of them that the model predicts correctly before any attack."""
    by_method: dict[str, list[Attacked]]
    curves: dict[str, np.ndarray]
    """Accuracy over the samples after 0 … budget queries each, by method, and of all (worst)."""

    @property
    def flipped(self) -> set[int]:
        """Samples that at least one attack flipped."""
        found = (a.sample for attacked in self.by_method.values() for a in attacked if a.is_flipped)
        return set(found)

    @property
    def attacked(self) -> set[int]:
        """Samples that at least one attack could change."""
        return {a.sample for attacked in self.by_method.values() for a in attacked}

    @property
    def lost(self) -> float:
        """Accuracy before, less accuracy under the worst of the attacks on each sample."""
        return len(self.flipped) / len(self.places)

    def notes(self, task: EvaluationTask) -> list[str]:
        """Rows that no attack could change: they do not parse, or have nothing to change."""
        skipped = self.num_correct - len(self.attacked)
        if not skipped:
            return []
        return [
            f"{skipped} of the {self.num_correct} rows that the student predicts correctly were "
            f"not attacked: nothing in them can be changed, or they do not parse as {task.kind}"
        ]

    def metrics(self) -> dict[str, float | None]:
        """ASR: flipped / attacked and correct before; accuracy: over all samples.

        Without a method's name: a sample is flipped if any of the methods flips it.
        """
        num = len(self.places)
        metrics: dict[str, float | None] = {}
        for method, attacked in self.by_method.items():
            flips = sum(a.is_flipped for a in attacked)
            metrics[f"robustness.{method}.asr"] = flips / len(attacked) if attacked else None
            metrics[f"robustness.{method}.accuracy"] = (self.num_correct - flips) / num
            queries = [a.queries for a in attacked]
            metrics[f"robustness.{method}.queries"] = float(np.mean(queries)) if queries else None
        metrics["robustness.attacked"] = float(len(self.attacked))
        flipped = len(self.flipped)
        metrics["robustness.asr"] = flipped / len(self.attacked) if self.attacked else None
        metrics["robustness.accuracy"] = (self.num_correct - flipped) / num
        return metrics


def attack_model(
    model: Classifier,
    task: EvaluationTask,
    probs_RC: np.ndarray,
    settings: Evaluation,
    progress: EvaluationProgress,
) -> UnderAttack:
    """Every method on the same seeded sample of rows; the first text of a pair is attacked."""
    kind, budget = task.kind, settings.attack.budget
    assert kind is not None
    places = pick(len(task.samples), settings.attack.num_samples, settings.seed)
    samples = [task.samples[i] for i in places]
    spaces = _spaces(samples, kind)
    labels = [sample.label for sample in samples]

    def query(texts: Sequence[tuple[int, str]]) -> np.ndarray:
        return probs_of(model, [samples[i].with_text(text) for i, text in texts])

    by_method: dict[str, list[Attacked]] = {}
    for method in settings.attack.methods:
        bar = f"attacking {model.name} ({method})"
        by_method[method] = attack(
            method,
            spaces,
            labels,
            probs_RC[places],
            query,
            budget,
            settings.seed,
            lambda done, total, bar=bar: progress.update(bar, done, total),
        )
    num_correct = int((probs_RC[places].argmax(1) == labels).sum())
    curves = {m: curve(a, num_correct, len(samples), budget) for m, a in by_method.items()}
    first: dict[int, Attacked] = {}
    for attacked in by_method.values():
        for a in attacked:
            if a.is_flipped and (a.sample not in first or a.queries < first[a.sample].queries):
                first[a.sample] = a
    curves["any"] = curve(list(first.values()), num_correct, len(samples), budget)
    return UnderAttack(places, num_correct, by_method, curves)


def _spaces(samples: Sequence[Sample], kind: Kind) -> list[Space]:
    if kind == "text":
        return [TextSpace(sample.text) for sample in samples]
    parsed = (Code.parse(sample.text, kind) for sample in samples)
    # Sorted: a set's order differs between processes.
    names = sorted({name for code in parsed if code.is_valid for name in identifiers(code)})
    return [CodeSpace(sample.text, kind, names) for sample in samples]
