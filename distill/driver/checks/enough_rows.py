"""Whether there are enough rows for the batches of student and experts."""

from __future__ import annotations

import math

from distill.aggregation import Routed
from distill.config import Experiment, KMeans
from distill.config.keys_of_tasks import fits
from distill.data.rows import Rows
from distill.errors import ConfigError, DataError
from distill.tasks.checks.loaded import Folder


def check_parts(experiment: Experiment, rows: Rows, base: Folder | None) -> None:
    """Raise unless every expert has rows, and no more layers to train than there are."""
    experts = experiment.experts
    if experts is None or base is None:
        return
    layers_of = {"experts.train_layers": experts.train_layers}
    if experts.router is not None and fits(Routed.tasks, experiment.task):
        layers_of["experts.router.layers"] = experts.router.layers
        layers_of["experts.router.train_layers"] = experts.router.train_layers
    for key, layers in layers_of.items():
        if layers is not None and layers > base.num_layers:
            raise ConfigError(f"{key} is {layers}, {experts.base} has {base.num_layers} layers")
    if isinstance(experts.partition, KMeans):
        return
    has_kmeans = fits(KMeans.tasks, experiment.task)
    way_out = ", or use experts.partition.type 'kmeans'" if has_kmeans else ""
    for split in ("train", "validation"):
        domains = rows.domains_of(rows.rows(split))
        for part, name in enumerate(rows.domain_names):
            num_rows = int((domains == part).sum())
            if num_rows == 0:
                raise DataError(
                    f"the domain {name!r} has no {split} rows: an expert needs them; remove its "
                    f"rows{way_out}"
                )
            if split == "train" and num_rows < experts.batch_size:
                raise ConfigError(
                    f"experts.batch_size {experts.batch_size} is larger than the {num_rows} "
                    f"training {rows.noun} of the domain {name!r}: lower it"
                )


def check_batches(experiment: Experiment, rows: Rows) -> None:
    trainer = experiment.trainer
    num_rows = len(rows.rows("train"))
    if trainer.batch_size > num_rows:
        raise ConfigError(
            f"trainer.batch_size {trainer.batch_size} is larger than the training data "
            f"({num_rows} {rows.noun}): lower it"
        )
    per_rank = math.ceil(trainer.batch_size / trainer.num_workers)
    if trainer.micro_batch_size is not None and trainer.micro_batch_size > per_rank:
        raise ConfigError(
            f"trainer.micro_batch_size {trainer.micro_batch_size} is larger than a rank's share "
            f"of trainer.batch_size ({per_rank} rows): lower it"
        )
    if trainer.batch_size < trainer.num_workers:
        raise ConfigError(
            f"trainer.batch_size {trainer.batch_size} is smaller than trainer.num_workers "
            f"{trainer.num_workers}: every rank needs a row"
        )
