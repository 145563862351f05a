"""Progress of training in other processes: tails of their metric files, and bars on stderr."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

from distill.metrics import measured_by
from distill.report.names import shown
from distill.report.terminal import width


class Progress:
    """Named bars: ``update(label, done, total, {"loss": …})``.

    On a terminal the bars are live; elsewhere each label gets a plain line at intervals. A label
    that is done leaves one plain line, so that what follows is printed below it. Everything goes to
    stderr, so that stdout stays machine-readable.
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
        """What is None stays as it was; the first call adds the bar, the one in which ``done``
        reaches ``total`` ends it."""
        line = self._lines.setdefault(label, _Line(label))
        was_finished = line.is_finished
        is_due = line.update(done, total, metrics or {}, self.every_s)
        if self._bars is None:
            if is_due:
                self.say(line.text())
            return
        if line.is_finished:
            if not was_finished:
                self._remove(label)
                self.say(line.text())
            return
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=None, metrics="")
        self._bars.update(
            self._tasks[label],
            completed=line.done,
            total=line.total,
            metrics=format_metrics(line.metrics, self._room()),
        )

    def say(self, message: str) -> None:
        """A line above the bars."""
        if self._bars is None:
            print(message, file=self.stream, flush=True)
        else:
            self._bars.console.print(message, markup=False, highlight=False)

    def _remove(self, label: str) -> None:
        if self._bars is not None and label in self._tasks:
            self._bars.remove_task(self._tasks.pop(label))

    def _room(self) -> int:
        """Columns that a bar leaves to its metrics."""
        assert self._bars is not None
        from rich.cells import cell_len

        labels = max(map(cell_len, self._tasks))
        counts = max(len(f"{line.done:g}/{line.total or 0:g}") for line in self._lines.values())
        return self._bars.console.width - labels - counts - BESIDE_METRICS


BESIDE_METRICS = 6 + 12 + 5
"""Of a bar's columns: the shortest bar, the time, and a blank between two of them."""


class _Line:
    """One label: how far it is, its last metrics, and when its last line was printed."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.done = 0.0
        self.total: float | None = None
        self.metrics: dict[str, float] = {}
        self.started = time.monotonic()
        self.started_at: float | None = None  # steps already done then, on resuming
        self.first: tuple[float, float] | None = None
        """When the first further steps were done, and how many: workers start before."""
        self.printed = float("-inf")
        self.is_finished = False

    def update(
        self,
        done: float | None,
        total: float | None,
        metrics: Mapping[str, float],
        every_s: float,
    ) -> bool:
        """Whether a line is due: at first, every ``every_s``, and at the end."""
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        self.metrics |= metrics
        if self.started_at is None and done is not None:
            self.started_at = done
        is_finished = self.total is not None and self.done >= self.total
        now = time.monotonic()
        if self.first is None and self.done > (self.started_at or 0):
            self.first = now, self.done
        is_due = is_finished if is_finished != self.is_finished else now - self.printed >= every_s
        if self.is_finished and is_finished:
            is_due = False
        self.is_finished = is_finished
        if is_due:
            self.printed = now
        return is_due

    def text(self) -> str:
        now = time.monotonic()
        parts = [f"{self.label} {self.done:g}"]
        if self.total:
            parts = [f"{self.label} {self.done:g}/{self.total:g} ({self.done / self.total:.0%})"]
        metrics = format_metrics(_evaluation(self.metrics) if self.is_finished else self.metrics)
        parts += filter(None, [metrics, duration(now - self.started)])
        since, before = self.first or (now, self.done)
        gained = self.done - before
        if self.total and gained > 0 and not self.is_finished:
            parts.append(f"{duration((now - since) * (self.total - self.done) / gained)} left")
        return " · ".join(parts)


def _evaluation(metrics: dict[str, float]) -> dict[str, float]:
    """Those of the evaluation where there was one: the loss is of the steps before it."""
    return {k: v for k, v in metrics.items() if k.startswith("eval.")} or metrics


def format_metrics(metrics: Mapping[str, float], room: int | None = None) -> str:
    """``loss 0.312  validation accuracy 81.2 %, F1 80.9 %``: as much of it as ``room`` has columns
    for, the first metric of the evaluation first."""
    loss = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    measures = measured_by(metrics)
    names = [name for name in measures.validation if name in metrics]
    found = [f"{measures.head(name)} {shown(name, metrics[name])}" for name in names]
    evaluation, first = ([f"validation {', '.join(x)}"] if x else [] for x in (found, found[:1]))
    for parts in (loss + evaluation, loss + first, first, loss):
        text = "  ".join(parts)
        if parts and (room is None or len(text) <= room):
            return text
    return ""


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bars(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.progress import Task as RichTask
    from rich.table import Column
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            total = "?" if task.total is None else f"{task.total:g}"
            return Text(f"{task.completed:g}/{total}")

    class Time(ProgressColumn):
        """The time left, as soon as it can be estimated; until then the time since the start."""

        max_refresh = 0.5

        def render(self, task: RichTask) -> Text:
            left = task.time_remaining
            if left is None or not task.completed:
                return Text(duration(task.elapsed or 0))
            return Text(f"{duration(left)} left")

    def whole() -> Column:
        return Column(no_wrap=True)

    return RichProgress(
        TextColumn("{task.description}", markup=False, table_column=whole()),
        BarColumn(bar_width=24),  # the one column that may shrink
        Count(table_column=whole()),
        TextColumn("{task.fields[metrics]}", markup=False, table_column=whole()),
        Time(table_column=whole()),
        console=Console(file=stream, width=width()),
        # stdout has results and is not ours to wrap; libraries keep what they find there.
        redirect_stdout=False,
    )
