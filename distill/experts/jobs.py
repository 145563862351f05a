"""MoEKD step 2: the experts as jobs for the one training loop. The router: router.py."""

from __future__ import annotations

from pathlib import Path

from distill.config import Experts, Trainer
from distill.experts.partition import Parts
from distill.names import folder_name
from distill.training.job import Data, Job


def expert_jobs(experts: Experts, parts: Parts, data: Data, folder: Path, seed: int) -> list[Job]:
    """One job a part: the base fine-tuned on the part's rows, selected on its validation rows."""
    spec = data.task.expert(experts, parts.corpus.label_names)
    trainer = plain_trainer(experts, experts.epochs, experts.batch_size)
    return [
        Job(
            name=name,
            folder=str(folder / folder_name(name)),
            seed=seed,
            model=spec,
            data=data,
            train_rows=parts.rows("train", part),
            validation_rows=parts.rows("validation", part),
            optimizer=experts.optimizer,
            trainer=trainer,
        )
        for part, name in enumerate(parts.names)
    ]


def plain_trainer(experts: Experts, epochs: float, batch_size: int) -> Trainer:
    """One process with the reference engine."""
    return Trainer(
        engine="torch",
        epochs=epochs,
        batch_size=batch_size,
        dtype=experts.dtype,
        num_cpus_per_worker=experts.num_cpus,
        num_gpus_per_worker=experts.num_gpus,
        node_labels=experts.node_labels,
    )
