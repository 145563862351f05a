"""Checks of an experiment with language models, and its lines of the plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from distill.aggregation import LearnedRouter, Routed
from distill.config import (
    Experiment,
    InitFrom,
    KMeans,
    Lora,
    Serving,
    Student,
    TfidfBaseline,
)
from distill.config.search_space import Choice, Grid, Quantised
from distill.data.blocks import Blocks, build_blocks
from distill.data.chat_template import chat_template_of
from distill.data.corpus import Corpus
from distill.errors import ConfigError
from distill.models.adapter import AdapterInfo, check_adapter, read_adapter
from distill.models.decoder import layers_of
from distill.models.language import LanguageInfo, check_language_folder
from distill.models.language_sizes import solve_language
from distill.models.language_student import check_language_start, kept_layers, with_lora
from distill.models.packed import check_takes_positions
from distill.models.plain_head import described, has_plain_head
from distill.models.shape import as_begun
from distill.models.tokenizer import load_tokenizer, num_ids
from distill.models.vocabulary import (
    WAY_OUT,
    check_tokenizer_sha256,
    same_vocabulary,
    speak_alike,
)
from distill.records import Line
from distill.run_folder import RunFolder
from distill.sampling import Written
from distill.tasks.checks.data import counts_of, source_lines
from distill.tasks.checks.ensemble import check_aggregation
from distill.tasks.checks.objective import check_objective
from distill.tasks.checks.temperature import check_schedule, check_wire
from distill.tasks.language_model.moe import (
    check_moe,
    check_moe_of_classifiers,
    check_passes,
    gate_line,
)
from distill.tasks.language_model.tokenizers import Served, check_one_tokenizer
from distill.wires import DenseWire, WireFormat
from distill.wires.legality import check_mixing
from distill.wording import counted


@dataclass(frozen=True)
class Languages:
    """What is known of the model folders of an experiment, without loading weights."""

    teachers: Mapping[str, LanguageInfo]
    """Of one that is an adapter, its base."""
    adapters: Mapping[str, AdapterInfo]
    """Of those teachers that are one."""
    base: LanguageInfo | None
    tokenizer: str
    """Folder of the student's tokenizer."""


def check_task(experiment: Experiment) -> None:
    """Checks that need no data and no model folder."""
    if experiment.is_language_model:
        _refuse_classifier_keys(experiment)
    else:
        _refuse_language_keys(experiment)
    check_objective(experiment)


def _refuse_language_keys(experiment: Experiment) -> None:
    """Raise for keys that apply only to language models."""
    for teacher in experiment.teachers:
        if teacher.adapter is not None:
            raise ConfigError(
                f"teachers.{teacher.name}.adapter {teacher.adapter} applies only to language "
                "models, task is classification: merge it into a model folder (peft's "
                "merge_and_unload), and set path to that folder"
            )
    columns, trainer, experts = experiment.data.columns, experiment.trainer, experiment.experts
    named = [k for k in ("prompt", "messages") if getattr(columns, k) is not None]
    if named:
        raise ConfigError(
            f"data.columns.{named[0]} applies only to language models, task is classification: set "
            "task to language_model, or set data.columns.text"
        )
    if experiment.objective.crosses_tokenizers:
        raise ConfigError(
            f"objective.type {experiment.objective.type} compares tokens, task is "
            "classification: set task to language_model, or use forward_kl"
        )
    if isinstance(experiment.aggregation, LearnedRouter):
        raise ConfigError(
            "aggregation.type learned applies only to language models, task is classification: "
            "use attention, which is trained with the student, or routed"
        )
    if trainer.select_by == "eval.perplexity":
        raise ConfigError(
            "trainer.select_by eval.perplexity applies only to language models, task is "
            "classification: use eval.accuracy or eval.f1"
        )
    given: dict[str, object] = {
        "trainer.gradient_checkpointing": trainer.gradient_checkpointing or None
    }
    for key, student in (_students(experiment) | _links(experiment)).items():
        given |= {f"{key}.lora": student.lora, f"{key}.kv_heads": student.kv_heads}
    served: dict[str, Serving] = {f"teachers.{t.name}": t for t in experiment.teachers}
    if experts is not None:
        given["experts.lora"] = experts.lora
        served["experts.serving"] = experts.serving
        if experts.router is not None:
            served["experts.router.serving"] = experts.router.serving
    for key, value in given.items():
        if value is not None:
            raise ConfigError(
                f"{key} applies only to language models, task is classification: remove it"
            )
    check_moe_of_classifiers(served)
    for key, serving in served.items():
        if not isinstance(serving.wire, DenseWire):
            raise ConfigError(
                f"{key}.wire.type {serving.wire.type} applies only to language models, task is "
                "classification: use dense"
            )


