"""How many steps a run takes, about how long, and about how much memory: what ``distill check``
prints of it. Nothing is trained for this.

Operations: a forward takes 2 · P floating-point operations a token, training 6 · P (4 · P where
low-rank updates alone are trained, 2 · P for layers below those that are trained), P being the
parameters that multiply: without the embeddings, which are looked up. They are divided by the rate
of a product of matrices of the student's width, measured here for a fifth of a second on one thread
(or on the GPU that trains). Everything else is left out (attention over long texts, normalisation,
writing files), and small models spend more on it than on products. Hence a range: from the
operations alone to SLACK times as long, and what it takes to start Ray, the workers and the
tracker.

Stages: experts, router and baselines are trained in the order that
distill/cluster/estimates.py describes; the duration is that of its simulation on this
machine's CPUs. The critical path is the longest
chain of stages that wait for each other: more CPUs do not make a run shorter than it.

Memory: 16 bytes for each trained parameter (weights, gradients, AdamW's two moments, in float32),
4 or 2 for others, 34 or 17 · 4 bytes of activations for each token, layer and unit of width
(Korthikanti et al. 2022, without attention's own), and PROCESS_MB for each process.
"""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch

from distill.aggregation import Routed
from distill.cluster.estimates import Room, Stage, Training, critical_path, makespan
from distill.config import Experiment, LabelsOnly, Student
from distill.config.chain import link_name
from distill.data.encode import encode
from distill.driver.checks.resources import machine_cpus
from distill.experts.jobs import ROUTER
from distill.models.language import check_language_folder
from distill.models.language_sizes import solve_language
from distill.models.language_student import kept_layers
from distill.models.load import check_folder
from distill.models.sizes import solve, solve_features
from distill.models.tokenizer import load_fast_tokenizer, num_ids
from distill.models.weights import shapes_of_floats, stored_tensors
from distill.records import Line
from distill.sampling import Written
from distill.tasks.classification.inputs import read_info
from distill.tasks.classification.specs import EncoderSpec, StudentSpec
from distill.tasks.language_model.check import check_lora
from distill.tasks.language_model.specs import LanguageExpertSpec, LanguageStudentSpec
from distill.tasks.plan import Plan
from distill.training.job import Job

SLACK = 4.0
"""A run takes up to so many times what its products take."""
SAMPLE = 256
"""Rows whose tokens are counted."""
RATE_S = 0.2
REPEATS = 4
START_S = (10.0, 60.0)
PROCESS_MB = 450
"""Python with torch, transformers and Ray in one process."""
_LAYER = re.compile(r"\.(?:layers?|h|block)\.(\d+)\.")


class Model(NamedTuple):
    """What the estimate knows of a model."""

    num_params: int
    num_trained: int
    num_active: int
    """Without embeddings that are only looked up."""
    layers: int
    hidden: int

    @property
    def per_parameter(self) -> float:
        """See :class:`distill.cluster.estimates.Training`."""
        return 6.0 if self.num_trained == self.num_params else 4.0


