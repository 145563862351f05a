"""What ``python -m distill.samples.NAME`` does, whatever the sample."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path

from distill.errors import DistillError


def parser(name: str, about: str | None) -> ArgumentParser:
    """With ``--out``, by default data/NAME."""
    made = ArgumentParser(
        description=about,
        prog=f"python -m distill.samples.{name}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, default=Path("data") / name.replace("_", "-"))
    return made


def run(build: Callable[[], str], *ready: Path | str) -> int:
    """Make the sample, then print what ``build`` tells of it and what is ``ready``; the exit code.

    What goes wrong is one line on stderr.
    """
    try:
        print(build())
    except DistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if ready:
        verb = "is" if len(ready) == 1 else "are"
        print(f"\n{' and '.join(map(str, ready))} {verb} ready")
    return 0