def _refuse_classifier_keys(experiment: Experiment) -> None:
    """Raise for keys that apply only to classifiers."""
    columns, experts = experiment.data.columns, experiment.experts
    unlabelled = experiment.data.unlabelled
    given: dict[str, object] = {
        "data.columns.features": columns.features,
        "data.columns.text_pair": columns.text_pair,
        "data.labels": experiment.data.labels,
        "data.unlabelled": None if unlabelled == "error" else unlabelled,
        "data.image": experiment.data.image,
    }
    given |= {f"teachers.{t.name}.labels": t.labels for t in experiment.teachers}
    for key, student in _students(experiment).items():
        given[f"{key}.vocab_size"] = student.vocab_size
    for key, value in given.items():
        if value is not None:
            shown = list(value) if isinstance(value, tuple) else value
            raise ConfigError(
                f"{key} ({shown}) applies only to classifiers, task is language_model: remove it"
            )
    if any(isinstance(b, TfidfBaseline) for b in experiment.baselines):
        raise ConfigError(
            "baselines: tfidf applies only to classifiers, task is language_model: remove it"
        )
    if isinstance(experiment.aggregation, Routed):
        raise ConfigError(
            f"aggregation.type {experiment.aggregation.type} applies only to classifiers, task is "
            "language_model: use mean, weights, uncertainty, attention, learned, single or oracle"
        )
    if experts is not None and isinstance(experts.partition, KMeans):
        raise ConfigError(
            "experts.partition.type kmeans applies only to classifiers, task is language_model: "
            "use column"
        )
    if experts is not None and experts.lora is not None and experts.train_layers is not None:
        raise ConfigError(
            "experts.lora trains low-rank updates of all layers, but experts.train_layers "
            f"{experts.train_layers} trains the full top layers: remove one of the two"
        )
    if experiment.trainer.select_by == "eval.f1":
        raise ConfigError(
            "trainer.select_by eval.f1 applies only to classifiers, task is language_model: use "
            "eval.perplexity or eval.accuracy (of the next token)"
        )


def _students(experiment: Experiment) -> dict[str, Student]:
    """By key, those of baselines too."""
    return {"student": experiment.student} | {
        f"baselines.{b.name}.student": b.student
        for b in experiment.baselines
        if not isinstance(b, TfidfBaseline) and b.student is not None
    }


def _links(experiment: Experiment) -> dict[str, Student]:
    """By key, those of a chain that are given by hand; see driver/checks/chain.py."""
    students = experiment.chain.students if experiment.chain else ()
    return {f"chain.students.{index}": student for index, student in enumerate(students)}


def read_languages(experiment: Experiment) -> Languages:
    """Reads every model folder; ModelError for one that could not be served."""
    infos = {t.name: check_language_folder(t.path, t.allow_pickle) for t in experiment.teachers}
    adapters = {}
    for teacher in experiment.teachers:
        check_tokenizer_sha256(teacher.name, teacher.path, teacher.tokenizer_sha256)
        if teacher.adapter is not None:
            key = f"teachers.{teacher.name}.adapter"
            adapters[teacher.name] = read_adapter(teacher.adapter, key)
            check_adapter(adapters[teacher.name], teacher.path, key)
    base = check_language_folder(experiment.experts.base) if experiment.experts else None
    return Languages(infos, adapters, base, tokenizer_folder(experiment))


def open_blocks(experiment: Experiment, corpus: Corpus, tokenizer: str) -> Blocks:
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