@dataclass(frozen=True)
class Estimate:
    """Of ``distill train`` with this plan."""

    num_steps: int
    steps_per_epoch: int
    student: Model
    operations: float
    """Floating-point operations of experts, teachers, student and baselines together."""
    seconds: tuple[float, float] | None
    """From, to; None where it cannot be known here: ``why``."""
    why: str
    memory_mb: float
    """Of all processes at once, on all machines together."""
    rank_mb: float
    critical: tuple[tuple[str, float], ...] = ()
    """Name and seconds of each stage of the critical path, as ``seconds`` without the start."""
    serial_s: float = 0.0
    """Of all stages one after the other."""
    parallel_s: float = 0.0
    """Of all stages on the CPUs of this machine."""
    num_cpus: float = 1.0
    """Of this machine, or of ``cluster.num_cpus``."""

    @property
    def lines(self) -> list[Line]:
        """Rows of the plan's table."""
        epochs = f"{self.steps_per_epoch:,} per epoch"
        took = self.why
        if self.seconds is not None:
            took = f"about {_range(*self.seconds)}"
        gb = f"about {_gb(self.memory_mb)} in total"
        mine = machine_mb()
        here = f"this machine has {_gb(mine)}; " if mine else ""
        num_trained, num_params = self.student.num_trained, self.student.num_params
        share = f"{num_trained / num_params:.2%} of the student's {num_params:,}"
        if num_trained == num_params:
            share = "all of the student's"
        return [
            Line("steps", f"{self.num_steps:,} optimizer steps", epochs),
            Line("trained", f"{num_trained:,} parameters", share),
            Line("duration", took, f"{self.operations:.1e} floating-point operations"),
            *self._path_lines(),
            Line("memory", gb, f"{here}student {_gb(self.rank_mb)} per rank"),
        ]

    def _path_lines(self) -> list[Line]:
        """Nothing where the student is all that is trained."""
        if len(self.critical) < 2 and self.serial_s == self.parallel_s:
            return []
        path = " → ".join(f"{name} {_upto(seconds)}" for name, seconds in self.critical)
        cpus = "1 CPU" if self.num_cpus == 1 else f"{self.num_cpus:g} CPUs"
        together = f"on {cpus} {_upto(self.parallel_s)}"
        return [Line("critical path", path, f"all stages {_upto(self.serial_s)}; {together}")]

    def as_json(self) -> dict[str, object]:
        low, high = self.seconds or (None, None)
        return {
            "num_steps": self.num_steps,
            "steps_per_epoch": self.steps_per_epoch,
            "num_params": self.student.num_params,
            "num_trained_params": self.student.num_trained,
            "floating_point_operations": self.operations,
            "min_seconds": low,
            "max_seconds": high,
            "memory_mb": self.memory_mb,
            "critical_path": [
                {"stage": name, "min_seconds": seconds} for name, seconds in self.critical
            ],
            "min_serial_seconds": self.serial_s if self.critical else None,
            "min_parallel_seconds": self.parallel_s if self.critical else None,
        }


def estimate(plan: Plan, rate: float | None = None) -> Estimate:
    """``rate``: floating-point operations a second of one CPU thread (or one GPU); None: measured
    here, for a fifth of a second."""
    experiment, trainer = plan.experiment, plan.experiment.trainer
    tokens = tokens_of_a_row(plan)
    work = _Work(plan, tokens)
    own, teacher_ops = work.student, work.teachers
    others = [*work.experts.values(), *work.baselines.values(), *work.links.values()]
    operations = own.operations + sum(one.operations for one in others)
    operations += sum(teacher_ops) + sum(work.link_outputs.values())
    student = student_of(plan, experiment.student)
    why = _why_not(experiment)
    rank_mb = _rank_mb(experiment, student, tokens)
    found = Estimate(
        own.num_steps,
        work.steps_per_epoch,
        student,
        operations,
        None,
        why,
        trainer.num_workers * rank_mb + _weights_mb(plan),
        rank_mb,
    )
    if why:
        return found
    micro = trainer.micro_batch_size or math.ceil(trainer.batch_size / trainer.num_workers)
    speed = rate or measured_rate(round(micro * tokens), student.hidden, _device(experiment))
    cores = machine_cpus(experiment.cluster)
    whole = Room(cores, max_stages=experiment.cluster.max_tasks or math.inf)
    planned, num_meanwhile = _stages(plan, work, speed, whole)
    together = makespan(planned, whole, room_left(plan, whole))
    return replace(
        found,
        memory_mb=found.memory_mb + num_meanwhile * rank_mb,
        seconds=(START_S[0] + together, START_S[1] + together * SLACK),
        critical=tuple((stage.name, stage.seconds) for stage in critical_path(planned)),
        serial_s=sum(stage.seconds for stage in planned),
        parallel_s=together,
        num_cpus=cores,
    )


