"""``distill evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.options import AsJson, Uri
from distill.cli.output import errors, near, print_json, say, say_mlflow, show

if TYPE_CHECKING:
    from distill.evaluation.evaluated import Evaluated, EvaluationRequest
    from distill.evaluation.settings import Evaluation

Student = Annotated[Path, typer.Argument(help="A run folder, or an exported student.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(help="Evaluation settings, as attack.budget=100.", show_default=False),
]
Data = Annotated[str, typer.Option(help="Parquet, Arrow, JSONL or CSV with the student's columns.")]
Attacks = Annotated[
    bool,
    typer.Option("--attacks", help="Also run attacks; they take most of the time."),
]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        help="A model folder, a pickle, or a run (its ensemble); of several, the uniform mean "
        "is used. Default: the teachers of the run.",
        show_default=False,
    ),
]
TeacherLabels = Annotated[
    list[str] | None,
    typer.Option(
        help="Maps labels of --teacher to labels of the student, as '{LABEL_0: negative, "
        "LABEL_1: positive}'; once for each --teacher.",
        show_default=False,
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        help="c, cpp, java, python or text: how inputs are transformed and attacked. "
        "Default: text, unless the column is called code.",
        show_default=False,
    ),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="Text column. Default: that of the run; without a run text, else code.",
        show_default=False,
    ),
]
PairColumn = Annotated[
    str | None,
    typer.Option(
        help="Column with the second text of a pair. Default: that of the run.",
        show_default=False,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Label column. Default: that of the run; without a run, label.", show_default=False
    ),
]
DomainColumn = Annotated[
    str | None,
    typer.Option(
        help="Also report accuracy for each value of this column. Default: that of the run; '' "
        "for none.",
        show_default=False,
    ),
]
SplitColumn = Annotated[
    str | None,
    typer.Option(
        help="Column with the split names, to measure one split only. Default: that of the "
        "run, if the file has it; '' measures all rows.",
        show_default=False,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        help="Split to measure, a value of --split-column. Default: the test split of the run, "
        "else test.",
        show_default=False,
    ),
]
MaxLength = Annotated[
    int | None, typer.Option(min=4, help="Maximum tokens of a row. Default: as in training.")
]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        help="A gate, such as 'fidelity.any > 0.2': exit code 1 if it is true.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Output folder. Default: reports/evaluation-NAME-on-DATA.", show_default=False
    ),
]
Experiment = Annotated[
    str | None,
    typer.Option(help="Log the evaluation to this MLflow experiment.", show_default=False),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Allow pickles as --teacher; a pickle can run code. For the teachers of a run, "
        "its configuration decides.",
    ),
]


def evaluate(
    student: Student,
    settings: Settings = None,
    data: Data = "",
    attacks: Attacks = False,
    teacher: Teachers = None,
    teacher_labels: TeacherLabels = None,
    language: Language = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    domain_column: DomainColumn = None,
    split_column: SplitColumn = None,
    split: Split = None,
    max_length: MaxLength = None,
    fail_if: FailIf = None,
    out: Out = None,
    experiment: Experiment = None,
    tracking_uri: Uri = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Measure quality, fidelity to the teacher, robustness, latency and memory of a student.

    Reads labelled rows and writes evaluation.html.
    """
    with errors(as_json):
        measured, labels = _parsed(data, settings, teacher_labels)
        print(f"loading {student}", file=sys.stderr)  # the imports take seconds
        from distill.evaluation.evaluated import EvaluationRequest
        from distill.evaluation.source import EvaluationSource

        columns = (text_column, pair_column, label_column, domain_column, split_column)
        request = EvaluationRequest(
            student,
            EvaluationSource(data, *columns, split, language),
            tuple(teacher or ()),
            labels,
            allow_pickle,
            max_length,
            tuple(fail_if or ()),
            measured,
            attacks,
        )
        evaluated, report = _evaluated(request, out, experiment, tracking_uri)
        for passed in evaluated.passed:
            say(f"gate      {passed}")
        for failure in evaluated.failures:
            print(f"gate: {failure}", file=sys.stderr)
        if as_json:
            print_json({**evaluated.metrics, "gates": evaluated.failures, "report": str(report)})
        if evaluated.failures:
            raise typer.Exit(1)


def _parsed(
    data: str, settings: list[str] | None, teacher_labels: list[str] | None
) -> tuple[Evaluation, tuple[dict[str, str], ...]]:
    """The settings, and the labels of each teacher."""
    from distill.errors import ConfigError
    from distill.evaluation.settings import parse_labels, parse_settings

    if not data:
        raise ConfigError("--data is missing: name a file with labelled rows")
    return parse_settings(settings or []), tuple(map(parse_labels, teacher_labels or ()))


def _evaluated(
    request: EvaluationRequest, out: Path | None, experiment: str | None, tracking_uri: str | None
) -> tuple[Evaluated, Path]:
    """The results, written, logged and printed; and the page with them."""
    from distill.driver.evaluate.standalone import evaluate as evaluate_student
    from distill.report import evaluation
    from distill.report.progress import Progress
    from distill.tracking.evaluated import check_store, record

    folder = out or evaluation.default_folder(request.student, request.source.path)
    evaluation.check_folder(folder)
    if experiment is not None:
        check_store(folder, experiment, tracking_uri)
    with Progress() as progress:
        evaluated = evaluate_student(request, progress)
    paths = evaluation.write(evaluated, folder)
    show(evaluation.render(evaluated))
    say(f"report    {near(paths[0].absolute())}")
    if experiment is not None:
        say_mlflow(record(evaluated, paths, folder, experiment, tracking_uri))
    return evaluated, paths[0]