def check_languages(experiment: Experiment, languages: Languages) -> None:
    """Raise unless vocabularies, positions and wires fit together."""
    way_out, sampling = WAY_OUT, experiment.sampling
    if isinstance(sampling, Written):
        way_out = (
            f"sampling.type {sampling.type} sends the student's tokens to the teacher: use a "
            "teacher with the student's tokenizer"
        )
    for key, (folder, info, serving) in served_models(experiment, languages).items():
        if not experiment.objective.crosses_tokenizers:
            same_vocabulary(languages.tokenizer, folder, sys.maxsize, info.vocab_size, way_out)
        # Of one in other tokens its own longest sequence matters: see tokenizers.py.
        # Only an objective that crosses tokenizers sends a teacher tokens of its own.
        is_shown_ours = not experiment.objective.crosses_tokenizers
        if key == "experts.base" or is_shown_ours or speak_alike(languages.tokenizer, folder):
            _check_positions(experiment.data.max_length, key, info)
        model = described(folder)
        if serving.wire.takes == "hidden" and has_plain_head(model) is False:
            raise ConfigError(
                f"{key}.wire.type hidden: a {info.model_type} model caps or scales its logits "
                "after the output layer, so they cannot be recomputed from hidden states: use "
                "dense or topk"
            )
        if experiment.data.packing:
            check_takes_positions(key, model)
    check_updates(experiment)
    for key, (_, info, serving) in served_models(experiment, languages).items():
        where = "experts.serving" if key == "experts.base" else key
        check_moe(experiment, where, serving.moe, info.gates)
    _check_wires(experiment)


def _check_wires(experiment: Experiment) -> None:
    """Raise unless the wires carry what objective and temperature need."""
    check_passes(experiment)
    wires = dict(_wires(experiment))
    for key, wire in wires.items():
        check_wire(experiment, key, wire)
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
            served = served_models(trial, languages)
            check_one_tokenizer(trial, served, languages.tokenizer)
        _check_wires(trial)
        check_aggregation(trial.aggregation, names, blocks)
        check_schedule(trial, blocks)
        if trial.student not in checked:  # tokenizers take long to load
            own = tokenizer_folder(trial)
            if own != languages.tokenizer and not speak_alike(own, languages.tokenizer):
                raise ConfigError(
                    f"student.tokenizer: {own} has different tokens from {languages.tokenizer}, "
                    "but all trials share the packed rows: run a separate sweep for each "
                    "tokenizer"
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
                f"{domain.high:g}, but the outputs of {key} {wire.name} can be used only at some "
                "temperatures: make it a grid or a choice of these, or use the wire hidden or "
                "dense"
            )
        wire.check(key, experiment.objective, domain.all_values)


def served_models(experiment: Experiment, languages: Languages) -> Served:
    """The teachers, and the experts' base."""
    served: dict[str, tuple[str, LanguageInfo, Serving]] = {
        f"teachers.{t.name}": (t.path, languages.teachers[t.name], t) for t in experiment.teachers
    }
    if experiment.experts is not None and languages.base is not None:
        experts = experiment.experts
        served["experts.base"] = (experts.base, languages.base, experts.serving)
    return served


def _check_positions(max_length: int, key: str, info: LanguageInfo) -> None:
    if max_length > info.max_positions:
        raise ConfigError(
            f"data.max_length {max_length} is longer than the {info.max_positions} positions of "
            f"{key}: lower it"
        )


def check_lora(key: str, folder: str, lora: Lora) -> Any:
    """The model with such updates, without memory for its weights; ConfigError, naming ``key``, for
    updates that it cannot get."""
    try:
        with torch.device("meta"):
            return with_lora(described(folder), lora, seed=0)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None


def check_updates(experiment: Experiment) -> int | None:
    """Parameters of each expert that is trained as an adapter; None of whole ones.

    Raises ConfigError for updates that could not share a base.
    """
    experts = experiment.experts
    if experts is None or experts.lora is None:
        return None
    updated = check_lora("experts", experts.base, experts.lora)
    if updated.peft_config[updated.active_adapter].target_parameters:
        raise ConfigError(
            f"experts.lora.targets {experts.lora.targets}: of a {updated.config.model_type} model "
            "these are also its gates and experts, whose updates cannot share a base: name linear "
            "layers, such as [q_proj, k_proj, v_proj, o_proj]"
        )
    return sum(p.numel() for p in updated.parameters() if p.requires_grad)


def tokenizer_folder(experiment: Experiment) -> str:
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
    lines = []
    for key, student in _students(experiment).items():
        own = check_language_student(key, student, tokenizer, experiment)
        name = key.replace("baselines.", "baseline ").removesuffix(".student")
        if key == "student":
            solved = partial(solve_language, student, num_ids(load_tokenizer(own)))
            student = as_begun(student, RunFolder(experiment.output).fit, solved)
        lines.append((name, *_line(student, own)))
    return lines


