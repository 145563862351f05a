"""Which class is which: the class order of a run, and its teachers' and its router's outputs.

The order is ``data.labels``, else that of the first teacher. Of a teacher that names no class it is
known once the data has been read: LABEL_0 can be the integer 0, or the data's own label LABEL_0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from distill.config import Data, Experiment
from distill.data.columns import values_in
from distill.data.corpus import Corpus, build_corpus
from distill.data.source import column_names, find_files, read_batches
from distill.errors import ModelError, UnknownLabelError
from distill.models.labels import (
    Classes,
    Outputs,
    class_orders,
    columns_of,
    map_them,
    shown,
)
from distill.models.load import FolderInfo
from distill.records import Line

READ_BATCHES = 16
"""Of each file, for the labels in a message."""


class Match(NamedTuple):
    """A model's outputs, and what they are matched with."""

    outputs: Outputs
    classes: Classes


def teacher_outputs(experiment: Experiment, infos: Mapping[str, FolderInfo]) -> dict[str, Outputs]:
    """Of existing teachers, by name; raises ModelError for one that is no classifier."""
    found = {}
    for teacher in experiment.teachers:
        info = infos[teacher.name]
        if not info.has_classifier_head:
            raise ModelError(
                f"teachers.{teacher.name}: {teacher.path} has no classification head: fine-tune "
                "it first (section experts), or give another folder"
            )
        description = f"teacher {teacher.name!r} ({teacher.path})"
        key = f"teachers.{teacher.name}.labels"
        found[teacher.name] = Outputs(description, info.label_names, key, teacher.labels)
    return found


def read_data(experiment: Experiment, outputs: Mapping[str, Outputs]) -> Corpus:
    """The data in the class order of the run.

    Raises ModelError or ConfigError, before it is read, for teachers that cannot share the order
    where that is known by then; UnknownLabelError for a label of the data that it has not.
    """
    orders = _orders(experiment, outputs)
    if len(orders) == 1:
        for model in outputs.values():
            columns_of(model, orders[0])
    if not orders:
        return build_corpus(experiment.data, experiment.seed)
    try:
        corpus = corpus_in(
            [classes.names for classes in orders],
            lambda names: build_corpus(experiment.data, experiment.seed, labels=names),
        )
    except UnknownLabelError as error:
        if experiment.data.labels is not None:
            raise
        raise _foreign(error, next(iter(outputs.values())), experiment.data) from None
    if len(orders) > 1 and "0" in corpus.label_names:
        _check_counted_from_zero(corpus, next(iter(outputs.values())))
    return corpus


def corpus_in(
    orders: Sequence[tuple[str, ...]], build: Callable[[tuple[str, ...]], Corpus]
) -> Corpus:
    """The corpus in the first class order that has all its labels; UnknownLabelError of the last.

    A row with another label ends a build at once, so that the others take little time.
    """
    for names in orders[:-1]:
        with suppress(UnknownLabelError):
            return build(names)
    return build(orders[-1])


def _check_counted_from_zero(corpus: Corpus, first: Outputs) -> None:
    """Labels 1 to 4 with LABEL_0 to LABEL_4 are stars without the fifth, rather than integers."""
    labels = corpus.labels_of(corpus.rows("train"))
    if (labels == corpus.label_names.index("0")).any():
        return
    seen = [name for c, name in enumerate(corpus.label_names) if (labels == c).any()]
    raise ModelError(
        f"{first.description} has the labels {shown(first.names)}, and the train split has "
        f"{shown(seen)} but no 0: its numbers may start at 1; {map_them(first, first.names)}"
    )


def _orders(experiment: Experiment, outputs: Mapping[str, Outputs]) -> list[Classes]:
    """What can be the class order of the run; none where it is that of the data."""
    if experiment.data.labels is not None:
        return [Classes("data.labels", experiment.data.labels, is_order_given=True)]
    for first in outputs.values():
        return [Classes(first.description, names) for names in class_orders(first)]
    return []


def _foreign(error: UnknownLabelError, first: Outputs, data: Data) -> UnknownLabelError:
    """The message for a label of the data that the first teacher, which names them, has not."""
    seen = labels_in(data)
    renamed = first.renamed()
    alone = [own for own, name in zip(first.names, renamed, strict=True) if name not in seen]
    way_out = "correct it, or remove the row"
    if alone:
        other = "list data.labels in their order" if first.is_numbered else "correct the label"
        way_out = f"{map_them(first, alone)}; or {other}"
    return UnknownLabelError(
        f"{error.fault} of {first.description}; the data has {shown(seen)}: {way_out}", error.fault
    )


def labels_in(data: Data) -> list[str]:
    """Different labels of the first rows, sorted."""
    column = data.columns.label
    found: set[str] = set()
    for file in find_files(data.path):
        if column not in column_names(file):  # of transfer rows alone
            continue
        for batch in islice(read_batches(file, (column,)), READ_BATCHES):
            labels = values_in(batch, column, "data.columns.label", file, may_lack=True)
            found |= {label.strip() for label in labels if label is not None}
    return sorted(found)


def match_teachers(
    experiment: Experiment, outputs: Mapping[str, Outputs], corpus: Corpus
) -> dict[str, Match]:
    """Each with the classes of the run."""
    (order, *others) = _orders(experiment, outputs) or [Classes("the data", ())]
    description = "the data" if others else order.description
    classes = Classes(description, corpus.label_names, order.is_order_given)
    return {name: Match(model, classes) for name, model in outputs.items()}


def columns_by_name(matches: Mapping[str, Match]) -> dict[str, tuple[int, ...]]:
    """Of models whose outputs are in another order than the classes: the output of each class."""
    found = {name: columns_of(*match) for name, match in matches.items()}
    return {name: columns for name, columns in found.items() if columns is not None}


def label_lines(matches: Mapping[str, Match]) -> list[Line]:
    """What the outputs of models mean whose own labels are not the classes in their order."""
    lines = []
    for name, (model, classes) in matches.items():
        if not model.labels and sorted(model.names) == sorted(classes.names):
            continue  # matched by name
        columns = columns_of(model, classes) or range(len(classes.names))
        named = zip(classes.names, columns, strict=True)
        pairs = [f"{label}: {model.names[j]}" for label, j in named]
        lines.append(Line(f"labels of {name}", shown(pairs), f"{len(pairs)} classes"))
    return lines
