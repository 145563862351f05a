"""``distill evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import AsJson, Uri
from distill.cli.output import errors, near, print_json, say, show


def evaluate(
    student: Annotated[Path, typer.Argument(help="An exported student, or a run's folder.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="What to measure, as attack.budget=100.", show_default=False),
    ] = None,
    data: Annotated[
        str, typer.Option(help="Parquet, Arrow, JSONL or CSV with the student's columns.")
    ] = "",
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="A model folder, a pickle, or a run (its mixture); several: their uniform mean. "
            "Default: of a run, its own.",
            show_default=False,
        ),
    ] = None,
    teacher_labels: Annotated[
        list[str] | None,
        typer.Option(
            help="The student's label for labels of --teacher that are called otherwise, as "
            "'{LABEL_0: negative, LABEL_1: positive}'; once for each --teacher.",
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
        typer.Option(help="Default: text, else code; features are known.", show_default=False),
    ] = None,
    pair_column: Annotated[
        str | None, typer.Option(help="Second text of a pair task.", show_default=False)
    ] = None,
    label_column: Annotated[str, typer.Option()] = "label",
    domain_column: Annotated[
        str | None, typer.Option(help="Accuracy for each of its values.", show_default=False)
    ] = None,
    split_column: Annotated[
        str | None, typer.Option(help="Read the rows of one split alone.", show_default=False)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Which, in --split-column; default: test.", show_default=False),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Tokens kept; default: as in training.")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help="A gate, such as 'fidelity.any > 0.2': exit code 1 where it holds.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; default: reports/evaluation-NAME-on-DATA.", show_default=False),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Record it in this MLflow experiment.", show_default=False)
    ] = None,
    tracking_uri: Uri = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load teachers that are pickles: they run code.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Quality, efficiency, robustness and fidelity of a student, beside its teacher."""
    with errors(as_json):
        from distill.errors import ConfigError
        from distill.evaluation import standalone
        from distill.evaluation.settings import parse_labels, parse_settings
        from distill.report import evaluation
        from distill.report.progress import Progress
        from distill.tracking.evaluated import check_store, record

        if not data:
            raise ConfigError("--data is missing: name a file with labelled rows")
        if split is not None and split_column is None:
            raise ConfigError(
                f"--split {split} needs --split-column, the column that says it: name it, or name "
                "the files of that split in --data"
            )
        source = standalone.Source(
            data,
            text_column,
            pair_column,
            label_column,
            domain_column,
            split_column,
            split or "test",
            language,
        )
        request = standalone.Request(
            student,
            source,
            tuple(teacher or ()),
            tuple(parse_labels(text) for text in teacher_labels or ()),
            allow_pickle,
            max_length,
            tuple(fail_if or ()),
            parse_settings(settings or []),
        )
        folder = out or evaluation.default_folder(student, data)
        evaluation.check_folder(folder)
        if experiment is not None:
            check_store(folder, experiment, tracking_uri)
        with Progress() as progress:
            evaluated = standalone.evaluate(request, progress)
        paths = evaluation.write(evaluated, folder)
        show(evaluation.render(evaluated))
        say(f"report    {near(paths[1].absolute())}")
        if experiment is not None:
            say(f"MLflow    {record(evaluated, paths, folder, experiment, tracking_uri)}")
        for failure in evaluated.failures:
            print(f"gate: {failure}", file=sys.stderr)
        if as_json:
            print_json({**evaluated.metrics, "gates": evaluated.failures, "report": str(paths[1])})
        if evaluated.failures:
            raise typer.Exit(1)