def check_language_student(
    key: str, student: Student, tokenizer: str, experiment: Experiment
) -> str:
    """Raise for a student that cannot be built, or reads other tokens than those of the folder
    ``tokenizer``; returns the folder of its own tokenizer."""
    own = student.tokenizer or (student.init_from or student).path or tokenizer
    check_language_start(student, own, experiment.data.max_length)
    start = (student.init_from or student).path
    if start is not None and experiment.data.packing:
        check_takes_positions(key, described(start))
    if start is not None and student.lora is not None:
        check_lora(key, start, student.lora)
    if not is_same_reading(tokenizer, own):
        raise ConfigError(
            f"{key} has different tokens ({own}) from the student ({tokenizer}), and "
            "perplexities under different tokenizers cannot be compared: use the student's "
            "tokenizer for it"
        )
    return own


def is_same_reading(one: str, other: str) -> bool:
    """Whether both make the same blocks: the same tokens, and the same end of a text."""
    first, second = load_tokenizer(one), load_tokenizer(other)
    return speak_alike(one, other) and first.eos_token_id == second.eos_token_id


def tokenizer_lines(languages: Languages) -> list[Line]:
    """Values for ``teachers.<name>.tokenizer_sha256``, each once."""
    names: dict[str, list[str]] = {}
    for name, info in languages.teachers.items():
        names.setdefault(info.tokenizer_sha256, []).append(name)
    return [Line("tokenizer", sha256, f"sha256; {', '.join(of)}") for sha256, of in names.items()]


def gate_lines(experiment: Experiment, languages: Languages) -> list[Line]:
    """Which experts run, of each teacher that is a mixture of experts."""
    served = served_models(experiment, languages)
    return [
        gate_line(key.removeprefix("teachers."), serving.moe, info.gates)
        for key, (_, info, serving) in served.items()
        if info.gates is not None
    ]


def template_lines(experiment: Experiment, languages: Languages) -> list[Line]:
    """Warns where teachers with a chat template are shown prompts and completions without it."""
    data = experiment.data
    infos = dict(languages.teachers)
    if languages.base is not None:
        infos["experts.base"] = languages.base
    names = [name for name, info in infos.items() if info.has_chat_template]
    if data.columns.prompt is None or data.prompt_as_chat or not names:
        return []
    told = (
        f"the chat template of {', '.join(names)} is not used: prompts and completions are plain "
        "text; data.prompt_as_chat=true renders them as user and assistant messages"
    )
    return [Line("chat template", told, "unused")]


def block_lines(corpus: Corpus, blocks: Blocks) -> list[Line]:
    size = f"blocks of {blocks.max_length:,} tokens, {blocks.fill:.0%} full"
    lines = [Line("data", counts_of(blocks), size), *source_lines(corpus)]
    if corpus.domain_names:
        lines.append(Line("domains", ", ".join(corpus.domain_names)))
    for what, count in {
        "truncated to data.max_length": blocks.num_truncated,
        "dropped: no target tokens": blocks.num_unlearnable,
        "dropped: empty": corpus.num_dropped,
    }.items():
        if count:
            lines.append(Line("rows", what, f"{count:,}"))
    return lines


def _line(student: Student, tokenizer: str) -> tuple[str, str]:
    if student.path or student.init_from:
        start = student.init_from
        folder = (start.path if start else student.path) or ""
        info = check_language_folder(folder)
        kept = f", {start.layers} of {info.num_layers} layers ({start.keep})" if start else ""
        lora = f", lora of rank {student.lora.rank}" if student.lora else ""
        num_params = info.num_params - (_left_out(start) if start else 0)
        return f"from {folder}{kept}{lora}", _size(num_params, is_whole=student.lora is None)
    size = solve_language(student, num_ids(load_tokenizer(tokenizer)))
    shape = (
        f"{counted(size.layers, 'layer')}, hidden {size.hidden}, "
        f"{counted(size.heads, 'head')}, ffn {size.ffn}"
    )
    return shape, _size(size.num_params) + size.unused


def _left_out(start: InitFrom) -> int:
    """Parameters of the layers that do not stay."""
    _, layers = layers_of(described(start.path))
    kept = kept_layers(start.layers, len(layers), start.keep)
    gone = [layer for i, layer in enumerate(layers) if i not in kept]
    return sum(p.numel() for layer in gone for p in layer.parameters())


def _size(num_params: int, is_whole: bool = True) -> str:
    told = f"{num_params / 1e6:.2f} M parameters, {num_params * 4 / 1e6:.1f} MB"
    if not is_whole:
        return told
    training_mb = num_params * 16 / 1e6  # weights, gradients, AdamW's two moments
    return f"{told} ({training_mb:.0f} MB to train)"
