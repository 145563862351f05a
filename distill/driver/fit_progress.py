"""The progress of fits in other processes: bars, messages, and the metrics for MLflow."""

from __future__ import annotations

import time
from pathlib import Path

from distill.config.temperature import ChoiceReader
from distill.driver.context import Work
from distill.report.progress import format_metrics
from distill.teachers.output_quality import knows_nothing, knows_nothing_line
from distill.teachers.waiting import Outage, note_away, outage
from distill.tracking import Tracker
from distill.training.checkpoints import resumed_step, rewind_log
from distill.training.fit import is_done
from distill.training.fitted import best_evaluation
from distill.training.job import Job
from distill.training.log import Tail


class Waiting:
    """Whether a fit waits for a teacher that is away, as lines for the terminal."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._folder = Path(job.folder)
        self._current: Outage | None = None
        if self._folder.exists():
            note_away(self._folder, None)  # left by a run that has ended

    def poll(self) -> str | None:
        """A line when it begins to wait, and when it continues."""
        before, self._current = self._current, outage(self._folder)
        if self._current is None:
            return None if before is None else f"{self._job.name}: all teachers respond; continuing"
        if before is not None or self._job.teacher_setup is None:
            return None
        stream = self._job.teacher_setup.stream
        since = self._current.noticed - stream.deadline_s
        step = resumed_step(self._folder)
        return (
            f"{self._job.name}: no replica of a teacher has been up since {_clock(since)} "
            f"({self._current.reason}); checkpoint of step {step:,} written; waiting until "
            f"{_clock(since + stream.recovery_s)} (stream.recovery_s {stream.recovery_s:g})"
        )


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


class FitWatch:
    """Follows the metrics that fits write, into progress bars and (the student's) into MLflow."""

    def __init__(self, d: Work, jobs: list[Job], tracker: Tracker | None = None) -> None:
        self._progress = d.progress
        self._tracker = tracker
        self._tails = {job.name: Tail(Path(job.folder) / "metrics.jsonl") for job in jobs}
        self._choices = {
            job.name: ChoiceReader(job.total_steps)
            for job in jobs
            if job.kd is not None and job.kd.schedule.type == "auto" and not is_done(job)
        }
        self._totals = {job.name: job.total_steps for job in jobs if not is_done(job)}
        self._waits = [Waiting(job) for job in jobs if job.teacher_setup is not None]
        # Of teachers that are queried about the data set's rows; warned of once.
        self._num_tokens = {
            teacher.name: teacher.width
            for job in jobs
            if job.teacher_setup is not None and not job.sampling.generates
            for teacher in job.teacher_setup.teachers
            if teacher.positions == "tokens"
        }
        for job in jobs:
            if is_done(job):
                d.progress.say(f"{job.name} is trained: {format_metrics(best_evaluation(job))}")
                continue
            if (note := job.replaced_aggregation) is not None:
                d.progress.say(note)
            total, step = job.total_steps, resumed_step(Path(job.folder))
            rewind_log(Path(job.folder), step)  # what is not to be done again
            if step:
                d.progress.say(f"{job.name}: resuming at step {step:,} of {total:,}")
            d.progress.update(job.name, step if step < total else None, total)

    def poll(self) -> None:
        for name, tail in self._tails.items():
            lines = tail.read()
            if self._tracker is not None and lines:
                self._tracker.lines(lines)
            for line in lines:
                if name in self._totals:
                    self._show(name, line["step"], line["metrics"])
                self._warn(line["metrics"])
                if name in self._choices and (choice := self._choices[name].read(line)):
                    self._progress.say(f"{name}: {choice.text}")
                    if self._tracker is not None:
                        self._tracker.tags({"distill.schedule": choice.type})

        for waiting in self._waits:
            if (line := waiting.poll()) is not None:
                self._progress.say(line)

    def _show(self, name: str, step: int, metrics: dict[str, float]) -> None:
        # At the last step the loss is logged first: the bar ends with the evaluation.
        is_before_the_end = step >= self._totals[name] and not any(
            key.startswith("eval.") for key in metrics
        )
        self._progress.update(name, None if is_before_the_end else step, metrics=metrics)

    def _warn(self, metrics: dict[str, float]) -> None:
        for name, num_tokens in list(self._num_tokens.items()):
            perplexity = metrics.get(f"teacher.{name}.perplexity", 0.0)
            if knows_nothing(perplexity, num_tokens):
                self._progress.say(knows_nothing_line(name, perplexity, num_tokens))
                del self._num_tokens[name]

    def end(self, name: str) -> None:
        self.poll()
        if name in self._totals:
            self._progress.update(name, self._totals[name])
