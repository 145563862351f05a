"""What can be known of an experiment with language models before a process starts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from distill.aggregation import Routed
from distill.check_mixture import check_aggregation
from distill.config import SPLITS, Experiment, KMeans, Serving, Student, TfidfBaseline
from distill.data.blocks import Blocks, build_blocks
from distill.data.corpus import Corpus
from distill.errors import ConfigError
from distill.models.language import LanguageInfo, check_language_folder
from distill.models.language_sizes import solve_language
from distill.models.language_student import check_language_start
from distill.models.tokenizer import load_tokenizer, num_ids
from distill.models.vocabulary import check_tokenizer_sha256, same_vocabulary, speak_alike
from distill.objectives.tokens import check_mixing
from distill.plan import Line
from distill.search.space import Choice, Grid, Quantised
from distill.teachers.wires import WireFormat


@dataclass(frozen=True)
class Languages:
    """The folders that an experiment names, as they say of themselves."""

    teachers: Mapping[str, LanguageInfo]
    base: LanguageInfo | None
    tokenizer: str
    """Folder of the student's tokenizer."""


def check_task(experiment: Experiment) -> None:
    """What needs no data and no folder to be refused."""
    columns = experiment.data.columns
    if not experiment.is_language_model:
        named = [k for k in ("prompt", "messages") if getattr(columns, k) is not None]
        if named:
            raise ConfigError(
                f"data.columns.{named[0]} is of language models, task is classification: set task "
                "to language_model, or name data.columns.text"
            )
        if experiment.objective.crosses_tokenizers:
            raise ConfigError(
                f"objective.type {experiment.objective.type} compares tokens, task is "
                "classification: set task to language_model, or use forward_kl"
            )
        return
    for key, value in {
        "data.columns.features": columns.features,
        "data.columns.text_pair": columns.text_pair,
        "data.labels": experiment.data.labels,
        "student.vocab_size": experiment.student.vocab_size,
    }.items():
        if value is not None:
            raise ConfigError(
                f"{key} ({value!r}) is of classifiers, task is language_model: remove it"
            )
    if any(isinstance(b, TfidfBaseline) for b in experiment.baselines):
        raise ConfigError("baselines: tfidf classifies, task is language_model: remove it")
    if isinstance(experiment.aggregation, Routed):
        raise ConfigError(
            f"aggregation.type {experiment.aggregation.type} weighs rows by a classifier, task is "
            "language_model: use mean, weights, uncertainty, single or oracle"
        )
    if experiment.experts is not None and isinstance(experiment.experts.partition, KMeans):
        raise ConfigError(
            "experts.partition.type kmeans clusters an encoder's embeddings, task is "
            "language_model: use column"
        )
    if experiment.trainer.select_by == "eval.f1":
        raise ConfigError(
            "trainer.select_by eval.f1 is of classifiers, task is language_model: use "
            "eval.perplexity or eval.accuracy (of the next token)"
        )


def read_languages(experiment: Experiment) -> Languages:
    """Every folder's own word; ModelError for one that could not be served."""
    infos = {t.name: check_language_folder(t.path, t.allow_pickle) for t in experiment.teachers}
    for teacher in experiment.teachers:
        check_tokenizer_sha256(teacher.name, teacher.path, teacher.tokenizer_sha256)
    base = check_language_folder(experiment.experts.base) if experiment.experts else None
    return Languages(infos, base, _tokenizer_folder(experiment))


def open_blocks(experiment: Experiment, corpus: Corpus, tokenizer: str) -> Blocks:
    data = experiment.data
    return build_blocks(
        corpus, tokenizer, data.max_length, data.cut, data.packing, data.max_unlearnable
    )


def check_languages(experiment: Experiment, languages: Languages) -> None:
    """Vocabularies, positions and wires fit together."""
    for key, (folder, info) in _folders(experiment, languages).items():
        if experiment.data.max_length > info.max_positions:
            raise ConfigError(
                f"data.max_length {experiment.data.max_length} is longer than the "
                f"{info.max_positions} positions of {key}: lower it"
            )
        if not experiment.objective.crosses_tokenizers:
            same_vocabulary(languages.tokenizer, folder, sys.maxsize, info.vocab_size)
    _check_wires(experiment)


def _folders(experiment: Experiment, languages: Languages) -> dict[str, tuple[str, LanguageInfo]]:
    named = {
        f"teachers.{t.name}": (t.path, languages.teachers[t.name]) for t in experiment.teachers
    }
    if experiment.experts is not None and languages.base is not None:
        named["experts.base"] = (experiment.experts.base, languages.base)
    return named


def _check_wires(experiment: Experiment) -> None:
    """Objective and temperature can be had from what the teachers send."""
    wires = dict(_wires(experiment))
    for key, wire in wires.items():
        wire.check(key, experiment.objective, [experiment.kd.temperature])
    if wires:
        all_wires = [*wires.values()] * (2 if experiment.experts else 1)
        check_mixing(experiment.aggregation, all_wires, experiment.objective)


