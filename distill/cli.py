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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def train(config: Config, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train experts, serve them, distil the student, evaluate, record. Resumes what exists."""
    with _errors(as_json):
        from distill import pipeline
        from distill.report.progress import Progress
        from distill.report.table import render

        experiment = _load(config, overrides)
        with Progress() as progress:
            outcome = pipeline.train(experiment, progress)
        _show(render(outcome.rows, title=str(experiment.tracking.experiment)))
        _say(f"student   {_near(outcome.student)}")
        _say(f"report    {_near(outcome.report)}")
        _say(f"MLflow    {outcome.open_command}")
        if as_json:
            _json(
                outcome.metrics | {"student": str(outcome.student), "report": str(outcome.report)}
            )


@app.command()
def check(config: Config, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Validate everything that can be known before a process starts, and print the plan."""
    with _errors(as_json):
        from rich.table import Table

        from distill.check import check as check_experiment
        from distill.cluster import check_address
        from distill.tracking import check_reachable

        experiment = _load(config, overrides)
        check_reachable(experiment.tracking)
        check_address(experiment.cluster)
        plan = check_experiment(experiment)
        table = Table("part", "plan", "size", title=f"{config}: ready to train")
        for line in plan.lines:
            table.add_row(line.part, line.what, line.size)
        _show(table)
        if as_json:
            lines = [{"part": x.part, "plan": x.what, "size": x.size} for x in plan.lines]
            _json({"ok": True, "plan": lines})


@app.command()
def experts(config: Config, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train the experts and the router alone, as ordinary Hugging Face folders."""
    with _errors(as_json):
        from distill import pipeline
        from distill.errors import ConfigError
        from distill.report.progress import Progress

        experiment = _load(config, overrides)
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
    student: Annotated[Path, typer.Argument(help="Folder of an exported student.")],
    data: Annotated[str, typer.Option(help="Parquet, Arrow, JSONL or CSV with the student's columns.")],
    text_column: Annotated[
        str | None, typer.Option(help="Default: text, else code; features are known.", show_default=False)
    ] = None,
    label_column: Annotated[str, typer.Option()] = "label",
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Tokens kept; default: the student's positions.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test an exported student on any labelled file: accuracy, F1, size, latency."""
    with _errors(as_json):
        from rich.table import Table

        from distill.evaluation.standalone import evaluate_folder

        metrics = evaluate_folder(student, data, text_column, label_column, max_length)
        table = Table("metric", "value", title=f"{student} on {data}")
        for name, value in metrics.items():
            table.add_row(name, f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}")
        _show(table)
        if as_json:
            _json(metrics)


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
def schema() -> None:
    """Print the configuration's JSON schema, for editors."""
    from distill.config import Experiment

    print(json.dumps(Experiment.model_json_schema(), indent=2))


def main() -> None:
    """Entry point; keeps libraries' chatter off the terminal."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # folders only: no hub is ever asked
    app()


def _load(config: Path, overrides: list[str] | None) -> Any:
    from distill.config import load

    return load(config, overrides)


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

    console = Console()
    # A pipe has no width; cut tables help nobody.
    (console if console.is_terminal else Console(width=140)).print(table)


def _near(path: Path) -> Path:
    """Relative to the working folder where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _say(line: str) -> None:
    print(line)


def _json(value: dict[str, Any]) -> None:
    print(json.dumps(value))


if __name__ == "__main__":
    main()
