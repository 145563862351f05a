"""Checks of ``objective``: what it needs of the batches, and of the number of classes."""

from __future__ import annotations

from distill.config import Experiment
from distill.errors import ConfigError


def check_classes(experiment: Experiment, num_classes: int) -> None:
    """Raise ConfigError for objectives without gradient for so few classes."""
    if not experiment.has_teachers:
        return
    for key, member in experiment.objective.members.items():
        if num_classes < member.min_classes:
            raise ConfigError(
                f"{key}.type {member.type} has no gradient for {num_classes} classes, where "
                "the correlation of a row is always 1 or -1: use forward_kl, or another objective "
                "that is no correlation over classes"
            )


def check_coupled_tokens(experiment: Experiment) -> None:
    """Raise ConfigError for objectives that compare rows, where the loss is that of tokens.

    Needs no data and no model folder.
    """
    if not experiment.has_teachers:
        return
    for key, member in experiment.objective.members.items():
        if member.at_tokens().couples_rows:
            raise ConfigError(
                f"{key}.type {member.type} compares the rows of a batch with each other, but with "
                "task language_model the loss is computed for a few tokens at a time: use "
                "forward_kl, or dist with row_weight above 0"
            )


def check_split_batches(experiment: Experiment) -> None:
    """Raise ConfigError for objectives that compare rows which are not in one batch on one rank.

    Needs no data and no model folder.
    """
    if not experiment.has_teachers:
        return
    trainer = experiment.trainer
    split = None
    if trainer.num_workers > 1:
        split = f"trainer.num_workers {trainer.num_workers}", "trainer.num_workers: 1"
    elif trainer.micro_batch_size is not None and trainer.micro_batch_size < trainer.batch_size:
        split = (
            f"trainer.micro_batch_size {trainer.micro_batch_size}",
            "trainer.micro_batch_size: null",
        )
    if split is None:
        return
    name, way_out = split
    for key, member in experiment.objective.members.items():
        if member.couples_rows:
            other = f", {key}.class_weight: 0" if member.type == "dist" else ""
            raise ConfigError(
                f"{key}.type {member.type} compares all rows of a batch with each other, but "
                f"{name} splits trainer.batch_size {trainer.batch_size}: set {way_out}{other}, or "
                "use forward_kl"
            )
