"""Checks of an experiment with language models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distill.config import Experiment, Student
from distill.data.blocks import Blocks, build_blocks
from distill.data.chat_template import chat_template_of
from distill.data.content import DocumentContent
from distill.data.corpus import Corpus, build_corpus
from distill.errors import ConfigError
from distill.models.language import LanguageInfo
from distill.models.language_student import check_language_start
from distill.models.vocabulary import same_tokenizer
from distill.records import Line
from distill.tasks.checks.ensemble import check_aggregation, teacher_names
from distill.tasks.checks.objective import check_coupled_tokens
from distill.tasks.checks.temperature import check_schedule
from distill.tasks.language_model.cost import cost_lines
from distill.tasks.language_model.folders import (
    Languages,
    check_languages,
    check_range_of_temperatures,
    check_updates,
    check_wires,
    read_languages,
    served_models,
    tokenizer_folder,
)
from distill.tasks.language_model.lines import (
    block_lines,
    gate_lines,
    template_lines,
    tokenizer_lines,
)
from distill.tasks.language_model.sampling import check_generators
from distill.tasks.language_model.students import check_language_student, student_lines
from distill.tasks.language_model.tokenizers import check_aligned, check_one_tokenizer
from distill.tasks.plan import Plan


def check_settings(experiment: Experiment) -> None:
    """Checks that need no data and no model folder."""
    experts = experiment.experts
    if experts is not None and experts.lora is not None and experts.train_layers is not None:
        raise ConfigError(
            "experts.lora trains low-rank updates of all layers, but experts.train_layers "
            f"{experts.train_layers} trains the full top layers: remove one of the two"
        )
    check_coupled_tokens(experiment)


def read(experiment: Experiment, say: Callable[[str], None]) -> LanguageInputs:
    """Reads model folders and data, and raises InputError where they do not fit together."""
    languages = read_languages(experiment)
    check_languages(experiment, languages)
    say("reading the data")
    corpus = build_corpus(experiment.data, experiment.seed, content=DocumentContent)
    say("packing it into blocks")
    blocks = _open_blocks(experiment, corpus, languages.tokenizer)
    served = served_models(experiment, languages)
    check_aligned(experiment, served, languages.tokenizer, blocks)
    expert_rows = blocks
    if experiment.experts is not None:
        expert_rows = _open_blocks(experiment, corpus, experiment.experts.base)
    names = teacher_names(experiment, corpus)
    check_aggregation(experiment.aggregation, names, blocks)
    check_generators(experiment, languages, names)
    updates = check_updates(experiment)
    return LanguageInputs(experiment, corpus, blocks, names, languages, expert_rows, updates)


@dataclass(frozen=True)
class LanguageInputs:
    """See tasks/checks/loaded.py."""

    experiment: Experiment
    corpus: Corpus
    rows: Blocks
    names: tuple[str, ...]
    languages: Languages
    expert_rows: Blocks
    expert_updates: int | None
    features = None

    @property
    def tokenizer(self) -> str:
        return self.languages.tokenizer

    @property
    def teachers(self) -> Mapping[str, LanguageInfo]:
        return self.languages.teachers

    @property
    def base(self) -> LanguageInfo | None:
        return self.languages.base

    @property
    def adapters(self) -> Mapping[str, int]:
        return {name: info.num_params for name, info in self.languages.adapters.items()}

    @property
    def columns(self) -> Mapping[str, tuple[int, ...]]:
        return {}

    def data_lines(self) -> list[Line]:
        lines = block_lines(self.corpus, self.rows)
        return lines + template_lines(self.experiment, self.languages)

    def cost_lines(self, experiment: Experiment) -> list[Line]:
        return cost_lines(experiment, self.languages, self.names, self.rows)

    def teacher_lines(self) -> list[Line]:
        return gate_lines(self.experiment, self.languages) + tokenizer_lines(self.languages)

    def student_lines(self) -> list[Line]:
        return student_lines(self.experiment, self.tokenizer)

    def trial_check(self) -> Callable[[Experiment], None]:
        experiment, languages = self.experiment, self.languages
        check_range_of_temperatures(experiment)
        checked = [experiment.student]

        def check_trial(trial: Experiment) -> None:
            check_settings(trial)
            if experiment.objective.crosses_tokenizers and not trial.objective.crosses_tokenizers:
                check_languages(trial, languages)
                check_one_tokenizer(trial, served_models(trial, languages), languages.tokenizer)
            check_wires(trial)
            check_aggregation(trial.aggregation, self.names, self.rows)
            check_schedule(trial, self.rows)
            if trial.student not in checked:  # tokenizers take long to load
                self._check_student(trial)
                checked.append(trial.student)

        return check_trial

    def _check_student(self, trial: Experiment) -> None:
        own = tokenizer_folder(trial)
        if own != self.tokenizer and not same_tokenizer(own, self.tokenizer):
            raise ConfigError(
                f"student.tokenizer: {own} has different tokens from {self.tokenizer}, but all "
                "trials share the packed rows: run a separate sweep for each tokenizer"
            )
        check_language_start(trial.student, own, self.experiment.data.max_length)


def check_link(plan: Plan, key: str, student: Student) -> None:
    """Raise for a link of a chain that cannot be built for the student's data and tokenizer."""
    check_language_student(key, student, plan.tokenizer, plan.experiment)


def _open_blocks(experiment: Experiment, corpus: Corpus, tokenizer: str) -> Blocks:
    data = experiment.data
    return build_blocks(
        corpus,
        tokenizer,
        data.max_length,
        data.cut,
        data.packing,
        data.max_unlearnable,
        chat_template_of(data),
    )
