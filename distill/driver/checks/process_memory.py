"""Memory of a run's processes.

16 bytes for each trained parameter (weights, gradients, AdamW's two moments, in float32), 4 or 2
for others, 34 or 17 · 4 bytes of activations for each token, layer and unit of width (Korthikanti
et al. 2022, without attention's own), and PROCESS_MB for each process.
"""

from __future__ import annotations

import math
import os

from distill.tasks.checks.sizes import ModelSize
from distill.tasks.plan import Plan

PROCESS_MB = 450
"""Python with torch, transformers and Ray in one process."""


def rank_mb(plan: Plan, student: ModelSize, tokens: float) -> float:
    """Of one rank of the student."""
    trainer = plan.experiment.trainer
    is_float32 = trainer.dtype == "float32"
    micro = trainer.micro_batch_size or math.ceil(trainer.batch_size / trainer.num_workers)
    frozen = (student.num_params - student.num_trained) * (4 if is_float32 else 2)
    # ZeRO divides AdamW's moments among the ranks, from stage 2 gradients, from 3 weights.
    ranks, stage = trainer.num_workers, trainer.zero_stage if trainer.engine == "deepspeed" else 0
    parts = {1: 8, 2: 4, 3: 4}
    held = 16 - sum(parts[s] * (1 - 1 / ranks) for s in parts if s <= stage)
    layers = 2 if trainer.gradient_checkpointing else student.layers
    activations = micro * tokens * layers * student.hidden * (68 if is_float32 else 34)
    loss = 1e6 * plan.task.loss_mb(trainer)
    return PROCESS_MB + (student.num_trained * held + frozen + activations + loss) / 1e6


def weights_mb(plan: Plan) -> float:
    """Of the processes of all teachers."""
    experiment = plan.experiment
    served = [(t.path, t.allow_pickle, t.dtype, t.replicas, 1) for t in experiment.teachers]
    if (experts := experiment.experts) is not None:
        own, num = experts.serving, 1 if experts.lora else len(plan.teacher_names)
        served = [(experts.base, False, own.dtype, own.replicas, num)]
    found = 0.0
    for folder, allow_pickle, dtype, replicas, count in served:
        num_params = plan.task.folder_size(folder, allow_pickle).num_params
        width = 4 if dtype == "float32" else 2
        found += replicas * count * (PROCESS_MB + num_params * width / 1e6)
    return found


def machine_mb() -> float | None:
    """Memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    except (ValueError, OSError, AttributeError):
        return None
