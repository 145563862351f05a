"""What every command does alike: read the configuration, print, end with an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer


def load_experiment(
    config: Path, overrides: list[str] | None, address: str | None = None, output_suffix: str = ""
) -> Any:
    from distill.config import load

    return load(config, [*(overrides or []), *_joining(address)], output_suffix)


def _joining(address: str | None) -> list[str]:
    """The override that ``--address`` stands for."""
    return [] if address is None else [f"cluster.address={json.dumps(address)}"]


@contextmanager
def errors(as_json: bool) -> Iterator[None]:
    """Ours become one message and their exit code; others keep their traceback."""
    from distill.errors import DistillError

    try:
        yield
    except (DistillError, OSError) as error:
        from distill.tracking.values import masked

        message = masked(str(error))
        print(f"error: {message}", file=sys.stderr)
        if as_json:
            print_json({"error": message, "kind": type(error).__name__})
        raise typer.Exit(getattr(error, "exit_code", 1)) from None
    except KeyboardInterrupt:
        print("aborted", file=sys.stderr)
        raise typer.Exit(130) from None


def show(table: Any) -> None:
    from distill.report.terminal import console

    console().print(table)


def near(path: Path) -> Path:
    """Relative to the working folder where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def say(line: str) -> None:
    print(line)


def say_mlflow(command: str) -> None:
    """The lines of :func:`distill.tracking.open_command`, below each other."""
    say(f"MLflow    {command}".replace("\n", "\n          "))


def print_json(value: Any) -> None:
    print(json.dumps(value))
