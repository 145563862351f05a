"""Checks of ``kd.schedule``, and its line of the plan."""

from __future__ import annotations

import math

from distill.config import Experiment, Trainer
from distill.config.temperature import LOSS, OBSERVED
from distill.data.rows import Rows
from distill.errors import ConfigError
from distill.records import UNLABELLED, Line
from distill.sampling import StudentText
from distill.wires import WireFormat
from distill.wording import counted

WAY_OUT = "use kd.schedule.type cosine or constant"


def check_schedule(experiment: Experiment, rows: Rows) -> None:
    """Raise for a schedule that could not follow its losses. ``rows``: the corpus, or of language
    models the blocks."""
    schedule = experiment.kd.schedule
    if not (experiment.has_teachers and schedule.reads_losses):
        return
    key = f"kd.schedule.type {schedule.type}"
    sampling, trainer = experiment.sampling, experiment.trainer
    if isinstance(sampling, StudentText):
        raise ConfigError(
            f"{key} follows the cross-entropy with the labels, but with sampling.type "
            f"{sampling.type} the labels are tokens that the student generates: {WAY_OUT}"
        )
    training = range(rows.rows("train").start, rows.rows("transfer").stop)
    if not rows.is_self_labelled and (rows.labels_of(training) == UNLABELLED).all():
        raise ConfigError(
            f"{key} follows the cross-entropy with the labels, but no training row has a label: "
            f"{WAY_OUT}"
        )
    num_steps = _num_steps(trainer, len(training))
    if schedule.min_intervals * trainer.log_every >= num_steps:
        most = (num_steps - 1) // schedule.min_intervals
        lower = f"set trainer.log_every to at most {most}" if most else "train for more steps"
        raise ConfigError(
            f"{key} reads the mean loss of each {trainer.log_every} steps (trainer.log_every), and "
            f"needs {schedule.min_intervals} of these means before the end of the {num_steps:,} "
            "steps: "
            f"{lower}, or {WAY_OUT}"
        )


def _num_steps(trainer: Trainer, num_rows: int) -> int:
    return math.ceil(trainer.epochs * math.ceil(num_rows / trainer.batch_size))


def check_wire(experiment: Experiment, key: str, wire: WireFormat) -> None:
    """Raise unless the wire serves every temperature of the schedule."""
    schedule, temperature = experiment.kd.schedule, experiment.kd.temperature
    if schedule.type == "constant":
        wire.check(key, experiment.objective, [temperature])
        return
    low, high = schedule.range_of(temperature)
    if not wire.is_exact:
        raise ConfigError(
            f"kd.schedule.type {schedule.type} changes the temperature continuously from {low:g} "
            f"to {high:g}, but the outputs of {key} {wire.name} can be used only at some "
            "temperatures: use the wire hidden or dense, or kd.schedule.type constant"
        )
    wire.check(key, experiment.objective, [low, high])


def schedule_lines(experiment: Experiment, rows: Rows) -> list[Line]:
    """How T changes, where it does."""
    schedule, temperature = experiment.kd.schedule, experiment.kd.temperature
    if not experiment.has_teachers or schedule.type == "constant":
        return []
    what = schedule.text(temperature)
    if not schedule.reads_losses:
        return [Line("temperature", what)]
    every = experiment.trainer.log_every
    reads = f"reads {LOSS} every {counted(every, 'step')} (trainer.log_every)"
    if schedule.type == "auto":
        num_rows = rows.rows("transfer").stop - rows.rows("train").start
        observed = OBSERVED * _num_steps(experiment.trainer, num_rows)
        step = every * max(schedule.min_intervals, math.ceil(observed / every))
        what += f"; {temperature:g} up to its choice at step {step:,}"
    return [Line("temperature", what, reads)]
