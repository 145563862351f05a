"""What a sweep came to: its frontier, and the student to register."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.report.names import shown_value
from distill.report.table import Row, count, percent, three_digits
from distill.search.settings import Search
from distill.search.trials import Trial

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class SweepOutcome:
    """What the sweep came to."""

    trials: list[Trial]
    best: list[Trial]
    """The frontier, smallest first."""
    champion: Trial | None
    rows: list[Row]
    """Experts, mixtures and baselines on the test split."""
    metrics: dict[str, float]
    report: Path
    open_command: str = ""
    title: str = ""

    def table(self) -> Table:
        """The frontier, for the terminal: searched values, validation, test, and the costs."""
        from rich import box
        from rich.table import Table

        table = Table(
            title=f"{self.title}: frontier, {len(self.best)} of {len(self.trials)} trials",
            box=box.SIMPLE_HEAD,
            title_justify="left",
        )
        keys = list(dict.fromkeys(key for trial in self.best for key in trial.values))
        known = {name for trial in self.best for name in trial.metrics}
        columns = {head: shown for head, shown in SHOWN.items() if shown[0] in known}
        for name in ("trial", *(key.removeprefix("student.") for key in keys), *columns):
            is_name = name == "trial"
            justify = "left" if is_name else "right"
            table.add_column(name, justify=justify, no_wrap=is_name)
        for trial in self.best:
            is_champion = trial is self.champion
            values = [shown_value(trial.values.get(key)) for key in keys]
            metrics = [show(trial.metrics.get(name)) for name, show in columns.values()]
            mark = "★ " if is_champion else ""
            style = "bold green" if is_champion else None
            table.add_row(f"{mark}{trial.name}", *values, *metrics, style=style)
        return table

    def as_json(self) -> dict[str, object]:
        told = [{"name": t.name, "values": t.values, "metrics": t.metrics} for t in self.best]
        champion = self.champion.student if self.champion else None
        return {
            **self.metrics,
            "frontier": told,
            "student": champion,
            "report": str(self.report),
        }


SHOWN = {
    "eval PPL": ("eval.perplexity", three_digits),
    "eval acc.": ("eval.accuracy", percent),
    "retention": ("eval.retention", percent),
    "test PPL": ("test.perplexity", three_digits),
    "test acc.": ("test.accuracy", percent),
    "agree": ("fidelity.token_agreement", percent),
    "params": ("student.params", count),
    "MB": ("student.size_mb", three_digits),
    "CPU ms": ("student.latency_ms", three_digits),
}
"""Columns of the table, those that a student of the frontier fills: a stable metric name, and how
it is written."""


def champion_of(best: Sequence[Trial], search: Search) -> Trial | None:
    """The best in the first goal among those that are small enough."""
    limit = search.champion.max_mb
    fitting = [t for t in best if limit is None or t.metrics["student.size_mb"] <= limit]
    quality = search.ordered_goals[0]
    return min(fitting, key=lambda trial: quality.cost(trial.metrics), default=None)
