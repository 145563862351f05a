"""Fits of language models in this process, teachers included, without Ray and DeepSpeed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev

import torch

from distill.config import Experiment, Serving
from distill.models.load import load_tokenizer, weights_fingerprint
from distill.models.tokenizer import num_ids
from distill.run_folder import RunFolder
from distill.tasks import jobs
from distill.tasks.jobs import write_tokenizer
from distill.tasks.plan import Plan
from distill.teachers.backends import open_backends
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.job import Job


def teacher_setup(
    experiment: Experiment,
    plan: Plan,
    teachers: Mapping[str, tuple[str, Serving]],
    cache: Path,
    threads: int,
) -> TeacherSetup:
    """Teachers of this process: folder and serving by name."""
    specs = []
    for name, (path, serving) in teachers.items():
        num_tokens = num_ids(load_tokenizer(path))
        wire = serving.wire.resolved(True, serving.dtype)
        serving = serving.model_copy(update={"wire": wire})
        key = TeacherKey(weights_fingerprint(path), plan.rows.fingerprint, "own", wire.name, 0)
        specs.append(ServedTeacher(name, path, serving, num_tokens, key, "language_model"))
    return TeacherSetup(
        LocalTeachers(open_backends(specs, threads)),
        tuple(specs),
        None,
        experiment.aggregation,
        experiment.stream,
        experiment.cache,
        str(cache),
    )


def student_job(
    experiment: Experiment, plan: Plan, folder: Path, seed: int, teachers: TeacherSetup | None
) -> Job:
    """The student's fit by the plain engine, on this process's threads; ``teachers`` None: from the
    data set's text alone."""
    run = RunFolder(folder)
    tokenizer = write_tokenizer(experiment.student, plan.tokenizer, plan.corpus, run.tokenizer)
    job = jobs.student_job(experiment, plan.corpus, tokenizer, run.fit, run.stop)
    threads = {"num_cpus_per_worker": torch.get_num_threads()}
    trainer = job.trainer.model_copy(update={"engine": "torch", **threads})
    job = replace(job, seed=seed, trainer=trainer)
    if teachers is None:
        return job
    return replace(
        job,
        teacher_setup=teachers,
        objective=experiment.objective,
        kd=experiment.kd,
        sampling=experiment.sampling,
    )


def computed_in(dtype: str) -> list[str]:
    """Overrides of a configuration with one teacher: it and the student's products in ``dtype``.
    bfloat16 is 3 to 8 times faster where a CPU multiplies it (AMX), and slower where it does not.
    """
    return [f"trainer.dtype={dtype}", f"teachers.0.dtype={dtype}"]


def spread(values: list[float], places: int = 1, scale: float = 1.0, unit: str = "") -> str:
    """``mean ± standard deviation`` of what is known."""
    shown = f"{mean(values) * scale:.{places}f}"
    if len(values) == 1:
        return f"{shown}{unit}"
    return f"{shown} ± {stdev(values) * scale:.{places}f}{unit}"


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers")}
