"""What the functions of :mod:`distill` return: one line at a prompt, tables in a notebook and of
``print``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.api import html
from distill.evaluation.rows import Row
from distill.metrics import LATENCY, SIZE, measured_by, on_test
from distill.report.names import label, shown, shown_value
from distill.report.terminal import as_text
from distill.search.trials import Trial
from distill.wording import MISSING, percent, three_digits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.export.onnx import Measured

NUM_SHOWN = 10
"""Rows of predictions in a notebook."""


class _WithStudent:
    """A result that has a student's folder."""

    def _student_folder(self) -> Path:
        raise NotImplementedError

    @cached_property
    def student(self) -> PreTrainedModel:
        """The exported student on the CPU, in evaluation mode; loaded at the first access."""
        from distill.config.tasks import task_named
        from distill.export.kinds import kind_of
        from distill.export.locate import locate

        folder = locate(self._student_folder()).folder
        return task_named(kind_of(folder).task).load(folder)

    @cached_property
    def tokenizer(self) -> Any:
        """The student's tokenizer; None for a student of features."""
        from distill.models.load import load_tokenizer, read_config

        folder = self._student_folder()
        if read_config(folder).model_type == "distill_features":
            return None
        return load_tokenizer(folder)

    def predict(self, data: Any, **options: Any) -> PredictResult:
        """:func:`distill.predict` of this student."""
        from distill.api import predict

        return predict(self._student_folder(), data, **options)


@dataclass(frozen=True)
class TrainPaths:
    """What a run leaves on disk."""

    run: Path
    """The run's folder, which ``evaluate``, ``predict`` and ``export`` take."""
    student: Path
    """The exported student: a Hugging Face folder."""
    report: Path
    """Table and plots."""


@dataclass(frozen=True, eq=False, repr=False)
class TrainResult(_WithStudent):
    """A trained, tested and exported student; also of :func:`distill.train` on a finished run."""

    table: tuple[Row, ...]
    """Teachers, their ensemble, baselines and the student on the test split."""
    metrics: Mapping[str, float]
    """Metrics of the student by their stable names: ``test.accuracy``, ``student.size_mb``, …"""
    paths: TrainPaths
    histories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Of the student and the baselines: ``{"step": …, "metrics": {…}}`` of each log line."""
    mlflow: str = ""
    """The command, or the address, that opens MLflow."""

    def _student_folder(self) -> Path:
        return self.paths.student

    def to_pandas(self) -> Any:
        """The table as a DataFrame, unrounded; missing values are NaN."""
        return _rows_to_pandas(self.table)

    def __repr__(self) -> str:
        return f"TrainResult({quality(self.metrics)}, {self.paths.run})"

    def __str__(self) -> str:
        from distill.report.table import render

        paths = {"student": self.paths.student, "report": self.paths.report}
        named = "\n".join(f"{name:<9} {path}" for name, path in paths.items())
        table = render(self.table, "models on the test split")
        return as_text(lambda console: console.print(table)) + f"\n{named}"

    def _repr_html_(self) -> str:
        report = self.paths.report
        names = ("trade_off.png", "learning_curves.png")
        named = {
            "run": self.paths.run,
            "student": self.paths.student,
            "report": report,
        }
        return html.block(
            "Models on the test split",
            html.comparison(self.table),
            html.plots([report / name for name in names]),
            html.paths(named),
            html.command("MLflow", self.mlflow),
        )


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(_WithStudent):
    """A search: its frontier, and the student to use."""

    trials: tuple[Trial, ...]
    frontier: tuple[Trial, ...]
    """The trials on the frontier, smallest first."""
    champion: Trial | None
    """The best under ``search.champion.max_mb``; None if none is small enough."""
    table: tuple[Row, ...]
    """Teachers, their ensemble and baselines on the test split."""
    metrics: Mapping[str, float]
    report: Path
    mlflow: str = ""

    def _student_folder(self) -> Path:
        if self.champion is None or not self.champion.student:
            from distill.errors import RunFolderError

            raise RunFolderError(
                "no student of the frontier is small enough (search.champion.max_mb): use one "
                "from .frontier, or raise the limit"
            )
        return Path(self.champion.student)

    def to_pandas(self) -> Any:
        """The frontier as a DataFrame: a row for each student."""
        return _trials_to_pandas(self.frontier)

    def __repr__(self) -> str:
        best = "none" if self.champion is None else self.champion.name
        return (
            f"SweepResult({len(self.frontier)} of {len(self.trials)} trials on the frontier, "
            f"champion {best})"
        )

    def _repr_html_(self) -> str:
        named = {"report": self.report}
        if self.champion is not None and self.champion.student:
            named = {"champion": Path(self.champion.student)} | named
        return html.block(
            f"Frontier: {len(self.frontier)} of {len(self.trials)} trials",
            _trial_table(self.frontier, self.champion),
            html.comparison(self.table) if self.table else None,
            html.plots([self.report / "frontier.png"]),
            html.paths(named),
            html.command("MLflow", self.mlflow),
        )


@dataclass(frozen=True, eq=False, repr=False)
class FrontierResult(_WithStudent):
    """The frontier of an MLflow experiment under limits."""

    experiment: str
    frontier: tuple[Trial, ...]
    best: Trial
    path: Path | None = None
    """The copy of the best student."""

    def _student_folder(self) -> Path:
        return self.path or Path(self.best.student)

    def to_pandas(self) -> Any:
        """A row for each student."""
        return _trials_to_pandas(self.frontier)

    def __repr__(self) -> str:
        return (
            f"FrontierResult({len(self.frontier)} students of {self.experiment}, {self.best.name})"
        )

    def _repr_html_(self) -> str:
        return html.block(
            f"{self.experiment}: frontier",
            _trial_table(self.frontier, self.best),
            html.paths({"best": self._student_folder()}),
        )


@dataclass(frozen=True, eq=False, repr=False)
class PredictResult:
    """The columns of the data, followed by the student's predictions."""

    table: Any
    """A pyarrow table."""
    columns: tuple[str, ...]
    """The new ones."""
    notes: tuple[str, ...] = ()
    """Counted decisions, such as truncated rows."""
    path: Path | None = None
    """The file that was written."""

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def predictions(self) -> list[str]:
        """Labels, or generated texts, in the order of the rows."""
        return self.table.column(self.columns[0]).to_pylist()

    def to_pandas(self) -> Any:
        return self.table.to_pandas()

    def __repr__(self) -> str:
        return f"PredictResult({len(self):,} rows, {', '.join(self.columns)})"

    def _repr_html_(self) -> str:
        from distill.report.markup import tag

        heads = self.table.column_names
        first = self.table.slice(0, NUM_SHOWN).to_pylist()
        rows = [[_cell(row[name]) for name in heads] for row in first]
        left = [i for i, name in enumerate(heads) if any(isinstance(r[name], str) for r in first)]
        more = len(self) - len(rows)
        notes = [f"… and {more:,} more rows"] if more > 0 else []
        return html.block(
            f"Predictions for {len(self):,} rows",
            html.table(heads, rows, left=left),
            *(tag("div", note) for note in (*notes, *self.notes)),
            html.paths({"file": self.path}),
        )


