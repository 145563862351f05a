"""The command line. Heavy imports stand inside the commands: ``--help`` answers at once.

Exit codes: 0 done, 1 a gate or run failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Several large expert teachers in, one small student out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[Path, typer.Argument(help="YAML file of the experiment.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Keys to change, as a.b=c.", show_default=False)
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to run on: auto or host:port; sets cluster.address.", show_default=False
    ),
]
ExperimentName = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="Its name in MLflow (tracking.experiment).")
]
Uri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="MLflow store; default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.",
        show_default=False,
    ),
]
Partial = Annotated[bool, typer.Option("--partial", help="Show a sweep that has not ended.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def train(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Train experts, serve them, distil the student, evaluate, record. Resumes what exists."""
    with _errors(as_json):
        from distill import pipeline
        from distill.evaluation.relations import RATES
        from distill.report.progress import Progress
        from distill.report.table import render

        experiment = _load(config, overrides, address)
        with Progress() as progress:
            outcome = pipeline.train(experiment, progress)
        _show(render(outcome.rows, title=str(experiment.tracking.experiment)))
        if "fidelity.any" in outcome.metrics:
            rates = {name: f"{outcome.metrics[f'fidelity.{name}']:.1%}" for name in RATES}
            told = ", ".join(f"{name} {rate}" for name, rate in rates.items())
            _say(f"fidelity  test rows that violate a relation to the teachers: {told}")
        _say(f"student   {_near(outcome.student)}")
        _say(f"report    {_near(outcome.report)}")
        _say(f"MLflow    {outcome.open_command}")
        if as_json:
            _json(
                outcome.metrics | {"student": str(outcome.student), "report": str(outcome.report)}
            )


