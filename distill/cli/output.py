"""What all commands share: reading the configuration, printing, ending with an error."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from distill.config import Experiment


def load_experiment(
    config: Path, overrides: list[str] | None, address: str | None = None, output_suffix: str = ""
) -> Experiment:
    """The settings, valid and with every file and folder that they name: without importing torch,
    so that a bad configuration is refused at once. Commands call this before they import more."""
    from distill.config import load
    from distill.driver.checks.paths import check_paths

    experiment = load(config, [*(overrides or []), *_joining(address)], output_suffix)
    check_paths(experiment)
    return experiment


def _joining(address: str | None) -> list[str]:
    """``--address`` as an override."""
    return [] if address is None else [f"cluster.address={json.dumps(address)}"]


def command_line(
    command: str, config: Path, overrides: list[str] | None, address: str | None
) -> str:
    """What resumes a run, for a shell."""
    options = [] if address is None else ["--address", address]
    return shlex.join(["distill", command, str(config), *(overrides or []), *options])


@contextmanager
def errors(as_json: bool, resume: str | None = None) -> Iterator[None]:
    """Errors of distill become one message and their exit code; others keep their traceback.

    ``resume``: the command that continues after Ctrl-C, which is no error.
    """
    from distill.errors import DistillError, Interrupted

    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        message = str(error) or "stopped before anything started"
        print(message, file=sys.stderr)
        if resume is not None:
            print(f"resume with: {resume}", file=sys.stderr)
        if as_json:
            command = {} if resume is None else {"resume": resume}
            print_json({"stopped": message, "kind": "Interrupted", **command})
        raise typer.Exit(130) from None
    except (DistillError, OSError) as error:
        from distill.config.values import masked

        message = masked(str(error))
        print(f"error: {message}", file=sys.stderr)
        if as_json:
            print_json({"error": message, "kind": type(error).__name__})
        raise typer.Exit(getattr(error, "exit_code", 1)) from None


def show(table: RenderableType) -> None:
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
