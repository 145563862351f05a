"""Where an exported student is: a run's folder, a trial's, or the student's own folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from distill.config import Experiment, parse
from distill.config.yaml_text import read_yaml
from distill.errors import ModelError, RunFolderError


@dataclass(frozen=True)
class Located:
    """A student, and the run that it is of."""

    folder: Path
    """The model: config.json, safetensors and tokenizer."""
    run: Path | None = None
    """None: the folder lies in no run."""

    @property
    def experiment(self) -> Experiment | None:
        """The run's configuration."""
        return None if self.run is None else experiment_of(self.run)


def experiment_of(run: str | Path) -> Experiment:
    """The configuration of a run, as of its last start. Raises RunFolderError without one."""
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise RunFolderError(
            f"{run} has no config.yaml: copy the whole run folder, or give its student/"
        )
    return parse(read_yaml(path.read_text(encoding="utf-8")), str(path))


def locate(path: str | Path) -> Located:
    """The student at ``path``: the output of train, a sweep's trial, the folder of a link, or an
    exported folder.

    Raises RunFolderError for a run without an exported student, ModelError for a folder that holds
    neither.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelError(f"there is no folder {path}: give a run, or an exported student")
    run = _run_of(path)
    if (path / "config.json").is_file():
        return Located(path, run)
    if (path / "student" / "config.json").is_file():
        return Located(path / "student", run)
    if run is not None and (path / "model" / "config.json").is_file():
        return Located(path / "model", run)  # of a link of a chain, a baseline, an expert
    if run is None:
        raise ModelError(
            f"{path} is neither a run nor an exported student: it has no experiment.json and no "
            "config.json"
        )
    raise RunFolderError(_unfinished(path, run))


def _run_of(path: Path) -> Path | None:
    """The run that the folder is, or lies in: RUN/student, RUN/trials/NAME/student."""
    nearby = [path.absolute(), *path.absolute().parents[:3]]
    return next((folder for folder in nearby if (folder / "experiment.json").is_file()), None)


def _unfinished(path: Path, run: Path) -> str:
    identity = json.loads((run / "experiment.json").read_text(encoding="utf-8"))
    if identity.get("command") != "sweep":
        return f"{path} has no exported student: finish the run (the same command resumes it)"
    exported = sorted((run / "trials").glob("*/student/config.json"))
    if not exported:
        return f"{path} is a sweep without an exported student: finish it"
    return (
        f"{path} is a sweep, which has a student for each trial of its frontier: give one, such as "
        f"{exported[0].parent}"
    )
