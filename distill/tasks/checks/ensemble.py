"""Names and order of the teachers, and whether the aggregation suits them."""

from __future__ import annotations

import numpy as np

from distill.aggregation import Aggregation, OracleDomain, Routed
from distill.config import SPLITS, Experiment, KMeans
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.errors import ConfigError, DataError
from distill.names import checked_name, confusable

RESERVED = ("router", "student")


def check_names(experiment: Experiment, names: tuple[str, ...]) -> None:
    """Raise unless the names are unique: they become folders, metrics and rows of tables."""
    way_out = "change teachers.name"
    if experiment.experts is not None:
        way_out = (
            f"experts are named after the values of data.columns.domain "
            f"{experiment.data.columns.domain!r}: change the value in the data, or use "
            "experts.partition.type 'kmeans'"
        )
    for name in names:
        try:
            checked_name(name)
        except ValueError as error:
            raise ConfigError(f"{error}; {way_out}") from None
    baselines = [b.name for b in experiment.baselines]
    used = [(name, "is the name of another part of the run") for name in RESERVED]
    used += [
        (name, "is the name of another row of the results table")
        for name in mixture_names(experiment)
    ]
    for name, what in used:
        if name in names:
            raise ConfigError(f"{name!r} cannot be the name of a teacher, it {what}: {way_out}")
        if name in baselines:
            raise ConfigError(
                f"{name!r} cannot be the name of a baseline, it {what}: change baselines.name"
            )
    found = confusable(names)
    if found is not None:
        raise ConfigError(
            f"teachers {found[0]!r} and {found[1]!r} are too similar: names must differ in more "
            f"than case and spaces; {way_out}"
        )
    both = confusable([*names, *baselines])
    if both is not None:
        raise ConfigError(
            f"baselines: {both[1]!r} is also the name of the teacher {both[0]!r}: change "
            "baselines.name"
        )


def mixture_names(experiment: Experiment) -> tuple[str, ...]:
    """Rows of the comparison that combine several teachers."""
    if not experiment.has_teachers:
        return ()
    aggregation = experiment.aggregation
    own = (
        f"routed ensemble, k={aggregation.k}"
        if isinstance(aggregation, Routed)
        else "oracle domain"
    )
    return "uniform mean", "oracle domain", f"{aggregation.type} ensemble", own


def teacher_names(experiment: Experiment, corpus: Corpus) -> tuple[str, ...]:
    if experiment.experts is None:
        return tuple(t.name for t in experiment.teachers)
    partition = experiment.experts.partition
    if isinstance(partition, KMeans):
        return tuple(f"cluster-{c}" for c in range(partition.num_clusters))
    if len(corpus.domain_names) < 2:
        raise DataError(
            f"data.columns.domain {experiment.data.columns.domain!r} has the values "
            f"{list(corpus.domain_names)}: experts by column need at least two domains, or use "
            "experts.partition.type 'kmeans'"
        )
    return corpus.domain_names


def check_aggregation(aggregation: Aggregation, names: tuple[str, ...], corpus: Rows) -> None:
    """Raise unless the aggregation can be used with these teachers on these rows."""
    if not names:
        return
    aggregation.check(list(names))
    if isinstance(aggregation, OracleDomain):
        _check_domain_teachers(names, corpus)


def _check_domain_teachers(names: tuple[str, ...], corpus: Rows) -> None:
    """Raise unless every row has a teacher with the name of its domain."""
    for split in SPLITS:
        rows = corpus.rows(split)
        lost = (
            rows[0] + np.flatnonzero(corpus.domain_teachers_of(rows, names) < 0)
            if len(rows)
            else []
        )
        if len(lost) == 0:
            continue
        domain = int(corpus.domains_of(lost[:1])[0])
        place = corpus.place_of(int(lost[0]), split)
        if domain < 0:
            raise DataError(
                f"aggregation.type oracle queries the teacher of a row's domain, and {len(lost)} "
                f"{corpus.noun} of the {split} split have no domain, the first from {place}: give "
                "data.columns.domain, and fill it in"
            )
        raise ConfigError(
            "aggregation.type oracle queries the teacher of each row's domain, but no teacher is "
            f"named {corpus.domain_names[domain]!r}, the domain of {place}: the teachers are "
            f"{', '.join(names)}"
        )
