"""``distill export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.options import AsJson
from distill.cli.output import errors, near, print_json, say, show

if TYPE_CHECKING:
    from rich.console import Group

    from distill.export.onnx import Exported


def export(
    run: Annotated[
        Path, typer.Argument(help="A run folder, a trial of a sweep, or an exported student.")
    ],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    kind: Annotated[
        str,
        typer.Option(
            "--format", help="hf: a Hugging Face folder. onnx: an ONNX file (classifiers only)."
        ),
    ] = "hf",
    int8: Annotated[
        bool, typer.Option("--int8", help="onnx: also write a file with 8-bit weights.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="onnx: labelled rows to compare the files on. Default: the test split of the run.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the student of a run to another folder, as safetensors or ONNX."""
    with errors(as_json):
        from distill.export.formats import export_student
        from distill.report.progress import Progress

        with Progress() as progress:
            written = export_student(run, out, kind, int8, data, progress)
        if written is not None:
            show(render(written))
        say(f"student   {near(out.absolute())}")
        if as_json:
            print_json({"student": str(out), "models": _models(written)})


def render(exported: Exported) -> Group:
    """Quality, size and latency of each file compared with the float model's."""
    from distill.report.terminal import grid
    from distill.wording import percent, three_digits

    heads = ("model", "accuracy", "agreement", "MB", "CPU ms")
    rows = [
        (
            row.file,
            percent(row.accuracy),
            percent(row.agreement),
            three_digits(row.size_mb),
            three_digits(row.latency_ms),
        )
        for row in exported.rows
    ]
    notes = (
        f"agreement: test rows ({exported.num_rows:,}) with the label of the float model in torch",
        f"CPU ms: median of {exported.sequence} on one CPU thread",
    )
    return grid(heads, rows, f"{exported.folder}: the student as ONNX", notes=notes)


def _models(exported: Exported | None) -> list[dict[str, object]]:
    from dataclasses import asdict

    return [] if exported is None else [asdict(row) for row in exported.rows]
