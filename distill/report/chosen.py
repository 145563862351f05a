"""``distill frontier``: the frontier under limits, and the best student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import RecordError
from distill.metrics import SIZE, measured_by
from distill.report.keys import common, differing
from distill.report.names import label, shown, shown_value
from distill.report.terminal import grid
from distill.search.choice import best, within
from distill.search.trials import Trial, frontier
from distill.tracking.read import Record

if TYPE_CHECKING:
    from rich.console import Group


def chosen(record: Record, limits: Mapping[str, float]) -> tuple[list[Trial], Trial]:
    """The frontier of the trials within ``limits`` (metric → largest value), and the best of it.

    Raises RecordError where no student is within them; it names the smallest value there is.
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
            f"the smallest is {least} ({nearest.name})"
        )
    if not allowed:
        raise RecordError(
            f"no student of {record.experiment} meets all limits: raise one, or run more trials"
        )
    needed = ", ".join(goal.metric for goal in record.goals)
    raise RecordError(f"no finished trial of {record.experiment} has logged all goals: {needed}")


def render_frontier(record: Record, members: Sequence[Trial], top: Trial) -> Group:
    """The frontier for the terminal, smallest first; the best student is marked."""
    metrics = [goal.metric for goal in record.goals]
    measures = measured_by(name for trial in members for name in trial.metrics)
    metrics += [m for m in (*measures.tested, SIZE) if m not in metrics]
    finished = sum(trial.status == "finished" for trial in record.trials)
    title = f"{record.experiment}: frontier, {len(members)} of {finished} finished students"
    notes = [f"{t.name}: {why}" for t in members if (why := record.below_majority(t))]
    return frontier_table(title, members, top, metrics, record.searched, notes)


def frontier_table(
    title: str,
    members: Sequence[Trial],
    top: Trial | None,
    metrics: Sequence[str],
    keys: Sequence[str],
    notes: Sequence[str] = (),
) -> Group:
    """A row per student: its metrics, and the ``keys`` in which the students differ.

    Keys with one value in all rows are a line below the table; a single student has all keys.
    """
    is_one = len(members) == 1
    shown_keys = [k for k in keys if k in members[0].values] if is_one else differing(members, keys)
    heads = ["student", *(label(m).replace(" (", "\n(") for m in metrics), *shown_keys]
    rows = [
        [trial.name]
        + [shown(m, trial.metrics.get(m)) for m in metrics]
        + [shown_value(trial.values.get(key)) for key in shown_keys]
        for trial in members
    ]
    same = [f"{key} {shown_value(value)}" for key, value in common(members, keys).items()]
    if same and not is_one:
        notes = [f"in all rows: {', '.join(same)}", *notes]
    marked = next((i for i, trial in enumerate(members) if trial is top), None)
    return grid(heads, rows, title, marked=marked, notes=notes)


def copy_student(trial: Trial, out: str | Path) -> None:
    """Copy the trial's exported student to ``out``. RecordError where its folder is gone."""
    if not trial.student or not (Path(trial.student) / "model.safetensors").is_file():
        where = trial.student or "not recorded"
        raise RecordError(
            f"the folder of {trial.name}'s student is gone ({where}): run this command on the "
            "machine and in the folder where the sweep ran, or train it again with its "
            "configuration"
        )
    from distill.export.folder import copy_export

    copy_export(trial.student, out)
