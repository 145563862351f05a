"""The command line. Heavy imports are inside the commands: ``--help`` answers at once.

Exit codes: 0 done, 1 a gate or run failed, 2 invalid input, 130 interrupted or stopped
without a teacher.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from distill.cli.checking import check, preview, schema
from distill.cli.evaluation import evaluate
from distill.cli.exporting import export
from distill.cli.predicting import predict
from distill.cli.reporting import frontier, report
from distill.cli.starting import init, version
from distill.cli.training import experts, sweep, train
from distill.driver.quiet import silence

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    is_version: Annotated[
        bool,
        typer.Option("--version", callback=version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Train one small model, the student, on the outputs of several large ones."""


# In the order of `distill --help`.
for command in (
    train,
    sweep,
    check,
    preview,
    experts,
    evaluate,
    predict,
    export,
    report,
    frontier,
    init,
    schema,
):
    app.command()(command)


def main() -> None:
    """Entry point; keeps messages of libraries that say nothing about the run off the terminal."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # folders only: no hub is ever queried
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of loading and saving weights
    silence()
    app()
