"""What the functions of :mod:`distill` return that train nothing and write no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.api import html
from distill.api.results import quality
from distill.report.terminal import as_text, grid
from distill.wording import count, counted, percent, three_digits

if TYPE_CHECKING:
    from distill.driver.preview import PreviewRow

PLAN_HEADS = ("part", "plan", "size")
MEASURES: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("test.accuracy", "accuracy", percent),
    ("test.f1", "macro F1", percent),
    ("test.precision", "macro precision", percent),
    ("test.recall", "macro recall", percent),
    ("test.ece", "expected calibration error", percent),
    ("test.retention", "accuracy as a share of the teacher's", percent),
    ("fidelity.any", "rows that differ from the teacher beyond a limit", percent),
    ("robustness.transformed.accuracy", "accuracy on transformed rows", percent),
    ("robustness.accuracy", "accuracy under attack", percent),
    ("robustness.asr", "attacks that succeed", percent),
    ("student.params", "parameters", count),
    ("student.size_mb", "size (MB)", three_digits),
    ("student.latency_ms", "latency (ms, one CPU thread)", three_digits),
    ("student.peak_memory_mb", "peak memory (MB)", three_digits),
)
"""Of an evaluation, in a notebook; the others are in ``metrics``."""


@dataclass(frozen=True, eq=False, repr=False)
class CheckResult:
    """A configuration that can be trained, and what will run where."""

    lines: tuple[tuple[str, str, str], ...]
    """Part, plan, size."""
    about: Mapping[str, Any]
    """Labels, domains and rows of the data."""
    output: str

    def __repr__(self) -> str:
        return f"CheckResult(ready to train, output {self.output})"

    def __str__(self) -> str:
        text = (0, 1, 2)
        table = grid(PLAN_HEADS, self.lines, "ready to train", wrap=text)
        return as_text(lambda console: console.print(table))

    def _repr_html_(self) -> str:
        return html.block("Ready to train", html.table(PLAN_HEADS, self.lines, left=(0, 1, 2)))


@dataclass(frozen=True, eq=False, repr=False)
class PreviewResult:
    """The first rows of a split as the student reads them."""

    rows: tuple[PreviewRow, ...]
    num_masked: int = 0
    """Rows between them without target tokens, which are dropped."""

    def __repr__(self) -> str:
        return f"PreviewResult({counted(len(self.rows), 'row')})"

    def __str__(self) -> str:
        from distill.driver.preview import Preview, render

        found = Preview(list(self.rows), self.num_masked)
        return as_text(lambda console: render(found, console))

    def _repr_html_(self) -> str:
        from distill.report.markup import tag

        parts = []
        for one in self.rows:
            facts = [f"{one.split} row {one.row}"]
            facts += [f"label {one.label}"] if one.label is not None else []
            facts += [f"domain {one.domain}"] if one.domain is not None else []
            facts += [f"{len(one.tokens)} tokens", *one.notes]
            pieces = (
                tag("mark" if is_trained else "span", token)
                for token, is_trained in zip(one.tokens, one.learned, strict=True)
            )
            between = "" if "".join(one.tokens) == one.text else " "
            text = html.join(pieces, between)
            parts += [
                tag("div", " · ".join(facts), style="font-weight:bold"),
                tag("pre", text, style="white-space:pre-wrap"),
            ]
        is_marked = any(any(one.learned) for one in self.rows)
        title = "Rows as the student reads them"
        return html.block(f"{title}; tokens trained on are marked" if is_marked else title, *parts)


@dataclass(frozen=True, eq=False, repr=False)
class EvaluateResult:
    """A student's measures on labelled rows, compared with its teacher's."""

    metrics: Mapping[str, float | None]
    """Metrics by their stable names; those of the teacher begin with ``teacher.``."""
    failures: tuple[str, ...]
    """Gates of ``fail_if`` that failed."""
    notes: tuple[str, ...]
    """Warnings first, such as a student below the majority class."""
    paths: tuple[Path, ...]
    """The files of the report."""

    @property
    def passed(self) -> bool:
        """Whether no gate failed."""
        return not self.failures

    def __repr__(self) -> str:
        gates = f", {counted(len(self.failures), 'gate')} failed" if self.failures else ""
        return f"EvaluateResult({quality(self.metrics)}{gates}, {self.paths[0].parent})"

    def _rows(self) -> list[tuple[str, str, str]]:
        return [
            (title, show(self.metrics[name]), show(self.metrics.get(f"teacher.{name}")))
            for name, title, show in MEASURES
            if self.metrics.get(name) is not None
        ]

    def __str__(self) -> str:
        notes = [*(f"gate: {f}" for f in self.failures), *(f"· {note}" for note in self.notes)]
        heads = ["measure", "student", "teacher"]
        table = grid(heads, self._rows(), "evaluation", notes=notes)
        return as_text(lambda console: console.print(table))

    def _repr_html_(self) -> str:
        from distill.report.markup import tag

        gates = (tag("div", f"gate: {failure}") for failure in self.failures)
        notes = (tag("div", f"· {note}") for note in self.notes)
        pictures = [path for path in self.paths if path.suffix == ".png"]
        files = {path.suffix[1:]: path for path in self.paths if path.suffix != ".png"}
        return html.block(
            "Evaluation",
            html.table(["measure", "student", "teacher"], self._rows()),
            *gates,
            *notes,
            html.plots(pictures),
            html.paths(files),
        )
