"""The command line. Heavy imports are inside the commands: ``--help`` answers at once.

Exit codes: 0 done, 1 a gate or run failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import os

import typer

from distill.cli.checking import check, preview, schema
from distill.cli.evaluation import evaluate
from distill.cli.exporting import export
from distill.cli.reporting import frontier, report
from distill.cli.training import experts, sweep, train
from distill.quiet import silence

app = typer.Typer(
    help="Several large expert teachers in, one small student out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order of `distill --help`.
for command in (
    train,
    sweep,
    check,
    preview,
    experts,
    evaluate,
    export,
    report,
    frontier,
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
