"""Folders of language models: what is known of them without weights, and whether they fit
together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distill.config import Experiment, Lora, Serving
from distill.config.search_space import Choice, Grid, Quantised
from distill.errors import ConfigError
from distill.models.adapter import AdapterInfo, check_adapter, read_adapter
from distill.models.language import LanguageInfo, check_language_folder
from distill.models.language_student import with_lora
from distill.models.packed import check_takes_positions
from distill.models.plain_head import described, has_plain_head
from distill.models.vocabulary import (
    WAY_OUT,
    check_tokenizer_sha256,
    same_tokenizer,
    same_vocabulary,
)
from distill.sampling import Generated
from distill.tasks.checks.temperature import check_wire
from distill.tasks.language_model.moe import check_moe, check_passes
from distill.tasks.language_model.tokenizers import Served
from distill.wires import WireFormat
from distill.wires.legality import check_mixing


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


def check_languages(experiment: Experiment, languages: Languages) -> None:
    """Raise unless vocabularies, positions and wires fit together."""
    way_out, sampling = WAY_OUT, experiment.sampling
    if isinstance(sampling, Generated):
        way_out = (
            f"sampling.type {sampling.type} sends the student's tokens to the teacher: use a "
            "teacher with the student's tokenizer"
        )
    for key, (folder, info, serving) in served_models(experiment, languages).items():
        if not experiment.objective.crosses_tokenizers:
            same_vocabulary(languages.tokenizer, folder, sys.maxsize, info.vocab_size, way_out)
        # Of one in other tokens its own longest sequence matters: see tokenizers.py.
        # Only an objective that crosses tokenizers sends a teacher tokens of its own.
        shares_tokenizer = not experiment.objective.crosses_tokenizers
        if key == "experts.base" or shares_tokenizer or same_tokenizer(languages.tokenizer, folder):
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
    check_wires(experiment)


def check_wires(experiment: Experiment) -> None:
    """Raise unless the wires carry what objective and temperature need."""
    check_passes(experiment)
    found = dict(wires(experiment))
    for key, wire in found.items():
        check_wire(experiment, key, wire)
    if found:
        all_wires = [*found.values()] * (2 if experiment.experts else 1)
        check_mixing(experiment.aggregation, all_wires, experiment.objective)


def wires(experiment: Experiment) -> Iterator[tuple[str, WireFormat]]:
    """Of the teachers and the experts, by key."""
    served: dict[str, Serving] = {f"teachers.{t.name}": t for t in experiment.teachers}
    if experiment.experts is not None:
        served["experts.base"] = experiment.experts.serving
    for key, serving in served.items():
        yield f"{key}.wire", wire_of(serving)


def wire_of(serving: Serving) -> WireFormat:
    """With its defaults for language models."""
    return serving.wire.resolved(True, serving.dtype)


def check_range_of_temperatures(experiment: Experiment) -> None:
    """A range holds more temperatures than its ends, at which :func:`trial_check` looks."""
    domain = experiment.search.space.get("kd.temperature") if experiment.search else None
    if domain is None or isinstance(domain, Grid | Choice):
        return
    for key, wire in wires(experiment):
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
