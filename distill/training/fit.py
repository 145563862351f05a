"""One fit: a model, its rows, an engine, perhaps teachers, through THE loop.

Experts, the router, baselines and the distilled student are all a :class:`Job`. :func:`fit` runs
in whatever process it is called: this one, a Ray task, or a rank of a worker group.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from safetensors.torch import load_file

from distill.aggregation import Aggregation, OracleDomain, TrainedWeights
from distill.config import KD, Optimizer, Trainer
from distill.config.moe import StudentAwareRouter
from distill.data.batches import Batches
from distill.data.blocks import Blocks
from distill.errors import Interrupted, TeacherAway, TrainingError
from distill.evaluation.quality import Confusion
from distill.export.folder import ModelCard, export, export_adapter
from distill.models.greedy import end_ids
from distill.models.packed import check_keeps_apart
from distill.models.tokenizer import load_tokenizer
from distill.objectives import Objective
from distill.records import UNLABELLED, Cursor
from distill.sampling import DatasetSampling, Sampling, StudentText, Written
from distill.teachers.setup import Guidance
from distill.teachers.stream import TeacherStream
from distill.teachers.waiting import note_away
from distill.training.checkpoints import FolderStore, check_version
from distill.training.engines import make_engine
from distill.training.gate_training import GateTraining
from distill.training.loop import (
    Engine,
    NoTeachers,
    Pace,
    Report,
    Selection,
    TargetSource,
    count_predictions,
    mean_metrics,
    train,
)
from distill.training.module import DistillModule
from distill.training.sampled_targets import SampledTargets, Wanted
from distill.training.schedule import Schedule
from distill.training.specs import BlocksSpec, Data, LanguageExpertSpec, ModelSpec
from distill.training.threads import Threads, threads_of
from distill.training.token_module import TokenModule

Rows = range | np.ndarray
MAX_CE = 700.0
"""exp of more is infinite, and no run should end because its first evaluation is that bad."""


@dataclass(frozen=True)
class Job:
    """Everything one fit needs; pickles into any process."""

    name: str
    folder: str
    seed: int
    model: ModelSpec
    data: Data
    train_rows: Rows
    validation_rows: Rows
    optimizer: Optimizer
    trainer: Trainer
    num_steps: int | None = None
    """null: ``trainer.epochs`` over ``train_rows``."""
    train_labels: np.ndarray | None = field(default=None, repr=False)
    validation_labels: np.ndarray | None = field(default=None, repr=False)
    objective: Objective | None = None
    kd: KD | None = None
    guidance: Guidance | None = None
    sampling: Sampling = field(default_factory=DatasetSampling)
    stop_file: str | None = None
    """Once it exists, the fit writes a checkpoint and raises Interrupted."""

    @property
    def may_fail(self) -> bool:
        """Whether a fit that fails leaves ``failed.txt`` and does not end the run."""
        return False

    @property
    def is_language_model(self) -> bool:
        return not self.model.label_names

    @property
    def has_labels(self) -> bool:
        """Whether a row that it is trained on has a label; language models predict the text."""
        if self.is_language_model:
            return True
        labels = self.train_labels
        if labels is None:
            labels = self.data.open().corpus.labels_of(self.train_rows)
        return bool((labels != UNLABELLED).any())

    @property
    def aggregation(self) -> Aggregation | None:
        """The teachers' own, or what it is replaced by where no row has a label."""
        if self.guidance is None:
            return None
        given: Any = self.guidance.aggregation
        other = given.without_labels()
        return given if other is given or self.has_labels else other

    @property
    def replaced_aggregation(self) -> str | None:
        """A message where :attr:`aggregation` is not the teachers' own."""
        used = self.aggregation
        if self.guidance is None or used is None or used is self.guidance.aggregation:
            return None
        return (
            f"{self.name}: no row that it is trained on has a label, which aggregation.type "
            f"{self.guidance.aggregation.type} needs: aggregation.type {used.type} is used"
        )

    @property
    def selection(self) -> Selection:
        default = "eval.perplexity" if self.is_language_model else "eval.accuracy"
        metric = self.trainer.select_by or default
        return Selection(metric, prefers_low=metric == "eval.perplexity")

    @property
    def recovery_s(self) -> float:
        """The longest time that it waits for a teacher that is away."""
        return self.guidance.stream.recovery_s if self.guidance else 0.0

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train_rows) / self.trainer.batch_size)

    @property
    def total_steps(self) -> int:
        return self.num_steps or math.ceil(self.trainer.epochs * self.steps_per_epoch)

    @property
    def are_outputs_cached(self) -> bool:
        """Whether no teacher is queried after the first epoch: every output is in the cache."""
        guidance = self.guidance
        return (
            guidance is not None
            and guidance.cache.type != "none"
            and not isinstance(self.sampling, Written)
            and not any(spec.moe.changes for spec in guidance.served)
        )

    @property
    def threads(self) -> Threads:
        """Of each rank."""
        return threads_of(self.trainer, self.steps_per_epoch, self.are_outputs_cached)

    @property
    def is_adapter(self) -> bool:
        """Whether what is fitted are updates of a base that others share."""
        return isinstance(self.model, LanguageExpertSpec) and self.model.lora is not None

    @property
    def model_folder(self) -> Path:
        """Where :func:`fit_and_save` leaves the fitted model as a Hugging Face folder, or its
        adapter as peft's."""
        return Path(self.folder) / ("adapter" if self.is_adapter else "model")


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
    num_classes = len(job.model.label_names)
    module = build_module(job)
    if isinstance(job.data, BlocksSpec) and job.data.packing:
        check_keeps_apart(job.name, module.student)
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
    wish = torch.tensor([float(store.is_asked_to_stop())], device=engine.device)
    if engine.reduce(wish).item():  # all ranks or none
        source.close()
        raise Interrupted(f"{job.name} was not started")

    def evaluate(engine: Engine) -> dict[str, float]:
        if job.is_language_model:
            return language_metrics(mean_metrics(engine, validation))
        confusion = Confusion(count_predictions(engine, validation, num_classes))
        return {"eval.accuracy": confusion.accuracy, "eval.f1": confusion.f1}

    try:
        cursor = train(
            engine,
            batches,
            source,
            Schedule(job.total_steps, job.optimizer, job.kd),
            store,
            evaluate,
            job.selection,
            Pace(
                job.trainer.log_every,
                job.trainer.eval_every or batches.steps_per_epoch,
                job.trainer.checkpoint_every,
            ),
            log=store.log if rank == 0 else lambda step, metrics: None,
            is_asked_to_stop=store.is_asked_to_stop if rank == 0 else lambda: False,
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
    at_once = job.trainer.batch_size if job.is_language_model else 256
    validation = Batches(
        inputs,
        job.validation_rows,
        min(at_once, len(job.validation_rows)),
        job.seed,
        rank=rank,
        world_size=world_size,
        # A whole batch of blocks may be more than there is memory for.
        micro_batch_size=job.trainer.micro_batch_size if job.is_language_model else None,
        shuffle=False,
        labels=job.validation_labels,
    )
    return training, validation


def _opened(job: Job, engine: Engine, rank: int) -> TargetSource:
    """The source of targets, on all ranks or none: a teacher may stay away while it is opened."""
    if job.guidance is None:
        return NoTeachers()
    source: TargetSource | None = None
    away: TeacherAway | None = None
    try:
        source = open_source(job, job.guidance, engine, f"rank{rank}")
    except TeacherAway as error:
        away = error
    if engine.agree(int(away is not None)):
        if source is not None:
            source.close()
        raise away or Interrupted(f"{job.name}: a teacher of another rank stayed away")
    assert source is not None
    return source


def open_source(job: Job, guidance: Guidance, engine: Engine, writer: str) -> TargetSource:
    """The loop's source of targets; a language model's module is given its teachers' heads."""
    sampling = job.sampling
    if not isinstance(sampling, Written):
        stream = guidance.open(
            job.data,
            writer,
            boundary=engine.barrier,
            num_ranks=engine.world_size,
            seed=job.seed,
        )
        _take_heads(engine, stream)
        return stream
    assert isinstance(job.data, BlocksSpec) and job.kd is not None
    blocks = job.data.open()
    staleness = sampling.staleness if isinstance(sampling, StudentText) else 0
    stream = guidance.open(
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
    wanted = Wanted(
        sampling,
        _speakers(sampling, guidance, blocks),
        module.num_tokens,
        job.data.max_length,
        end_ids(module.student, load_tokenizer(job.data.tokenizer), blocks.turn_ends),
        blocks.pad_id,
        job.seed,
        job.total_steps,
        lambda step: schedule.at(step).temperature,
        f"{writer}-{uuid4().hex}",
        asks_teachers=job.kd.alpha > 0,
    )
    gates = [
        GateTraining(t.name, t.moe, guidance.client, stream, engine.reduce, engine.device)
        for t in guidance.teachers
        if isinstance(t.moe, StudentAwareRouter)
    ]
    return SampledTargets(wanted, guidance.client, stream, engine, gates)


def _speakers(
    sampling: Written, guidance: Guidance, blocks: Blocks
) -> Callable[[np.ndarray], list[str]]:
    """Of row ids: the teacher that verifies the student's drafts, or generates."""
    names = [t.name for t in guidance.teachers]
    named = getattr(sampling, "teacher", None)
    if named is None and isinstance(guidance.aggregation, OracleDomain):
        return lambda rows_B: [names[home] for home in blocks.homes_of(rows_B, names)]
    return lambda rows_B: [named or names[0]] * len(rows_B)


def _take_heads(engine: Engine, stream: TeacherStream) -> None:
    if isinstance(engine.module, TokenModule):
        engine.module.take_heads(stream.heads(), engine.device)


def language_metrics(means: dict[str, float]) -> dict[str, float]:
    """Of a language model's validation: exp of the mean cross-entropy, and the top-1 hits."""
    return {
        "eval.perplexity": math.exp(min(means["ce.loss"], MAX_CE)),
        "eval.accuracy": means["train.accuracy"],
    }


def build_module(job: Job) -> DistillModule | TokenModule:
    """The trainable module, with bit-identical weights on every rank and for every engine."""
    guidance = job.guidance
    shared = guidance.shared if guidance else None
    model = job.model.in_folder(Path(job.folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        if job.is_language_model:
            assert isinstance(job.data, BlocksSpec)
            return TokenModule(
                model.build(job.seed),
                shared.width if shared else job.data.num_ids,
                job.objective,
                job.aggregation,
                {t.name: t.serving.wire for t in guidance.teachers} if guidance else {},
                {t.name: t.width for t in guidance.teachers} if guidance else {},
                job.trainer.loss_chunk_mb,
                {t.name: t.serving.moe.num_passes for t in guidance.teachers} if guidance else {},
                _homes(job),
                shared.left_out if shared else (),
                "tokens" if job.kd is None else job.kd.normalise,
            )
        return DistillModule(
            model.build(job.seed),
            job.objective,
            job.aggregation,
            [t.name for t in guidance.teachers] if guidance else (),
            len(job.model.label_names),
            _homes(job),
        )


def _homes(job: Job) -> list[int]:
    """Of each domain, the teacher that is named like it, or -1; [] without trained weights."""
    guidance = job.guidance
    if guidance is None or not isinstance(job.aggregation, TrainedWeights):
        return []
    names = [t.name for t in guidance.teachers]
    rows: Any = job.data.open()
    domains = rows.domain_names if job.is_language_model else rows.corpus.domain_names
    return [names.index(d) if d in names else -1 for d in domains]


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
