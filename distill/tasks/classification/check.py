"""Checks of an experiment with classifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distill.aggregation import Routed
from distill.config import Experiment, Serving, Student
from distill.data.corpus import Corpus
from distill.errors import ConfigError, ModelError
from distill.experts.router import ROUTER
from distill.models.features import FeatureSpace
from distill.models.labels import Classes, Outputs, columns_of
from distill.models.load import FolderInfo
from distill.models.student import check_feature_start, check_start
from distill.records import Line
from distill.tasks.checks.data import counts_of, source_lines
from distill.tasks.checks.ensemble import check_aggregation, teacher_names
from distill.tasks.checks.objective import check_classes, check_split_batches
from distill.tasks.checks.temperature import check_schedule
from distill.tasks.classification.inputs import (
    check_kind,
    check_reader,
    check_teachers,
    read_info,
    space_of,
)
from distill.tasks.classification.labels import (
    Match,
    columns_by_name,
    label_lines,
    match_teachers,
    read_data,
    teacher_outputs,
)
from distill.tasks.classification.students import size_check, student_lines, tokenizer_folder
from distill.tasks.plan import Plan
from distill.wires import WireFormat


def check_settings(experiment: Experiment) -> None:
    """Checks that need no data and no model folder."""
    check_split_batches(experiment)
    check_kind(experiment)


def read(experiment: Experiment, say: Callable[[str], None]) -> ClassifierInputs:
    """Reads model folders and data, and raises InputError where they do not fit together."""
    infos = {t.name: read_info(t.path, t.allow_pickle) for t in experiment.teachers}
    base = read_info(experiment.experts.base, False) if experiment.experts else None
    outputs = teacher_outputs(experiment, infos)
    say("reading the data")
    corpus = read_data(experiment, outputs)
    matches = match_teachers(experiment, outputs, corpus)
    space = space_of(experiment.data, corpus)
    check_teachers(experiment, corpus, infos)
    names = teacher_names(experiment, corpus)
    check_aggregation(experiment.aggregation, names, corpus)
    check_classes(experiment, len(corpus.label_names))
    router = check_router(experiment, names, corpus)
    if router is not None:
        matches[ROUTER] = router
    columns = columns_by_name(matches)
    tokenizer = tokenizer_folder(experiment) if space is None else ""
    _check_lengths(experiment, infos, base)
    return ClassifierInputs(
        experiment, corpus, names, infos, base, matches, columns, tokenizer, space
    )


@dataclass(frozen=True)
class ClassifierInputs:
    """See tasks/checks/loaded.py."""

    experiment: Experiment
    corpus: Corpus
    names: tuple[str, ...]
    teachers: Mapping[str, FolderInfo]
    base: FolderInfo | None
    matches: Mapping[str, Match]
    columns: Mapping[str, tuple[int, ...]]
    tokenizer: str
    features: FeatureSpace | None
    expert_updates = None

    @property
    def rows(self) -> Corpus:
        return self.corpus

    @property
    def expert_rows(self) -> Corpus:
        return self.corpus

    @property
    def adapters(self) -> Mapping[str, int]:
        return {}

    def data_lines(self) -> list[Line]:
        return _data_lines(self.corpus) + label_lines(self.matches)

    def cost_lines(self, experiment: Experiment) -> list[Line]:
        return []

    def teacher_lines(self) -> list[Line]:
        return []

    def student_lines(self) -> list[Line]:
        return student_lines(self.experiment, self.corpus, self.tokenizer, self.features)

    def trial_check(self) -> Callable[[Experiment], None]:
        corpus = self.corpus
        check_size = size_check(self.experiment, corpus, self.tokenizer, self.features)

        def check_trial(trial: Experiment) -> None:
            check_size(trial.student)
            check_split_batches(trial)
            check_classes(trial, len(corpus.label_names))
            check_aggregation(trial.aggregation, self.names, corpus)
            check_schedule(trial, corpus)

        return check_trial


def check_link(plan: Plan, key: str, student: Student) -> None:
    """Raise for a link of a chain that cannot be built for the student's data and tokenizer."""
    experiment, labels = plan.experiment, plan.corpus.label_names
    is_order_given = experiment.data.labels is not None
    if plan.features is not None:
        check_feature_start(student, plan.features, labels, is_order_given)
    else:
        length = experiment.data.max_length
        check_start(student, plan.tokenizer, labels, length, is_order_given)


def wire_of(serving: Serving) -> WireFormat:
    """With its defaults for classifiers."""
    return serving.wire.resolved(False, serving.dtype)


def check_router(experiment: Experiment, names: tuple[str, ...], corpus: Corpus) -> Match | None:
    """Raise unless a router folder can read the rows and has the teachers' names as its classes, in
    any order."""
    aggregation = experiment.aggregation
    if not isinstance(aggregation, Routed) or aggregation.router is None:
        return None
    key, path = "aggregation.router", aggregation.router
    info = read_info(path, aggregation.allow_pickle)
    if not info.has_classifier_head:
        raise ModelError(f"{key}: {path} has no classification head: give a trained router")
    check_reader(key, path, aggregation.allow_pickle, info, corpus)
    # The names of experts trained here are sorted: an order that no user chose.
    teachers = Classes("the teachers", names, is_order_given=experiment.experts is None)
    match = Match(Outputs(f"{key} {path}", info.label_names), teachers)
    columns_of(*match)
    return match


def _check_lengths(
    experiment: Experiment, infos: dict[str, FolderInfo], base: FolderInfo | None
) -> None:
    limits = {f"teachers.{name}": info for name, info in infos.items()}
    if base is not None:
        limits["experts.base"] = base
    for key, info in limits.items():
        if experiment.data.max_length > info.max_positions:
            raise ConfigError(
                f"data.max_length {experiment.data.max_length} is longer than the "
                f"{info.max_positions} positions of {key}: lower it"
            )


def _data_lines(corpus: Corpus) -> list[Line]:
    shown = "rows" if corpus.features is None else f"rows of {corpus.features.num} features"
    lines = [
        Line("data", counts_of(corpus), shown),
        *source_lines(corpus),
        Line("labels", ", ".join(corpus.label_names), f"{len(corpus.label_names)} classes"),
    ]
    if corpus.domain_names:
        lines.append(Line("domains", ", ".join(corpus.domain_names)))
    if corpus.num_dropped:
        lines.append(Line("dropped", "empty texts", f"{corpus.num_dropped:,} rows"))
    return lines
