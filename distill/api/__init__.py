"""distill from Python: the commands as functions, with data and teachers that are objects.

Every function takes what its command takes; results are the typed objects of
:mod:`distill.api.results` and :mod:`distill.api.findings`. Errors are those of
:mod:`distill.errors`: InputError for anything that cannot be used, Interrupted on Ctrl-C,
TeacherAway (an Interrupted) after ``stream.recovery_s`` without a teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from distill.api.configuration import Config, Overrides, experiment_of, override_strings
from distill.api.findings import CheckResult, EvaluateResult, PreviewResult
from distill.api.results import (
    ExportResult,
    FrontierResult,
    PredictResult,
    ReportResult,
    SweepResult,
    TrainPaths,
    TrainResult,
)
from distill.errors import ConfigError

__all__ = [
    "CheckResult",
    "EvaluateResult",
    "ExportResult",
    "FrontierResult",
    "PredictResult",
    "PreviewResult",
    "ReportResult",
    "SweepResult",
    "TrainPaths",
    "TrainResult",
    "check",
    "evaluate",
    "experiment_of",
    "experts",
    "export",
    "frontier",
    "predict",
    "preview",
    "report",
    "sweep",
    "train",
]


def train(
    config: Config,
    teachers: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    overrides: Overrides = None,
) -> TrainResult:
    """``distill train``: trains, tests and exports a student; the same call resumes.

    ``config``: a YAML file, its content, or an Experiment.

    ``teachers``: objects by name, in addition to those in the configuration: ``(model, tokenizer)``
    of transformers, a torch module that reads features and has an attribute ``classes``, an object
    with ``predict_proba`` and ``classes_``, or a path. To set other keys of a teacher, pass a dict:
    ``{"model": (model, tokenizer), "labels": {"LABEL_0": "no"}}``. Objects are pickled into the
    data cache under their fingerprint and served like folders, each by its own Ray actor; a changed
    (refitted) model makes it a different experiment. So does an object whose pickle has other bytes
    in a new process, such as one of a class that a notebook defines: pickle it once, and pass
    ``{"path": "model.pkl", "allow_pickle": True}``. The path of a pickle needs ``allow_pickle``.

    ``data`` replaces ``data.path``: a path, a pandas, pyarrow or ``datasets`` table, a dict of
    columns, or a dict of tables by split (a DatasetDict).

    ``overrides``: ``{"kd.temperature": 4}`` or ``["kd.temperature=4"]``.
    """
    from distill.driver import pipeline
    from distill.report.progress import Progress

    experiment = experiment_of(config, teachers, overrides, data)
    with Progress() as progress:
        outcome = pipeline.train(experiment, progress)
    return TrainResult(
        tuple(outcome.rows),
        outcome.metrics,
        TrainPaths(Path(experiment.output).absolute(), outcome.student, outcome.report),
        outcome.histories,
        outcome.open_command,
    )


def sweep(
    config: Config,
    teachers: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    overrides: Overrides = None,
) -> SweepResult:
    """``distill sweep``: searches over the keys of ``search.space``, with the same teachers.

    Arguments as those of :func:`train`; the same call resumes.
    """
    from distill.driver.sweep.run import sweep as run_sweep
    from distill.report.progress import Progress

    experiment = experiment_of(config, teachers, overrides, data, "-sweep")
    with Progress() as progress:
        outcome = run_sweep(experiment, progress)
    return SweepResult(
        tuple(outcome.trials),
        tuple(outcome.best),
        outcome.champion,
        tuple(outcome.rows),
        outcome.metrics,
        outcome.report,
        outcome.open_command,
    )


def experts(config: Config, *, data: Any = None, overrides: Overrides = None) -> dict[str, Path]:
    """``distill experts``: trains only the experts and the router; returns their folders by
    name."""
    from distill.driver import pipeline
    from distill.report.progress import Progress

    experiment = experiment_of(config, None, overrides, data)
    if experiment.experts is None:
        raise ConfigError("the configuration has no section experts: there is nothing to train")
    with Progress() as progress:
        return pipeline.train_experts(experiment, progress)


def check(
    config: Config,
    teachers: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    overrides: Overrides = None,
) -> CheckResult:
    """``distill check``: validates configuration, data and models, and returns the plan.

    Arguments as those of :func:`train`. Raises InputError that names the key, the value and the
    fix.
    """
    from distill.cluster.connect import check_address
    from distill.driver.checks.check import about
    from distill.driver.checks.check import check as check_experiment
    from distill.tracking import silence_lines

    experiment = experiment_of(config, teachers, overrides, data)
    silence = silence_lines(experiment.tracking)
    check_address(experiment.cluster)
    plan = check_experiment(experiment)
    lines = tuple((line.part, line.what, line.size) for line in [*plan.lines, *silence])
    return CheckResult(lines, about(plan.corpus), experiment.output)


def preview(
    config: Config,
    split: str = "train",
    rows: int = 3,
    teachers: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    overrides: Overrides = None,
) -> PreviewResult:
    """``distill preview``: the first rows of a split as the student reads them."""
    from distill.driver.preview import preview as preview_rows

    found = preview_rows(experiment_of(config, teachers, overrides, data), split, rows)
    return PreviewResult(tuple(found.shown), found.num_masked)


def evaluate(
    student: str | Path | TrainResult | SweepResult,
    data: Any,
    *,
    teachers: Sequence[str | Path] = (),
    teacher_labels: Sequence[Mapping[str, str]] = (),
    overrides: Overrides = None,
    attacks: bool = False,
    fail_if: Sequence[str] = (),
    out: str | Path | None = None,
    allow_pickle: bool = False,
    max_length: int | None = None,
    **columns: str | None,
) -> EvaluateResult:
    """``distill evaluate``: quality, latency, robustness and fidelity on labelled rows.

    ``student``: a run folder, an exported student, or a result of :func:`train`. ``data``: as for
    :func:`train`. ``teachers``: model folders, pickles or a run; the default for a run: its own.
    ``overrides``: settings, such as ``{"attack.budget": 100}``. ``fail_if``: gates; those that
    failed are in ``failures``. ``columns``: ``text_column``, ``pair_column``, ``label_column``,
    ``domain_column``, ``split_column``, ``split`` and ``language``, as the command's options.
    """
    from distill.api.tables import path_of
    from distill.data.corpus import cache_root
    from distill.driver.evaluate import standalone
    from distill.evaluation.evaluated import EvaluationRequest
    from distill.evaluation.settings import parse_settings
    from distill.evaluation.source import EvaluationSource
    from distill.report import evaluation
    from distill.report.progress import Progress

    known = set(EvaluationSource.__dataclass_fields__) - {"path"}
    if unknown := sorted(columns.keys() - known):
        raise ConfigError(f"{unknown[0]} is not an option: use one of {', '.join(sorted(known))}")
    path = path_of(data, cache_root(None))
    if not isinstance(path, str):
        raise ConfigError("data is a list of paths: give one path, or a glob")
    named: dict[str, Any] = {k: v for k, v in columns.items() if v is not None}
    request = EvaluationRequest(
        _folder_of(student),
        EvaluationSource(path, **named),
        tuple(map(str, teachers)),
        tuple(teacher_labels),
        allow_pickle,
        max_length,
        tuple(fail_if),
        parse_settings(override_strings(overrides)),
        attacks=attacks,
    )
    folder = Path(out or evaluation.default_folder(request.student, path))
    evaluation.check_folder(folder)
    with Progress() as progress:
        evaluated = standalone.evaluate(request, progress)
    paths = evaluation.write(evaluated, folder)
    return EvaluateResult(
        evaluated.metrics,
        tuple(evaluated.failures),
        (*evaluated.warnings, *evaluated.assessment.notes),
        tuple(path.absolute() for path in paths),
    )


def predict(
    student: str | Path | TrainResult | SweepResult,
    data: Any,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    text_column: str | None = None,
    pair_column: str | None = None,
    prompt_column: str | None = None,
    messages_column: str | None = None,
    tools_column: str | None = None,
    max_length: int | None = None,
    max_new_tokens: int = 64,
    batch_size: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> PredictResult:
    """``distill predict``: labels and probabilities, or generated text, for every row of ``data``.

    ``student``: a run folder, an exported student, or a result of :func:`train`. ``data``: as for
    :func:`train`, or a list of texts, pairs of texts, chats, or rows of numbers (also a numpy
    array). The default columns are those of the run. ``out``: also write to this file.
    """
    from distill.api.rows import as_file, columns_of, table_of_list
    from distill.export.locate import locate
    from distill.export.prediction import check_out
    from distill.export.prediction import predict as predict_rows
    from distill.export.request import ColumnOptions, PredictionRequest
    from distill.report.progress import Progress

    folder = _folder_of(student)
    if out is not None:
        check_out(out, overwrite)
    named = ColumnOptions(text_column, pair_column, prompt_column, messages_column, tools_column)
    table = table_of_list(data, locate(folder))
    if table is not None:
        named, data = columns_of(table, named), table
    with as_file(data) as path, Progress() as progress:
        request = PredictionRequest(
            folder, path, named, max_length, max_new_tokens, batch_size, device
        )
        predicted = predict_rows(request, progress)
    written = None if out is None else predicted.write(out)
    return PredictResult(predicted.table, tuple(predicted.added), predicted.notes, written)


def report(
    experiment: str,
    out: str | Path | None = None,
    *,
    tracking_uri: str | None = None,
    partial: bool = False,
) -> ReportResult:
    """``distill report``: the page, table and plots of an MLflow experiment."""
    from distill.report.files import write_report
    from distill.tracking.read import read_experiment

    files = write_report(read_experiment(tracking_uri, experiment, partial), out)
    return ReportResult(files[0].absolute(), tuple(path.absolute() for path in files))


def frontier(
    experiment: str,
    *,
    max_mb: float | None = None,
    max_latency_ms: float | None = None,
    out: str | Path | None = None,
    tracking_uri: str | None = None,
    partial: bool = False,
) -> FrontierResult:
    """``distill frontier``: the students on the frontier, and the best one under limits.

    ``out``: copy the best one into this folder.
    """
    from distill.report.chosen import chosen, copy_student
    from distill.tracking.read import read_experiment

    record = read_experiment(tracking_uri, experiment, partial, with_history=False)
    limits = {"student.size_mb": max_mb, "student.latency_ms": max_latency_ms}
    members, top = chosen(record, {k: v for k, v in limits.items() if v is not None})
    if out is not None:
        copy_student(top, out)
    return FrontierResult(experiment, tuple(members), top, None if out is None else Path(out))


def export(
    run: str | Path | TrainResult | SweepResult,
    out: str | Path,
    *,
    format: Literal["hf", "onnx"] = "hf",
    int8: bool = False,
    data: Any = None,
) -> ExportResult:
    """``distill export``: writes the student of a run to another folder, unchanged or as ONNX.

    ``data``: labelled rows for the comparison of the ONNX file, instead of the run's test split.
    """
    from distill.api.rows import as_file
    from distill.export.formats import export_student
    from distill.report.progress import Progress

    with as_file(data) as path, Progress() as progress:
        written = export_student(_folder_of(run), Path(out), format, int8, path, progress)
    return ExportResult(Path(out).absolute(), () if written is None else written.rows)


def _folder_of(student: str | Path | TrainResult | SweepResult) -> Path:
    if isinstance(student, TrainResult):
        return student.paths.run
    if isinstance(student, SweepResult):
        return student._student_folder()
    return Path(student)
