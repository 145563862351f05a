"""What ``distill frontier`` answers: the frontier under limits, and the student to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import RecordError
from distill.report.names import TEST, label, shown, shown_value
from distill.search.choice import SIZE, best, within
from distill.search.trials import Trial, frontier
from distill.tracking.read import Record

if TYPE_CHECKING:
    from rich.table import Table


def chosen(record: Record, limits: Mapping[str, float]) -> tuple[list[Trial], Trial]:
    """The frontier of the trials within ``limits`` (metric → most), and the best among them.

    Raises RecordError where no student meets them, and says how near the nearest comes.
    """
    allowed = within(record.trials, limits)
    members = frontier(allowed, record.goals)
    top = best(members, record.goals)
    if top is not None:
        return members, top
    for metric, limit in limits.items():
        if within(record.trials, {metric: limit}):
            continue
        known = [t for t in record.trials if t.status == "finished" and metric in t.metrics]
        nearest = min(known, key=lambda t: t.metrics[metric], default=None)
        if nearest is None:
            raise RecordError(f"no finished trial of {record.experiment} has logged {metric}")
        least = shown(metric, nearest.metrics[metric])
        raise RecordError(
            f"no student of {record.experiment} has {label(metric)} ≤ {limit:g}: "
            f"the least is {least} ({nearest.name})"
        )
    if not allowed:
        raise RecordError(
            f"no student of {record.experiment} meets all limits at once: raise one, or search more"
        )
    needed = ", ".join(goal.metric for goal in record.goals)
    raise RecordError(f"no finished trial of {record.experiment} has logged all goals: {needed}")


def render_frontier(record: Record, members: Sequence[Trial], top: Trial) -> Table:
    """A rich table, smallest first; the best student marked, not by colour alone."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    metrics = [goal.metric for goal in record.goals]
    metrics += [m for m in (*TEST, SIZE) if m not in metrics]
    metrics = [m for m in metrics if any(m in t.metrics for t in members)]
    title = Text(f"{record.experiment}: frontier")
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(["student", *map(label, metrics), *record.searched]):
        table.add_column(Text(name), justify="right" if index else "left")
    for trial in members:
        cells = [f"★ {trial.name}" if trial is top else trial.name]
        cells += [shown(m, trial.metrics.get(m)) for m in metrics]
        cells += [shown_value(trial.values.get(key)) for key in record.searched]
        # Text: a value in square brackets is no style.
        table.add_row(*map(Text, cells), style="bold green" if trial is top else None)
    return table


def copy_student(trial: Trial, out: str | Path) -> None:
    """The trial's exported student into ``out``. Raises RecordError where its folder is gone."""
    if not trial.student or not (Path(trial.student) / "model.safetensors").is_file():
        where = trial.student or "not recorded"
        raise RecordError(
            f"the folder of {trial.name}'s student is gone ({where}): run this on the machine and "
            "in the folder where the sweep ran, or train it again with its configuration"
        )
    from distill.student.export import copy_export

    copy_export(trial.student, out)