class _Work:
    """Operations of everything that a run computes, by name."""

    def __init__(self, plan: Plan, tokens: float) -> None:
        experiment, trainer = plan.experiment, plan.experiment.trainer
        train, transfer = plan.rows.rows("train"), plan.rows.rows("transfer")
        num_rows = len(train) + (len(transfer) if experiment.has_teachers else 0)
        self.steps_per_epoch = math.ceil(num_rows / trainer.batch_size)
        num_validation = len(plan.rows.rows("validation"))
        num_steps = math.ceil(trainer.epochs * self.steps_per_epoch)
        eval_every = trainer.eval_every or self.steps_per_epoch

        def training(model: Model, batch_size: int, num_steps: int, every: int) -> Training:
            return Training(
                model.num_active,
                tokens,
                batch_size,
                num_steps,
                num_validation,
                every,
                model.per_parameter,
            )

        own = student_of(plan, experiment.student)
        self.student = training(own, trainer.batch_size, num_steps, eval_every)
        self.baselines: dict[str, Training] = {}
        for baseline in experiment.baselines:
            if not isinstance(baseline, LabelsOnly):
                continue
            model = student_of(plan, baseline.student or experiment.student)
            batch_size = baseline.batch_size or trainer.batch_size
            # A language model is trained on the student's rows, a classifier on labelled ones.
            per_epoch = math.ceil((num_rows if plan.blocks else len(train)) / batch_size)
            steps = num_steps if baseline.epochs is None else math.ceil(baseline.epochs * per_epoch)
            every = trainer.eval_every or per_epoch
            self.baselines[baseline.name] = training(model, batch_size, steps, every)
        answered = num_rows + num_validation + len(plan.rows.rows("test"))
        self.teachers = [2.0 * active * tokens * answered for active in teachers_of(plan)]
        # Each is trained as the student is.
        self.links = {
            link_name(i): training(
                student_of(plan, link), trainer.batch_size, num_steps, eval_every
            )
            for i, link in enumerate(plan.links, 1)
        }
        self.link_outputs = {
            n: 2.0 * t.num_active * tokens * answered for n, t in self.links.items()
        }
        self.experts = _experts(plan, tokens, num_validation)


def _experts(plan: Plan, tokens: float, num_validation: int) -> dict[str, Training]:
    """The experts, and the router where the run trains one."""
    experiment, experts = plan.experiment, plan.experiment.experts
    if experts is None:
        return {}
    found: dict[str, Training] = {}
    base = Base.read(plan, experts.base)
    per_parameter = 4.0 if experts.lora else base.per_parameter(experts.train_layers)
    for name, num_rows in _rows_of_experts(plan).items():
        per_epoch = math.ceil(num_rows / experts.batch_size)
        found[name] = Training(
            base.num_active,
            tokens,
            experts.batch_size,
            math.ceil(experts.epochs * per_epoch),
            num_validation // max(1, len(plan.teacher_names)),
            per_epoch,
            per_parameter,
        )
    if _has_router(experiment):
        router = experts.router
        assert router is not None
        per_epoch = math.ceil(len(plan.rows.rows("train")) / router.batch_size)
        base = base.first(router.layers)
        found[ROUTER] = Training(
            base.num_active,
            tokens,
            router.batch_size,
            math.ceil(router.epochs * per_epoch),
            num_validation,
            per_epoch,
            base.per_parameter(router.train_layers),
        )
    return found


class Base(NamedTuple):
    """The model that experts and router start from; all its layers are alike."""

    num_active: int
    layers: int

    @classmethod
    def read(cls, plan: Plan, folder: str) -> Base:
        if plan.blocks is not None:
            layers = check_language_folder(folder).num_layers
        else:
            layers = read_info(folder, False).num_layers
        return cls(_active(plan, folder, False), layers)

    def first(self, layers: int | None) -> Base:
        """Without the others; None: all."""
        kept = self.layers if layers is None else min(layers, self.layers)
        return Base(round(self.num_active * kept / self.layers), kept)

    def per_parameter(self, train_layers: int | None) -> float:
        """Where the top layers alone are trained, gradients of the others are not computed."""
        trained = self.layers if train_layers is None else min(train_layers, self.layers)
        return 2.0 + 4.0 * trained / self.layers


def _has_router(experiment: Experiment) -> bool:
    """Whether the run trains one."""
    experts, aggregation = experiment.experts, experiment.aggregation
    has_one = isinstance(aggregation, Routed) and aggregation.router is not None
    return bool(experts and experts.router and aggregation.needs_router() and not has_one)


def _rows_of_experts(plan: Plan) -> dict[str, int]:
    """Training rows of each; equal shares where the parts are found at the start of the run."""
    train, names = plan.rows.rows("train"), plan.teacher_names
    if set(names) == set(plan.rows.domain_names):
        found = plan.rows.domains_of(train)
        return {n: int((found == k).sum()) for k, n in enumerate(plan.rows.domain_names)}
    return dict.fromkeys(names, math.ceil(len(train) / max(1, len(names))))