@dataclass(frozen=True, eq=False, repr=False)
class ReportResult:
    """The files of an experiment's report."""

    page: Path
    files: tuple[Path, ...]

    def __repr__(self) -> str:
        return f"ReportResult({self.page})"

    def _repr_html_(self) -> str:
        pictures = [path for path in self.files if path.suffix == ".png"]
        files = {path.name: path for path in self.files}
        return html.block("Report", html.plots(pictures), html.paths(files))


@dataclass(frozen=True, eq=False, repr=False)
class ExportResult:
    """A student in another folder."""

    path: Path
    models: tuple[Measured, ...] = ()
    """ONNX: the float model in torch, and each file."""

    def __repr__(self) -> str:
        return f"ExportResult({self.path})"

    def _repr_html_(self) -> str:
        heads = ["model", "accuracy", "agreement", "MB", "CPU ms"]
        rows = [
            (
                row.file,
                percent(row.accuracy),
                percent(row.agreement),
                three_digits(row.size_mb),
                three_digits(row.latency_ms),
            )
            for row in self.models
        ]
        table = html.table(heads, rows) if rows else None
        return html.block("Exported student", table, html.paths({"folder": self.path}))


def quality(metrics: Mapping[str, float | None]) -> str:
    """``test accuracy 87.5 %, 0.42 MB``, as far as it is known."""
    measures = measured_by(metrics)
    heads = {n: measures.heads.get(n) or f"test {measures.head(n)}" for n in measures.tested}
    parts = [
        f"{head} {shown(n, metrics[n])}" for n, head in heads.items() if metrics.get(n) is not None
    ]
    if metrics.get(SIZE) is not None:
        parts.append(f"{three_digits(metrics[SIZE])} MB")
    return ", ".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _trial_table(trials: Sequence[Trial], best: Trial | None) -> Any:
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    there = {name for trial in trials for name in trial.metrics}
    measures = measured_by(there)
    qualities = (*measures.validation, *map(on_test, measures.validation))
    names = [name for name in measures.summary if name in qualities and name in there]
    names += [SIZE, LATENCY]
    rows = [
        [
            trial.name,
            *(shown_value(trial.values.get(key)) for key in keys),
            *(shown(name, trial.metrics.get(name)) for name in names),
        ]
        for trial in trials
    ]
    marked = next((i for i, trial in enumerate(trials) if trial is best), None)
    return html.table(["trial", *keys, *map(label, names)], rows, marked)


def _rows_to_pandas(rows: Sequence[Row]) -> Any:
    import pandas  # comes with MLflow

    found = [{"model": row.name, "role": row.role} | dict(row.metrics) for row in rows]
    return pandas.DataFrame(found)


def _trials_to_pandas(trials: Sequence[Trial]) -> Any:
    import pandas

    return pandas.DataFrame(
        [{"trial": t.name, **t.values, **t.metrics, "student": t.student} for t in trials]
    )
