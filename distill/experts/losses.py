"""The loss of an expert on every labelled row, from which the targets of a router can be made.

Shape suffixes: B rows of a batch, R all rows of a split, K experts, V classes.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from distill.data.batches import Batches
from distill.errors import Interrupted
from distill.models.load import load_classifier
from distill.training.job import Job

SPLITS = ("train", "validation")
BATCH = 64


def losses_file(job: Job) -> Path:
    """Where :func:`measure_losses` leaves float32 [R] for each of SPLITS."""
    return Path(job.folder) / "losses.npz"


def measure_losses(job: Job) -> None:
    """CE(y, z) of a trained expert on all rows of SPLITS, other parts' too; once.

    The same batches in the same order wherever it runs. Raises Interrupted once the user asked to
    stop.
    """
    kept = losses_file(job)
    if kept.exists():
        return
    torch.set_num_threads(max(1, int(job.trainer.num_cpus_per_worker)))
    device = "cuda" if job.trainer.num_gpus_per_worker > 0 else "cpu"
    model = load_classifier(job.model_folder).to(device)  # pyright: ignore[reportArgumentType]
    inputs = job.data.open()
    losses: dict[str, np.ndarray] = {}
    for split in SPLITS:
        batches = Batches(inputs, inputs.corpus.rows(split), BATCH, job.seed, shuffle=False)
        found = []
        for step in range(batches.steps_per_epoch):
            if job.stop_file is not None and Path(job.stop_file).exists():
                raise Interrupted(f"stopped while {job.name} computed its losses")
            for batch in batches.at(step):
                on_device = batch.to(device)
                with torch.inference_mode():
                    logits_BV = model(**on_device.inputs()).logits.float()
                    loss_B = cross_entropy(logits_BV, on_device.labels_B, reduction="none")
                found.append(loss_B.cpu().numpy())
        losses[split] = np.concatenate(found)
    partial = kept.with_name("losses.partial.npz")
    np.savez(partial, **losses)  # type: ignore[arg-type]
    os.replace(partial, kept)


def lowest_loss(losses_KR: np.ndarray, own_R: np.ndarray) -> np.ndarray:
    """The expert with the lowest loss on each row, int64 [R].

    A tie that the row's own part is in goes to it, others to the expert named first.
    """
    rows_R = np.arange(len(own_R))
    is_own_lowest_R = losses_KR[own_R, rows_R] == losses_KR.min(0)
    return np.where(is_own_lowest_R, own_R, losses_KR.argmin(0)).astype(np.int64)