def _wires(experiment: Experiment) -> Iterator[tuple[str, WireFormat]]:
    served: dict[str, Serving] = {f"teachers.{t.name}": t for t in experiment.teachers}
    if experiment.experts is not None:
        served["experts.base"] = experiment.experts.serving
    for key, serving in served.items():
        yield f"{key}.wire", serving.wire.resolved(True, serving.dtype)


def trial_check(
    experiment: Experiment, languages: Languages, names: tuple[str, ...], blocks: Blocks
) -> Callable[[Experiment], None]:
    """Refuses an experiment that no trial of a sweep could be; see search/plan.py."""
    checked = [experiment.student]

    def check_trial(trial: Experiment) -> None:
        check_task(trial)
        if experiment.objective.crosses_tokenizers and not trial.objective.crosses_tokenizers:
            check_languages(trial, languages)
        _check_wires(trial)
        check_aggregation(trial.aggregation, names, blocks)
        if trial.student not in checked:  # tokenizers take long to load
            own = _tokenizer_folder(trial)
            if own != languages.tokenizer and not speak_alike(own, languages.tokenizer):
                raise ConfigError(
                    f"student.tokenizer: {own} has other tokens than {languages.tokenizer}, and "
                    "all trials share the packed rows: run another sweep for another tokenizer"
                )
            check_language_start(trial.student, own, experiment.data.max_length)
            checked.append(trial.student)

    return check_trial


def check_range_of_temperatures(experiment: Experiment) -> None:
    """A range holds more temperatures than its ends, at which :func:`trial_check` looks."""
    domain = experiment.search.space.get("kd.temperature") if experiment.search else None
    if domain is None or isinstance(domain, Grid | Choice):
        return
    for key, wire in _wires(experiment):
        if wire.is_exact:
            continue
        if not isinstance(domain, Quantised):
            raise ConfigError(
                f"search.space.kd.temperature may be anything from {domain.low:g} to "
                f"{domain.high:g}, and the answers of {key} {wire.name} can be used at a few "
                "temperatures alone: make it a grid or a choice of these, or take the wire hidden "
                "or dense"
            )
        wire.check(key, experiment.objective, domain.all_values)


def _tokenizer_folder(experiment: Experiment) -> str:
    student = experiment.student
    start = student.init_from.path if student.init_from else student.path
    if student.tokenizer or start:
        return student.tokenizer or start or ""
    if experiment.experts:
        return experiment.experts.base
    if experiment.teachers:
        return experiment.teachers[0].path
    raise ConfigError(
        "student.tokenizer is missing: without experts or teachers, name a folder with a tokenizer"
    )


def language_lines(experiment: Experiment, tokenizer: str) -> list[tuple[str, str, str]]:
    """Part, shape and size of every student; refuses one that cannot be built."""
    named: list[tuple[str, Student]] = [("student", experiment.student)]
    named += [
        (f"baseline {b.name}", b.student)
        for b in experiment.baselines
        if not isinstance(b, TfidfBaseline) and b.student is not None
    ]
    length = experiment.data.max_length
    lines = []
    for name, student in named:
        own = student.tokenizer or (student.init_from or student).path or tokenizer
        check_language_start(student, own, length)
        lines.append((name, *_line(student, own)))
    return lines


def block_lines(corpus: Corpus, blocks: Blocks) -> list[Line]:
    counts = ", ".join(f"{split} {len(blocks.rows(split)):,}" for split in SPLITS)
    lines = [Line("data", counts, f"blocks, {blocks.fill:.0%} full")]
    if corpus.domain_names:
        lines.append(Line("domains", ", ".join(corpus.domain_names)))
    for what, count in {
        "cut to data.max_length": blocks.num_truncated,
        "dropped: no token to learn": blocks.num_unlearnable,
        "dropped: empty": corpus.num_dropped,
    }.items():
        if count:
            lines.append(Line("rows", what, f"{count:,}"))
    return lines


def _line(student: Student, tokenizer: str) -> tuple[str, str]:
    if student.path or student.init_from:
        start = student.init_from
        folder = start.path if start else student.path
        info = check_language_folder(folder or "")
        kept = f", {start.layers} of {info.num_layers} layers ({start.keep})" if start else ""
        lora = f", lora of rank {student.lora.rank}" if student.lora else ""
        return f"from {folder}{kept}{lora}", f"{info.num_params / 1e6:.2f} M parameters there"
    size = solve_language(student, num_ids(load_tokenizer(tokenizer)))
    shape = f"{size.layers} layers, hidden {size.hidden}, {size.heads} heads, ffn {size.ffn}"
    training_mb = size.num_params * 16 / 1e6  # weights, gradients, AdamW's two moments
    told = f"{size.num_params / 1e6:.2f} M parameters, {size.size_mb:.1f} MB"
    return shape, f"{told} ({training_mb:.0f} MB to train)"
