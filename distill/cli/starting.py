"""``distill init`` and ``distill --version``: the first things that a user types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import AsJson
from distill.cli.output import errors, print_json, say


def version(is_needed: bool) -> None:
    """Prints the version and ends."""
    if is_needed:
        from distill import __version__

        say(f"distill {__version__}")
        raise typer.Exit


def init(
    data: Annotated[str, typer.Argument(help="Data file, folder, glob or URI.")],
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Model folders, adapters, pickles."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Default: NAME-OF-THE-DATA.yaml.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented configuration from a data file and model folders."""
    with errors(as_json):
        from distill.init import initial, write

        say(f"reading   {', '.join([data, *(models or [])])}")
        started = initial(data, models or [])
        written = write(started, out)
        for line in started.findings:
            say(line)
        say(f"wrote     {written}")
        commands = [f"distill check {written}", f"distill train {written}"]
        if started.guesses:
            commands.insert(0, f"correct or keep {', '.join(started.guesses)} in {written}")
        if started.open_points:
            commands.insert(0, f"fill in {', '.join(started.open_points)} in {written}")
        for command in commands:
            say(f"next      {command}")
        if as_json:
            print_json({"config": str(written), "open": started.open_points + started.guesses})
