"""One fit: a model, its rows, an engine, perhaps teachers, through THE loop.

Experts, the router, baselines and the distilled student are all a :class:`Job`. :func:`fit` runs
in whatever process it is called: this one, a Ray task, or a rank of a worker group.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from safetensors.torch import load_file

from distill.aggregation import OracleDomain
from distill.config.moe import StudentAwareRouter
from distill.data.batches import Batches
from distill.data.blocks import Blocks
from distill.errors import Interrupted, TeacherAway, TrainingError
from distill.export.folder import ModelCard, export, export_adapter
from distill.models.greedy import end_ids
from distill.models.tokenizer import load_tokenizer
from distill.records import Cursor
from distill.sampling import Generated, StudentText
from distill.teachers.setup import TeacherSetup
from distill.teachers.stream import TeacherStream
from distill.teachers.waiting import note_away
from distill.training.checkpoints import FolderStore, check_version
from distill.training.engines import make_engine
from distill.training.gate_training import GateTraining
from distill.training.job import Job
from distill.training.loop import (
    Engine,
    NoTeachers,
    Report,
    TargetSource,
    TrainingIntervals,
    train,
)
from distill.training.sampled_targets import GenerationSettings, SampledTargets
from distill.training.schedule import Schedule
from distill.training.trainable import Trainable


def fit(
    job: Job, rank: int = 0, world_size: int = 1, report: Report = lambda cursor: None
) -> Cursor:
    """Train ``job`` to its end, or from where its folder stands; rank 0 leaves ``done.json``.

    Every rank calls ``report`` after each evaluation. Raises Interrupted (checkpoint written)
    once ``job.stop_file`` exists, TeacherAway (the same, on some rank; Interrupted on the others)
    where a teacher stays away.
    """
    torch.set_num_threads(job.threads.first)
    torch.manual_seed(job.seed + rank)
    np.random.seed((job.seed + rank) % 2**32)
    batches, validation = open_batches(job, rank, world_size)
    module = build_module(job)
    job.task.check_module(job, module)
    engine = make_engine(
        module, job.optimizer, job.trainer, batches.num_micro_batches, job.recovery_s
    )
    source = _opened(job, engine, rank)
    store = FolderStore(
        Path(job.folder),
        world_size,
        job.trainer.keep_checkpoints,
        before_save=source.flush,
        beside=source if isinstance(source, SampledTargets) else None,
        stop=Path(job.stop_file) if job.stop_file else None,
        version=_version(job),
    )
    stop_requested = torch.tensor([float(store.should_stop())], device=engine.device)
    if engine.reduce(stop_requested).item():  # all ranks or none
        source.close()
        raise Interrupted(f"{job.name} was not started")

    try:
        cursor = train(
            engine,
            batches,
            source,
            Schedule(job.total_steps, job.optimizer, job.kd),
            store,
            lambda engine: job.task.validate(engine, validation, job),
            job.selection,
            TrainingIntervals(
                job.trainer.log_every,
                job.trainer.eval_every or batches.steps_per_epoch,
                job.trainer.checkpoint_every,
            ),
            log=store.log if rank == 0 else lambda step, metrics: None,
            should_stop=store.should_stop if rank == 0 else lambda: False,
            report=report,
            before_step=job.threads.use_at,
            announce=partial(note_away, Path(job.folder)),
        )
    finally:
        source.close()
    if rank == 0:
        _write_done(Path(job.folder), cursor)
    return cursor


def open_batches(job: Job, rank: int, world_size: int) -> tuple[Batches, Batches]:
    """The rank's share of the training rows, shuffled, and of the validation rows."""
    inputs = job.data.open()
    training = Batches(
        inputs,
        job.train_rows,
        job.trainer.batch_size,
        job.seed,
        rank=rank,
        world_size=world_size,
        micro_batch_size=job.trainer.micro_batch_size,
        labels=job.train_labels,
    )
    batch_size, micro_batch_size = job.task.validation_batch(job)
    validation = Batches(
        inputs,
        job.validation_rows,
        min(batch_size, len(job.validation_rows)),
        job.seed,
        rank=rank,
        world_size=world_size,
        micro_batch_size=micro_batch_size,
        shuffle=False,
        labels=job.validation_labels,
    )
    return training, validation


def _opened(job: Job, engine: Engine, rank: int) -> TargetSource:
    """The source of targets, on all ranks or none: a teacher may stay away while it is opened."""
    if job.teacher_setup is None:
        return NoTeachers()
    source: TargetSource | None = None
    away: TeacherAway | None = None
    try:
        source = open_source(job, job.teacher_setup, engine, f"rank{rank}")
    except TeacherAway as error:
        away = error
    if engine.agree(int(away is not None)):
        if source is not None:
            source.close()
        raise away or Interrupted(f"{job.name}: a teacher of another rank stayed away")
    assert source is not None
    return source