def _stages(plan: Plan, work: _Work, speed: float, whole: Room) -> tuple[list[Stage], int]:
    """Of the run: experts, router, baselines, links of a chain and the student, with their
    teachers. And how many of
    the baselines are trained at once while teachers and student run."""
    experiment, trainer = plan.experiment, plan.experiment.trainer
    cores, is_gpu = whole.num_cpus, _device(experiment) == "cuda"

    def seconds(training: Training, num_cpus: float) -> float:
        return training.seconds(speed if is_gpu else speed * min(cores, max(1, int(num_cpus))))

    stages: list[Stage] = []
    if (experts := experiment.experts) is not None:
        needs_losses = experts.router is not None and experts.router.targets == "lowest_loss"
        for name, training in work.experts.items():
            is_last = name == ROUTER and needs_losses
            after = tuple(stage.name for stage in stages) if is_last else ()
            took = seconds(training, experts.num_cpus)
            stages.append(Stage(name, took, after, experts.num_cpus, experts.num_gpus))
    room, meanwhile = room_left(plan, whole), list[Stage]()
    waits_for = [stage.name for stage in stages]
    for name, training in work.baselines.items():
        cpus = trainer.num_cpus_per_worker
        stage = Stage(name, seconds(training, cpus), (), cpus, trainer.num_gpus_per_worker)
        stages.append(stage)
        if not room.holds([stage]):
            waits_for.append(name)
            continue
        stages[-1] = stage = replace(stage, is_background=True)
        if room.holds([*meanwhile, stage]):
            meanwhile.append(stage)
    threads = trainer.num_workers * max(1, int(trainer.num_cpus_per_worker))
    ranks = trainer.num_workers if is_gpu else min(cores, threads)
    teachers = work.teachers
    # One after the other; each is the only teacher of the next one.
    for name, training in [*work.links.items(), ("student", work.student)]:
        alone = training.seconds(speed * ranks)
        together = (training.operations + sum(teachers)) / (speed * max(cores, ranks))
        longest = max([alone, together, *(ops / speed for ops in teachers)])
        stages.append(Stage(name, longest, tuple(waits_for), min(cores, plan.num_cpus)))
        waits_for, teachers = [name], [work.link_outputs.get(name, 0.0)]
    return stages, len(meanwhile)


def room_left(plan: Plan, whole: Room) -> Room:
    """What teachers and student leave of ``whole`` to baselines that are trained meanwhile.

    Nothing on a cluster that is joined: on one of its nodes a baseline could take the CPUs that a
    teacher needs.
    """
    if plan.experiment.cluster.address is not None:
        return Room(0, 0, 0)
    return Room(
        whole.num_cpus - plan.num_cpus,
        whole.num_gpus - plan.num_gpus,
        whole.max_stages - 1,
    )


class JobTimes:
    """Estimated seconds of a run's jobs, by which its tasks are ordered."""

    def __init__(self, plan: Plan, rate: float | None = None) -> None:
        """``rate``: as for :func:`estimate`, of a CPU thread."""
        self._plan = plan
        self._tokens = tokens_of_a_row(plan)
        student = student_of(plan, plan.experiment.student)
        num_rows = round(plan.experiment.trainer.batch_size * self._tokens)
        self._rate = rate or measured_rate(num_rows, student.hidden, "cpu")
        self._base = cache(partial(Base.read, plan))

    @property
    def student(self) -> float:
        """Of the student, its teachers and the links of a chain."""
        work = _Work(self._plan, self._tokens)
        trained = sum(t.seconds(self._rate) for t in (work.student, *work.links.values()))
        return trained + (sum(work.teachers) + sum(work.link_outputs.values())) / self._rate

    def __call__(self, job: Job) -> float:
        trainer = job.trainer
        active, per_parameter = self._model(job)
        training = Training(
            active,
            self._tokens,
            trainer.batch_size,
            job.total_steps,
            len(job.validation_rows),
            trainer.eval_every or job.steps_per_epoch,
            per_parameter,
        )
        return training.seconds(self._rate * max(1, int(trainer.num_cpus_per_worker)))

    def forward(self, job: Job, num_rows: int) -> float:
        """Of the job's model on so many rows."""
        return 2 * self._model(job)[0] * self._tokens * num_rows / self._rate

    def _model(self, job: Job) -> tuple[int, float]:
        """Parameters that multiply, and operations for each."""
        spec = job.model
        if isinstance(spec, StudentSpec | LanguageStudentSpec):
            model = student_of(self._plan, spec.student)
            return model.num_active, model.per_parameter
        assert isinstance(spec, EncoderSpec | LanguageExpertSpec)
        base = self._base(spec.base)
        if isinstance(spec, EncoderSpec):
            base = base.first(spec.layers)
        is_low_rank = isinstance(spec, LanguageExpertSpec) and spec.lora is not None
        return base.num_active, 4.0 if is_low_rank else base.per_parameter(spec.train_layers)


