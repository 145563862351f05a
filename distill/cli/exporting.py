"""``distill export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import AsJson
from distill.cli.output import errors, print_json, say


def export(
    run: Annotated[Path, typer.Argument(help="Run folder (the output of train).")],
    out: Annotated[Path, typer.Option(help="Folder to write the student into.")],
    as_json: AsJson = False,
) -> None:
    """Copy a run's student, as exported at its best evaluation, into another folder."""
    with errors(as_json):
        from distill.student.export import copy_export

        copy_export(run / "student", out)
        say(f"student   {out}")
        if as_json:
            print_json({"student": str(out)})
