"""Progress of training in other processes: tails of their metric files, and bars on stderr."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from distill.report.names import shown

SHOWN = {
    "loss": "loss",
    "eval.perplexity": "perplexity",
    "eval.accuracy": "accuracy",
    "eval.f1": "F1",
}
"""Metrics worth a place beside a bar, and what they are called there."""


class Tail:
    """The new lines of a growing JSONL file; a half-written last line waits for its end."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.num_broken = 0
        """Whole lines that are not JSON objects: torn by a killed writer."""
        self._offset = 0
        self._partial = b""

    def read(self) -> list[dict[str, Any]]:
        """Records since the last call; none while the file is not there yet."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:  # written anew
                    self._offset, self._partial = 0, b""
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(new)
        *lines, self._partial = (self._partial + new).split(b"\n")
        records = []
        for line in filter(None, lines):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                records.append(record)
            else:
                self.num_broken += 1
        return records


class Progress:
    """Named bars: ``update(label, done, total, {"loss": …})``.

    On a terminal the bars are live; elsewhere each label gets a plain line now and then. Everything
    goes to stderr, so that stdout stays machine-readable.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 15.0) -> None:
        self.stream = stream or sys.stderr
        self.every_s = every_s
        # Not rich's own guess: FORCE_COLOR would put escape codes into a log file.
        self._bars = _bars(self.stream) if self.stream.isatty() else None
        self._tasks: dict[str, Any] = {}
        self._lines: dict[str, _Line] = {}

    def __enter__(self) -> "Progress":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(
        self,
        label: str,
        done: float | None = None,
        total: float | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """What is None stays as it was; the first call adds the bar."""
        if self._bars is None:
            line = self._lines.setdefault(label, _Line(label))
            if line.update(done, total, metrics or {}, self.every_s):
                print(line.text(), file=self.stream, flush=True)
            return
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=None, metrics="")
        task = self._tasks[label]
        changed: dict[str, Any] = {"completed": done, "total": total}
        if shown := format_metrics(metrics or {}):
            changed["metrics"] = shown
        self._bars.update(task, **{k: v for k, v in changed.items() if v is not None})

    def say(self, message: str) -> None:
        """A line above the bars."""
        if self._bars is None:
            print(message, file=self.stream, flush=True)
        else:
            self._bars.console.print(message, markup=False, highlight=False)


class _Line:
    """One label without a terminal: when it last spoke, and what it would say."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.done = 0.0
        self.total: float | None = None
        self.metrics: dict[str, float] = {}
        self.started = time.monotonic()
        self.started_at: float | None = None  # steps already done then, on resuming
        self.spoke = float("-inf")
        self.is_finished = False

    def update(
        self,
        done: float | None,
        total: float | None,
        metrics: Mapping[str, float],
        every_s: float,
    ) -> bool:
        """Whether it is time for a line: at first, every ``every_s``, and at the end."""
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        self.metrics |= metrics
        if self.started_at is None and done is not None:
            self.started_at = done
        is_finished = self.total is not None and self.done >= self.total
        now = time.monotonic()
        is_due = is_finished if is_finished != self.is_finished else now - self.spoke >= every_s
        if self.is_finished and is_finished:
            is_due = False
        self.is_finished = is_finished
        if is_due:
            self.spoke = now
        return is_due

    def text(self) -> str:
        elapsed = time.monotonic() - self.started
        parts = [f"{self.label} {self.done:g}"]
        if self.total:
            parts = [f"{self.label} {self.done:g}/{self.total:g} ({self.done / self.total:.0%})"]
        parts += filter(None, [format_metrics(self.metrics), duration(elapsed)])
        gained = self.done - (self.started_at or 0)
        if self.total and gained > 0 and not self.is_finished:
            parts.append(f"{duration(elapsed * (self.total - self.done) / gained)} left")
        return " · ".join(parts)


def format_metrics(metrics: Mapping[str, float]) -> str:
    """``loss 0.312 accuracy 81.2 %`` from the metrics that are shown."""
    parts = []
    for key, name in SHOWN.items():
        if key in metrics:
            value = metrics[key]
            text = f"{value:.3f}" if key == "loss" else shown(key, value)
            parts.append(f"{name} {text}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bars(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )
