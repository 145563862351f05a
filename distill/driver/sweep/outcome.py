"""The result of a sweep: its frontier, and the student to register."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.config.search import Search
from distill.evaluation.rows import Row
from distill.metrics import LATENCY, SIZE, measured_by
from distill.report.names import label, shown, shown_value
from distill.report.table import broken
from distill.search.trials import Trial

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class SweepOutcome:
    trials: list[Trial]
    best: list[Trial]
    """The frontier, smallest first."""
    champion: Trial | None
    rows: list[Row]
    """Experts, ensembles and baselines on the test split."""
    metrics: dict[str, float]
    report: Path
    open_command: str = ""
    title: str = ""

    def table(self, columns: int | None = None) -> Group:
        """The frontier, within ``columns`` of the terminal: the values searched, validation, test,
        size and latency."""
        from distill.report.terminal import grid

        measures = measured_by(name for trial in self.best for name in trial.metrics)
        names = (*measures.summary, "student.params", SIZE, LATENCY)
        keys = list(dict.fromkeys(key for trial in self.best for key in trial.values))
        rows = [
            [
                trial.name,
                *(shown_value(trial.values.get(key)) for key in keys),
                *(shown(name, trial.metrics.get(name)) for name in names),
            ]
            for trial in self.best
        ]
        return grid(
            ["trial", *keys, *(broken(label(name)) for name in names)],
            rows,
            f"{self.title}: frontier, {len(self.best)} of {len(self.trials)} trials",
            marked=self.best.index(self.champion) if self.champion in self.best else None,
            columns=columns,
        )

    def as_json(self) -> dict[str, object]:
        best = [{"name": t.name, "values": t.values, "metrics": t.metrics} for t in self.best]
        champion = self.champion.student if self.champion else None
        return {
            **self.metrics,
            "frontier": best,
            "student": champion,
            "report": str(self.report),
        }


def champion_of(best: Sequence[Trial], search: Search) -> Trial | None:
    """The best in the first goal among those that are small enough."""
    limit = search.champion.max_mb
    fitting = [t for t in best if limit is None or t.metrics[SIZE] <= limit]
    quality = search.ordered_goals[0]
    return min(fitting, key=lambda trial: quality.cost(trial.metrics), default=None)