def open_source(job: Job, teacher_setup: TeacherSetup, engine: Engine, writer: str) -> TargetSource:
    """The loop's source of targets; the module is given the teachers' output layers."""
    sampling = job.sampling
    if not isinstance(sampling, Generated):
        stream = teacher_setup.open(
            job.data,
            writer,
            boundary=engine.barrier,
            num_ranks=engine.world_size,
            seed=job.seed,
        )
        _take_heads(engine, stream)
        return stream
    assert job.kd is not None
    blocks: Blocks = job.data.open()
    staleness = sampling.staleness if isinstance(sampling, StudentText) else 0
    stream = teacher_setup.open(
        job.data,
        writer,
        boundary=engine.barrier,
        steps_ahead=staleness,
        num_ranks=engine.world_size,
        seed=job.seed,
    )
    if job.kd.alpha > 0:
        _take_heads(engine, stream)
    module: Any = engine.module
    schedule = Schedule(job.total_steps, job.optimizer, job.kd)
    # Gates are trained on the student's text alone, which no schedule that reads losses is for.
    assert not (schedule.reads_losses and isinstance(sampling, StudentText))
    settings = GenerationSettings(
        sampling,
        _generators(sampling, teacher_setup, blocks),
        module.num_tokens,
        job.data.max_length,
        end_ids(module.student, load_tokenizer(job.data.tokenizer), blocks.turn_ends),
        blocks.pad_id,
        job.seed,
        job.total_steps,
        lambda step: schedule.at(step).temperature,
        f"{writer}-{uuid4().hex}",
        queries_teachers=job.kd.alpha > 0,
    )
    gates = [
        GateTraining(t.name, t.moe, teacher_setup.client, stream, engine.reduce, engine.device)
        for t in teacher_setup.teachers
        if isinstance(t.moe, StudentAwareRouter)
    ]
    return SampledTargets(settings, teacher_setup.client, stream, engine, gates)


def _generators(
    sampling: Generated, teacher_setup: TeacherSetup, blocks: Blocks
) -> Callable[[np.ndarray], list[str]]:
    """Of row ids: the teacher that verifies the student's drafts, or generates."""
    names = [t.name for t in teacher_setup.teachers]
    named = getattr(sampling, "teacher", None)
    if named is None and isinstance(teacher_setup.aggregation, OracleDomain):
        return lambda rows_B: [
            names[domain_teacher] for domain_teacher in blocks.domain_teachers_of(rows_B, names)
        ]
    return lambda rows_B: [named or names[0]] * len(rows_B)


def _take_heads(engine: Engine, stream: TeacherStream) -> None:
    if heads := stream.heads():
        module: Any = engine.module
        module.take_heads(heads, engine.device)


def build_module(job: Job) -> Trainable:
    """The trainable module, with bit-identical weights on every rank and for every engine."""
    model = job.model.in_folder(Path(job.folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        return job.task.module(job, model.build(job.seed))


def _version(job: Job) -> int:
    return 1 if job.aggregation is None else job.aggregation.version


def _write_done(folder: Path, cursor: Cursor) -> None:
    finished = {"step": cursor.step, "best_step": cursor.best_step, "best": cursor.best_value}
    partial = folder / "done.partial"
    partial.write_text(json.dumps(finished))
    os.replace(partial, folder / "done.json")


def is_done(job: Job) -> bool:
    return (Path(job.folder) / "done.json").exists()


def is_saved(job: Job) -> bool:
    """Whether :func:`fit_and_save` has nothing to do."""
    return is_done(job) and job.model_folder.exists()


def load_best(job: Job) -> Any:
    """The module of :func:`build_module` with the weights of its best evaluation, in evaluation
    mode, on the CPU. CheckpointError for weights of another version of the aggregation."""
    best = Path(job.folder) / "best.safetensors"
    check_version(best, _version(job))
    module = build_module(job)
    module.load_state_dict(load_file(best))
    return module.eval()


def fit_and_save(job: Job) -> None:
    """A whole fit in one process, from nothing to ``job.model_folder``; does what is missing."""
    if not is_done(job):
        try:
            fit(job)
        except TrainingError as error:
            if not job.may_fail:
                raise
            (Path(job.folder) / "failed.txt").write_text(str(error), "utf-8")
            return
    if not job.model_folder.exists():
        model = load_best(job).student
        if job.is_adapter:
            export_adapter(model, job.model_folder)
            return
        card = ModelCard(name=job.name)
        export(model, job.data.tokenizer, job.model_folder, card, job.data.reading, job.data.chat)
