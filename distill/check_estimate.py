"""How many steps a run takes, about how long, and about how much memory: what ``distill check``
prints of it. Nothing is trained for this.

Operations: a forward takes 2 · P floating-point operations a token, training 6 · P (4 · P where
low-rank updates alone are trained), P being the parameters that multiply: without the embeddings,
which are looked up. They are divided by the rate of a product of matrices of the student's width,
measured here for a fifth of a second on one thread (or on the GPU that trains). Everything else is
left out (attention over long texts, normalisation, writing files), and small models spend more on
it than on products. Hence a range: from the operations alone to SLACK times as long, and what it
takes to start Ray, the workers and the tracker.

Memory: 16 bytes for each trained parameter (weights, gradients, AdamW's two moments, in float32),
4 or 2 for others, 34 or 17 · 4 bytes of activations for each token, layer and unit of width
(Korthikanti et al. 2022, without attention's own), and PROCESS_MB for each process.
"""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from distill.check_inputs import read_info
from distill.check_language import check_lora
from distill.check_resources import machine_cpus
from distill.config import Experiment, LabelsOnly, Student
from distill.data.encode import encode
from distill.data.tokens import load_tokenizer
from distill.models.language import check_language_folder
from distill.models.language_sizes import solve_language
from distill.models.language_student import kept_layers
from distill.models.load import check_folder
from distill.models.sizes import solve, solve_features
from distill.models.tokenizer import num_ids
from distill.models.weights import shapes_of_floats, stored_tensors
from distill.plan import Line, Plan
from distill.sampling import Written

SLACK = 4.0
"""A run takes up to so many times what its products take."""
SAMPLE = 256
"""Rows whose tokens are counted."""
RATE_S = 0.2
REPEATS = 4
START_S = (10.0, 60.0)
STEP_S = 0.004
"""Of a step that is no product: the optimizer's loop, the exchange with the teachers."""
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
            Line("memory", gb, f"{here}student {_gb(self.rank_mb)} per rank"),
        ]

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
        }


def estimate(plan: Plan, rate: float | None = None) -> Estimate:
    """``rate``: floating-point operations a second of one CPU thread (or one GPU); None: measured
    here, for a fifth of a second."""
    experiment, trainer = plan.experiment, plan.experiment.trainer
    train, transfer = plan.rows.rows("train"), plan.rows.rows("transfer")
    num_rows = len(train) + (len(transfer) if experiment.has_teachers else 0)
    steps_per_epoch = math.ceil(num_rows / trainer.batch_size)
    num_steps = math.ceil(trainer.epochs * steps_per_epoch)
    tokens = tokens_of_a_row(plan)
    student = student_of(plan, experiment.student)
    evaluations = num_steps / (trainer.eval_every or steps_per_epoch)
    num_validation = len(plan.rows.rows("validation"))
    per_token = 6 if student.num_trained == student.num_params else 4
    student_ops = per_token * student.num_active * tokens * trainer.batch_size * num_steps
    student_ops += 2 * student.num_active * tokens * num_validation * evaluations
    for baseline in experiment.baselines:
        if isinstance(baseline, LabelsOnly):
            own = student_of(plan, baseline.student or experiment.student)
            student_ops += 6 * own.num_active * tokens * trainer.batch_size * num_steps
    answered = num_rows + num_validation + len(plan.rows.rows("test"))
    teacher_ops = [2 * active * tokens * answered for active in teachers_of(plan)]
    for link in plan.links:  # each is trained as the student is, and is the next one's teacher
        active = student_of(plan, link).num_active
        student_ops += 6 * active * tokens * trainer.batch_size * num_steps
        student_ops += 2 * active * tokens * (num_validation * evaluations + num_rows)
    expert_ops = _experts(plan, tokens)
    operations = student_ops + sum(teacher_ops) + expert_ops
    why = _why_not(experiment)
    seconds = None
    if not why:
        micro = trainer.micro_batch_size or math.ceil(trainer.batch_size / trainer.num_workers)
        speed = rate or measured_rate(round(micro * tokens), student.hidden, _device(experiment))
        cores = machine_cpus(experiment.cluster)
        threads = trainer.num_workers * max(1, int(trainer.num_cpus_per_worker))
        ranks = trainer.num_workers if _device(experiment) == "cuda" else min(cores, threads)
        alone = student_ops / (speed * ranks) + num_steps * (1 + len(plan.links)) * STEP_S
        together = (student_ops + sum(teacher_ops)) / (speed * max(cores, ranks))
        longest = max([alone, together, *(ops / speed for ops in teacher_ops)])
        low = expert_ops / (speed * cores) + longest
        seconds = (START_S[0] + low, START_S[1] + low * SLACK)
    rank_mb = _rank_mb(experiment, student, tokens)
    weights_mb = _weights_mb(plan)
    return Estimate(
        num_steps,
        steps_per_epoch,
        student,
        operations,
        seconds,
        why,
        trainer.num_workers * rank_mb + weights_mb,
        rank_mb,
    )


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
    found = encode(load_tokenizer(plan.tokenizer), texts, data.max_length, data.cut)
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
    vocab_size = student.vocab_size or len(load_tokenizer(plan.tokenizer))
    size = solve(student, vocab_size, num_labels, length)
    active = size.num_params - (vocab_size + length) * size.hidden
    return Model(size.num_params, size.num_params, active, size.layers, size.hidden)


def _language_student(plan: Plan, student: Student) -> Model:
    start = student.init_from
    folder = start.path if start else student.path
    if folder is None:
        size = solve_language(student, num_ids(load_tokenizer(plan.tokenizer)))
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


def _experts(plan: Plan, tokens: float) -> float:
    """Operations of training experts and router."""
    experts = plan.experiment.experts
    if experts is None:
        return 0.0
    active, num_rows = _active(plan, experts.base, False), len(plan.rows.rows("train"))
    epochs = experts.epochs
    if experts.router is not None and plan.experiment.aggregation.needs_router():
        epochs += experts.router.epochs
    return (4 if experts.lora else 6) * active * tokens * num_rows * epochs


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


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{max(value, 0.1):.2g}"


def _gb(mb: float) -> str:
    return f"{mb / 1e3:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"
