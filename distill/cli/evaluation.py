"""``distill evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import AsJson, Uri
from distill.cli.output import errors, near, print_json, say, say_mlflow, show


def evaluate(
    student: Annotated[Path, typer.Argument(help="A run folder, or an exported student.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Evaluation settings, as attack.budget=100.", show_default=False),
    ] = None,
    data: Annotated[
        str, typer.Option(help="Parquet, Arrow, JSONL or CSV with the student's columns.")
    ] = "",
    attacks: Annotated[
        bool,
        typer.Option("--attacks", help="Also run attacks; they take most of the time."),
    ] = False,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="A model folder, a pickle, or a run (its ensemble); of several, the uniform mean "
            "is used. Default: the teachers of the run.",
            show_default=False,
        ),
    ] = None,
    teacher_labels: Annotated[
        list[str] | None,
        typer.Option(
            help="Maps labels of --teacher to labels of the student, as '{LABEL_0: negative, "
            "LABEL_1: positive}'; once for each --teacher.",
            show_default=False,
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="c, cpp, java, python or text: how inputs are transformed and attacked. "
            "Default: text, unless the column is called code.",
            show_default=False,
        ),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(
            help="Text column. Default: that of the run; without a run text, else code.",
            show_default=False,
        ),
    ] = None,
    pair_column: Annotated[
        str | None,
        typer.Option(
            help="Column with the second text of a pair. Default: that of the run.",
            show_default=False,
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            help="Label column. Default: that of the run; without a run, label.", show_default=False
        ),
    ] = None,
    domain_column: Annotated[
        str | None,
        typer.Option(
            help="Also report accuracy for each value of this column. Default: that of the run; '' "
            "for none.",
            show_default=False,
        ),
    ] = None,
    split_column: Annotated[
        str | None,
        typer.Option(
            help="Column with the split names, to measure one split only. Default: that of the "
            "run, if the file has it; '' measures all rows.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split to measure, a value of --split-column. Default: the test split of the run, "
            "else test.",
            show_default=False,
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Maximum tokens of a row. Default: as in training.")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help="A gate, such as 'fidelity.any > 0.2': exit code 1 if it is true.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder. Default: reports/evaluation-NAME-on-DATA.", show_default=False
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(help="Log the evaluation to this MLflow experiment.", show_default=False),
    ] = None,
    tracking_uri: Uri = None,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Allow pickles as --teacher; a pickle can run code. For the teachers of a run, "
            "its configuration decides.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure quality, fidelity to the teacher, robustness, latency and memory of a student.

    Reads labelled rows and writes evaluation.html.
    """
    with errors(as_json):
        from distill.errors import ConfigError
        from distill.evaluation.settings import parse_labels, parse_settings

        if not data:
            raise ConfigError("--data is missing: name a file with labelled rows")
        measured = parse_settings(settings or [])
        labels = tuple(parse_labels(text) for text in teacher_labels or ())

        print(f"loading {student}", file=sys.stderr)  # the imports take seconds
        from distill.driver.evaluate import standalone
        from distill.report import evaluation
        from distill.report.progress import Progress
        from distill.tracking.evaluated import check_store, record

        source = standalone.Source(
            data,
            text_column,
            pair_column,
            label_column,
            domain_column,
            split_column,
            split,
            language,
        )
        request = standalone.Request(
            student,
            source,
            tuple(teacher or ()),
            labels,
            allow_pickle,
            max_length,
            tuple(fail_if or ()),
            measured,
            attacks,
        )
        folder = out or evaluation.default_folder(student, data)
        evaluation.check_folder(folder)
        if experiment is not None:
            check_store(folder, experiment, tracking_uri)
        with Progress() as progress:
            evaluated = standalone.evaluate(request, progress)
        paths = evaluation.write(evaluated, folder)
        show(evaluation.render(evaluated))
        page = near(paths[0].absolute())
        say(f"report    {page}")
        if experiment is not None:
            say_mlflow(record(evaluated, paths, folder, experiment, tracking_uri))
        for passed in evaluated.passed:
            say(f"gate      {passed}")
        for failure in evaluated.failures:
            print(f"gate: {failure}", file=sys.stderr)
        if as_json:
            print_json({**evaluated.metrics, "gates": evaluated.failures, "report": str(paths[0])})
        if evaluated.failures:
            raise typer.Exit(1)
