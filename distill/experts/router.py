"""The router of MoEKD: its job and its targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distill.config import Experts
from distill.experts.jobs import plain_trainer
from distill.experts.losses import SPLITS, losses_file, lowest_loss
from distill.experts.partition import Parts
from distill.training.job import Data, Job

ROUTER = "router"


def router_job(experts: Experts, parts: Parts, data: Data, folder: Path, seed: int) -> Job:
    """r(x) = softmax(W · enc(x)), cross-entropy against the id of the row's part, on all training
    rows."""
    router = experts.router
    assert router is not None
    corpus = parts.corpus
    return Job(
        name=ROUTER,
        folder=str(folder / ROUTER),
        seed=seed,
        model=data.task.router(experts, parts.names),
        data=data,
        train_rows=np.asarray(corpus.rows("train")),
        validation_rows=np.asarray(corpus.rows("validation")),
        train_labels=parts.of("train"),
        validation_labels=parts.of("validation"),
        optimizer=router.optimizer,
        trainer=plain_trainer(experts, router.epochs, router.batch_size),
    )


def router_targets(parts: Parts, experts: Sequence[Job]) -> dict[str, np.ndarray]:
    """By split, :func:`lowest_loss` of experts in the order of ``parts.names``."""
    assert tuple(job.name for job in experts) == parts.names
    losses = [np.load(losses_file(job), allow_pickle=False) for job in experts]
    return {
        split: lowest_loss(np.stack([of[split] for of in losses]), parts.of(split))
        for split in SPLITS
    }
