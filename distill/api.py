"""distill from Python: what the command line does, with teachers that are objects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.config import Experiment, load, parse
from distill.errors import ConfigError, ModelError
from distill.outcome import Outcome

NUM_CPUS = 0.1
"""Set aside for a teacher given as an object: one that needs more is named in the configuration."""


def train(
    config: str | Path | dict[str, Any] | Experiment,
    teachers: Mapping[str, Any] | None = None,
) -> Outcome:
    """``distill train``: trains, tests and exports a student; the same call resumes.

    ``config``: a YAML file, its content, or an Experiment. ``teachers``: fitted objects with
    ``predict_proba`` and ``classes_`` by name, beside those that the configuration names. They
    are served like folders, each by a Ray actor that unpickles its own copy; the pickle is kept in
    the data cache under its fingerprint, and another one (a refitted model) makes another
    experiment. Raises InputError for anything that cannot be used, Interrupted on Ctrl-C.
    """
    from distill import pipeline
    from distill.report.progress import Progress

    with Progress() as progress:
        return pipeline.train(experiment_of(config, teachers or {}), progress)


def experiment_of(
    config: str | Path | dict[str, Any] | Experiment, teachers: Mapping[str, Any]
) -> Experiment:
    """The experiment with its teachers in files, which the command line could run as well."""
    if isinstance(config, str | Path):
        experiment = load(config)
    else:
        experiment = parse(config) if isinstance(config, dict) else config
    if not teachers:
        return experiment
    if experiment.experts is not None:
        raise ConfigError(
            "teachers are given and the configuration has a section experts: give one of the two"
        )
    raw = experiment.model_dump(mode="json")
    folder = _pickles(experiment)
    raw["teachers"] += [
        {
            "name": name,
            "path": str(_keep(name, model, folder)),
            "allow_pickle": True,
            "num_cpus": NUM_CPUS,
        }
        for name, model in teachers.items()
    ]
    return parse(raw, source="distill.train")


def _pickles(experiment: Experiment) -> Path:
    from distill.data.corpus import cache_root

    return cache_root(experiment.data.cache_dir).absolute() / "teachers"


def _keep(name: str, model: Any, folder: Path) -> Path:
    from ray import cloudpickle  # also takes classes of notebooks and of __main__

    from distill.teachers.probability import label_names
    from distill.teachers.segments import write_whole

    label_names(model, f"the teacher {name!r}")  # refused before anything is written
    try:
        content = cloudpickle.dumps(model)
    except Exception as error:  # pickling fails in every way there is
        told = f"{type(error).__name__}: {error}"
        raise ModelError(
            f"the teacher {name!r} cannot be pickled ({told}), and teachers run in processes of "
            "their own: give an object that pickles"
        ) from None
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:32]}.pkl"
    return path if path.exists() else write_whole(path, content)
