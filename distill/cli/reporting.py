"""``distill report`` and ``frontier``: an experiment's students, read from MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import AsJson, ExperimentName, Partial, Uri
from distill.cli.output import errors, near, print_json, say, show


def report(
    experiment: ExperimentName,
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder. Default: reports/EXPERIMENT.", show_default=False),
    ] = None,
    tracking_uri: Uri = None,
    partial: Partial = False,
    as_json: AsJson = False,
) -> None:
    """Write the report of an experiment: a self-contained HTML page, frontier.csv, plots."""
    with errors(as_json):
        from distill.report.files import write_report
        from distill.tracking.read import read_experiment

        record = read_experiment(tracking_uri, experiment, partial)
        written = write_report(record, out)
        for path in written:
            say(f"{path.name:<14}{near(path.absolute())}")
        if as_json:
            print_json({"report": str(written[0]), "files": [str(path) for path in written]})


def frontier(
    experiment: ExperimentName,
    max_mb: Annotated[
        float | None, typer.Option(help="Maximum student.size_mb.", min=0, show_default=False)
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Maximum student.latency_ms.", min=0, show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Copy the best student into this folder.", show_default=False),
    ] = None,
    tracking_uri: Uri = None,
    partial: Partial = False,
    as_json: AsJson = False,
) -> None:
    """Print the frontier, the students for which no other is both better and smaller, or copy the
    best one."""
    with errors(as_json):
        from distill.report.chosen import chosen, copy_student, render_frontier
        from distill.tracking.read import read_experiment

        record = read_experiment(tracking_uri, experiment, partial, with_history=False)
        limits = {"student.size_mb": max_mb, "student.latency_ms": max_latency_ms}
        members, top = chosen(record, {k: v for k, v in limits.items() if v is not None})
        show(render_frontier(record, members, top))
        say(f"best      {top.name}: {top.student or 'its folder was not recorded'}")
        if out is not None:
            copy_student(top, out)
            say(f"student   {out}")
        if as_json:
            trials = [{"trial": t.name, **t.values, "metrics": t.metrics} for t in members]
            student = str(out) if out is not None else top.student
            print_json({"best": top.name, "student": student, "frontier": trials})