def tokens_of_a_row(plan: Plan) -> float:
    """The mean, of a sample; 1 for rows of features."""
    rows = plan.rows.rows("train")
    sample = rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE]
    if plan.blocks is not None:
        return float(plan.blocks.lengths(sample).mean())
    if plan.features is not None:
        return 1.0
    data = plan.experiment.data
    texts = plan.corpus.texts_of(sample)
    found = encode(load_fast_tokenizer(plan.tokenizer), texts, data.max_length, data.cut)
    return sum(map(len, found.ids)) / len(found.ids)


def student_of(plan: Plan, student: Student) -> Model:
    """Of a student that the checks have accepted."""
    if plan.blocks is not None:
        return _language_student(plan, student)
    num_labels, length = len(plan.corpus.label_names), plan.experiment.data.max_length
    if student.path or student.init_from:
        start = student.init_from
        folder = start.path if start else student.path or ""
        info = check_folder(folder)
        dropped = _beyond(folder, start.layers) if start else 0
        total = info.num_params - dropped
        layers = start.layers if start else info.num_layers
        active = total - info.vocab_size * info.hidden
        return Model(total, total, active, layers, info.hidden)
    if plan.features is not None:
        found = solve_features(student, plan.features, num_labels)
        return Model(
            found.num_params, found.num_params, found.num_params, found.layers, found.hidden
        )
    vocab_size = student.vocab_size or len(load_fast_tokenizer(plan.tokenizer))
    size = solve(student, vocab_size, num_labels, length)
    active = size.num_params - (vocab_size + length) * size.hidden
    return Model(size.num_params, size.num_params, active, size.layers, size.hidden)


def _language_student(plan: Plan, student: Student) -> Model:
    start = student.init_from
    folder = start.path if start else student.path
    if folder is None:
        size = solve_language(student, num_ids(load_fast_tokenizer(plan.tokenizer)))
        return Model(size.num_params, size.num_params, size.num_params, size.layers, size.hidden)
    info = check_language_folder(folder)
    layers = start.layers if start else info.num_layers
    dropped = 0
    if start is not None:
        kept = kept_layers(start.layers, info.num_layers, start.keep)
        dropped = _beyond(folder, len(kept))
    total = info.num_params - dropped
    active = total - (0 if info.is_tied else info.vocab_size * info.hidden)
    trained = total
    if student.lora is not None:
        updated = check_lora("student", folder, student.lora)
        trained = sum(p.numel() for p in updated.parameters() if p.requires_grad)
        trained = round(trained * layers / info.num_layers)
        total += trained
    return Model(total, trained, active, layers, info.hidden)


def operations_of_rank(plan: Plan, job: Job) -> float:
    """Floating-point operations of one forward and backward of a rank, of a student or a link."""
    spec, trainer = job.model, job.trainer
    assert isinstance(spec, StudentSpec | LanguageStudentSpec)
    model = student_of(plan, spec.student)
    rows = trainer.micro_batch_size or trainer.batch_size / trainer.num_workers
    return model.per_parameter * model.num_active * tokens_of_a_row(plan) * rows


def _beyond(folder: str, num_kept: int) -> int:
    """Parameters of a folder's layers beyond the first ``num_kept``; all layers are alike."""
    shapes = shapes_of_floats(stored_tensors(Path(folder), allow_pickle=False))
    numbers = {name: _LAYER.search(name) for name in shapes}
    return sum(
        math.prod(shapes[name])
        for name, found in numbers.items()
        if found is not None and int(found[1]) >= num_kept
    )