@app.command()
def sweep(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Search temperature, alpha, size, … with one set of teachers; the frontier. Resumes."""
    with _errors(as_json):
        from distill.report.progress import Progress
        from distill.search.sweep import sweep as run_sweep

        experiment = _load(config, overrides, address, "-sweep")
        with Progress() as progress:
            outcome = run_sweep(experiment, progress)
        _show(outcome.table())
        if outcome.champion is not None:
            _say(f"champion  {_near(Path(outcome.champion.student))}")
        _say(f"report    {_near(outcome.report)}")
        _say(f"MLflow    {outcome.open_command}")
        if as_json:
            _json(outcome.as_json())


@app.command()
def check(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Validate everything that can be known before a process starts, and print the plan."""
    with _errors(as_json):
        from rich.table import Table

        from distill.check import about
        from distill.check import check as check_experiment
        from distill.cluster import check_address
        from distill.tracking import check_reachable

        experiment = _load(config, overrides, address)
        check_reachable(experiment.tracking)
        check_address(experiment.cluster)
        plan = check_experiment(experiment)
        table = Table("part", "plan", "size", title=f"{config}: ready to train")
        for line in plan.lines:
            table.add_row(line.part, line.what, line.size)
        _show(table)
        if as_json:
            lines = [{"part": x.part, "plan": x.what, "size": x.size} for x in plan.lines]
            _json({"ok": True, "plan": lines, **about(plan.corpus)})


@app.command()
def preview(
    config: Config,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train, transfer, validation or test.")] = "train",
    rows: Annotated[int, typer.Option(help="How many, from the first.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list alone.")] = False,
) -> None:
    """Show rows as the student reads them: tokens, those trained on marked, label, domain."""
    with _errors(as_json):
        from rich.console import Console

        from distill.preview import WIDTH, render
        from distill.preview import preview as preview_rows

        found = preview_rows(_load(config, overrides), split, rows)
        if as_json:
            _json([one.as_json() for one in found.shown])
        else:
            width = None if Console().is_terminal else WIDTH
            render(found, Console(width=width, markup=False, emoji=False))


@app.command()
def experts(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Train the experts and the router alone, as ordinary Hugging Face folders (or adapters)."""
    with _errors(as_json):
        from distill import pipeline
        from distill.errors import ConfigError
        from distill.report.progress import Progress

        experiment = _load(config, overrides, address)
        if experiment.experts is None:
            raise ConfigError(f"{config} has no section experts: there is nothing to train")
        with Progress() as progress:
            folders = pipeline.train_experts(experiment, progress)
        for name, folder in folders.items():
            _say(f"{name:<20} {_near(folder)}")
        if as_json:
            _json({name: str(folder) for name, folder in folders.items()})


@app.command()
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
        str, typer.Option(help="Which, in --split-column, or of files named by splits.")
    ] = "test",
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
    with _errors(as_json):
        from distill.errors import ConfigError
        from distill.evaluation import standalone
        from distill.evaluation.settings import parse_labels, parse_settings
        from distill.report import evaluation
        from distill.report.progress import Progress
        from distill.tracking.evaluated import check_store, record

        if not data:
            raise ConfigError("--data is missing: name a file with labelled rows")
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
        _show(evaluation.render(evaluated))
        _say(f"report    {_near(paths[1].absolute())}")
        if experiment is not None:
            _say(f"MLflow    {record(evaluated, paths, folder, experiment, tracking_uri)}")
        for failure in evaluated.failures:
            print(f"gate: {failure}", file=sys.stderr)
        if as_json:
            _json({**evaluated.metrics, "gates": evaluated.failures, "report": str(paths[1])})
        if evaluated.failures:
            raise typer.Exit(1)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder (the output of train).")],
    out: Annotated[Path, typer.Option(help="Folder to write the student into.")],
    as_json: AsJson = False,
) -> None:
    """Copy a run's student, as exported at its best evaluation, into another folder."""
    with _errors(as_json):
        from distill.student.export import copy_export

        copy_export(run / "student", out)
        _say(f"student   {out}")
        if as_json:
            _json({"student": str(out)})


@app.command()
def report(
    experiment: ExperimentName,
    out: Annotated[
        Path | None, typer.Option(help="Folder; default: reports/EXPERIMENT.", show_default=False)
    ] = None,
    tracking_uri: Uri = None,
    partial: Partial = False,
    as_json: AsJson = False,
) -> None:
    """Write an experiment's report: one HTML page without network, frontier.csv, plots."""
    with _errors(as_json):
        from distill.report.files import write_report
        from distill.tracking.read import read_experiment

        record = read_experiment(tracking_uri, experiment, partial)
        written = write_report(record, out)
        for path in written:
            _say(f"{path.name:<14}{_near(path.absolute())}")
        if as_json:
            _json({"report": str(written[0]), "files": [str(path) for path in written]})


@app.command()
def frontier(
    experiment: ExperimentName,
    max_mb: Annotated[
        float | None, typer.Option(help="Largest student.size_mb.", min=0, show_default=False)
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Largest student.latency_ms.", min=0, show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to copy the best student into.", show_default=False)
    ] = None,
    tracking_uri: Uri = None,
    partial: Partial = False,
    as_json: AsJson = False,
) -> None:
    """Print the students that nothing beats, and name (or copy) the best under limits."""
    with _errors(as_json):
        from distill.report.chosen import chosen, copy_student, render_frontier
        from distill.tracking.read import read_experiment

        record = read_experiment(tracking_uri, experiment, partial, with_history=False)
        limits = {"student.size_mb": max_mb, "student.latency_ms": max_latency_ms}
        members, top = chosen(record, {k: v for k, v in limits.items() if v is not None})
        _show(render_frontier(record, members, top))
        _say(f"best      {top.name}: {top.student or 'its folder was not recorded'}")
        if out is not None:
            copy_student(top, out)
            _say(f"student   {out}")
        if as_json:
            trials = [{"trial": t.name, **t.values, "metrics": t.metrics} for t in members]
            student = str(out) if out is not None else top.student
            _json({"best": top.name, "student": student, "frontier": trials})


@app.command()
def schema() -> None:
    """Print the configuration's JSON schema, for editors."""
    from distill.config import Experiment

    print(json.dumps(Experiment.model_json_schema(), indent=2))


def main() -> None:
    """Entry point; keeps libraries' chatter off the terminal."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # folders only: no hub is ever asked
    app()


def _load(
    config: Path, overrides: list[str] | None, address: str | None = None, output_suffix: str = ""
) -> Any:
    from distill.config import load

    return load(config, [*(overrides or []), *_joining(address)], output_suffix)


def _joining(address: str | None) -> list[str]:
    """The override that ``--address`` stands for."""
    return [] if address is None else [f"cluster.address={json.dumps(address)}"]


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Ours become one message and their exit code; others keep their traceback."""
    from distill.errors import DistillError

    try:
        yield
    except (DistillError, OSError) as error:
        from distill.tracking.values import masked

        message = masked(str(error))
        print(f"error: {message}", file=sys.stderr)
        if as_json:
            _json({"error": message, "kind": type(error).__name__})
        raise typer.Exit(getattr(error, "exit_code", 1)) from None
    except KeyboardInterrupt:
        print("aborted", file=sys.stderr)
        raise typer.Exit(130) from None


def _show(table: Any) -> None:
    from rich.console import Console

    # A pipe has no width; cut tables help nobody. Names may look like markup or like an emoji.
    width = None if Console().is_terminal else 140
    Console(width=width, markup=False, emoji=False).print(table)


def _near(path: Path) -> Path:
    """Relative to the working folder where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _say(line: str) -> None:
    print(line)


def _json(value: Any) -> None:
    print(json.dumps(value))


if __name__ == "__main__":
    main()