def teachers_of(plan: Plan) -> list[int]:
    """Parameters that multiply, of each teacher; 0 of objects with predict_proba."""
    experiment = plan.experiment
    if experiment.experts is not None:
        return [_active(plan, experiment.experts.base, False)] * len(plan.teacher_names)
    return [_active(plan, t.path, t.allow_pickle) for t in experiment.teachers]


def _active(plan: Plan, folder: str, allow_pickle: bool) -> int:
    if plan.blocks is not None:
        language = check_language_folder(folder, allow_pickle)
        looked_up = 0 if language.is_tied else language.vocab_size * language.hidden
        return language.num_params - looked_up
    info = read_info(folder, allow_pickle)
    return info.num_params - info.vocab_size * info.hidden


def _why_not(experiment: Experiment) -> str:
    if isinstance(experiment.sampling, Written):
        return f"not estimated: sampling.type {experiment.sampling.type} generates text"
    if experiment.cluster.address is not None:
        return "not estimated: it runs on a cluster"
    return ""


def _device(experiment: Experiment) -> str:
    return "cuda" if experiment.trainer.num_gpus_per_worker > 0 else "cpu"


def measured_rate(num_rows: int, width: int, device: str) -> float:
    """Floating-point operations a second of [rows, width] · [width, 4 · width], the largest product
    of a transformer's layer: on one thread, or on the GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        left = torch.randn(max(1, min(num_rows, 4096)), width, device=device)
        right = torch.randn(width, 4 * width, device=device)
        torch.matmul(left, right)  # the first one allocates
        best, started = math.inf, time.perf_counter()
        while (before := time.perf_counter()) < started + RATE_S:
            for _ in range(REPEATS):
                torch.matmul(left, right)
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, (time.perf_counter() - before) / REPEATS)  # others use this CPU too
    finally:
        torch.set_num_threads(threads)
    return 2 * left.shape[0] * width * 4 * width / best


def _rank_mb(experiment: Experiment, student: Model, tokens: float) -> float:
    trainer = experiment.trainer
    is_float32 = trainer.dtype == "float32"
    micro = trainer.micro_batch_size or math.ceil(trainer.batch_size / trainer.num_workers)
    frozen = (student.num_params - student.num_trained) * (4 if is_float32 else 2)
    # ZeRO divides AdamW's moments among the ranks, from stage 2 gradients, from 3 weights.
    ranks, stage = trainer.num_workers, trainer.zero_stage if trainer.engine == "deepspeed" else 0
    parts = {1: 8, 2: 4, 3: 4}
    held = 16 - sum(parts[s] * (1 - 1 / ranks) for s in parts if s <= stage)
    layers = 2 if trainer.gradient_checkpointing else student.layers
    activations = micro * tokens * layers * student.hidden * (68 if is_float32 else 34)
    loss = 3e6 * trainer.loss_chunk_mb if experiment.is_language_model else 0.0
    return PROCESS_MB + (student.num_trained * held + frozen + activations + loss) / 1e6


def _weights_mb(plan: Plan) -> float:
    """Of the processes of all teachers."""
    experiment = plan.experiment
    served = [(t.path, t.allow_pickle, t.dtype, t.replicas, 1) for t in experiment.teachers]
    if (experts := experiment.experts) is not None:
        own, num = experts.serving, 1 if experts.lora else len(plan.teacher_names)
        served = [(experts.base, False, own.dtype, own.replicas, num)]
    found = 0.0
    for folder, allow_pickle, dtype, replicas, count in served:
        if plan.blocks is not None:
            num_params = check_language_folder(folder, allow_pickle).num_params
        else:
            num_params = read_info(folder, allow_pickle).num_params
        width = 4 if dtype == "float32" else 2
        found += replicas * count * (PROCESS_MB + num_params * width / 1e6)
    return found


def machine_mb() -> float | None:
    """Memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    except (ValueError, OSError, AttributeError):
        return None


def _range(low: float, high: float) -> str:
    """``2 to 8 min``: two figures at most, for it is no more exact."""
    for unit, seconds in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if high >= 2 * seconds or unit == "s":
            return f"{_short(low / seconds)} to {_short(high / seconds)} {unit}"
    raise AssertionError


def _upto(seconds: float) -> str:
    """The range of an estimate, from its operations alone to SLACK times as long."""
    return _range(seconds, SLACK * seconds)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{max(value, 0.1):.2g}"


def _gb(mb: float) -> str:
    return f"{mb / 1e3:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"
