"""The content key of a fit: equal for two jobs whose fits have the same result.

Every field of a job, and of all that it holds, is part of the key, unless :data:`DROPPED` names it:
a field that is added later makes another key by default. Folders of models, tokenizers and corpora
are described by their content, so that the same model elsewhere has the same key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
import transformers
from pydantic import RootModel

import distill
from distill.aggregation import Routed
from distill.config import Serving, Student, Teacher, Trainer
from distill.data.corpus import Corpus
from distill.models.tokenizer import fingerprint_of, load_tokenizer
from distill.models.weights import weights_fingerprint
from distill.run_folder import OPERATIONAL_SERVING
from distill.teachers.probability import file_fingerprint
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.job import Folder, InFolders, Job
from distill.variant import ModelPath, Section

FORMAT = 1
"""Raise it when the same description no longer means the same fit."""

DROPPED: dict[type, frozenset[str]] = {
    Job: frozenset({"name", "folder", "stop_file"}),
    # How outputs travel and where they are kept.
    TeacherSetup: frozenset({"client", "stream", "cache", "cache_folder", "by_content"}),
    # Their content is in the teacher's key.
    ServedTeacher: frozenset({"folder", "adapter", "model"}),
    Teacher: frozenset({"path", "adapter", "tokenizer_sha256"}),
    Serving: frozenset({*OPERATIONAL_SERVING, "allow_pickle"}),
    # The router is one of the served models, with a key of its own.
    Routed: frozenset({"router", "allow_pickle"}),
    # The model's own ``tokenizer`` is the folder that was made of it.
    Student: frozenset({"tokenizer"}),
    Trainer: frozenset({"node_labels", "max_failures", "keep_checkpoints", "checkpoint_every"}),
}
"""Fields that do not change the result, and folders whose content is described elsewhere.

Of a class and its subclasses. What changes no more than the last bits of a sum (ranks, threads,
engine, dtype, micro-batches) is not here: it is part of the key. Of teachers it is as in
teachers/cache.py: threads and batch shapes are not."""

KNOWN_AS: dict[type, tuple[str, dict[str, str]]] = {
    Job: ("Job", {"teacher_setup": "guidance"}),
    TeacherSetup: ("Guidance", {}),
    ServedTeacher: ("TeacherSpec", {"width": "num_labels", "backend": "is_language_model"}),
}
"""Classes, and fields of them, that keep an earlier name in a key."""

KNOWN_BACKENDS: dict[str, Any] = {"classifier": False, "language_model": True}
"""What a key has for these backends of a teacher, which a boolean distinguished."""


def content_key(job: Job, contents: Contents | None = None) -> str:
    """32 hex digits, of :func:`description`."""
    described = json.dumps(description(job, contents), sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:32]


def description(job: Job, contents: Contents | None = None) -> dict[str, Any]:
    """All that determines the result of the fit, as JSON.

    A student with ``size_mb`` is described by its dimensions, which are written to the job's
    folder, as when the fit starts (see models/shape.py).
    """
    contents = Contents() if contents is None else contents
    built = replace(job, model=job.model.in_folder(Path(job.folder)))
    versions = {module.__name__: module.__version__ for module in (distill, torch, transformers)}
    if built.aggregation is not None:
        versions["aggregation"] = str(built.aggregation.version)
    return {"format": FORMAT, "versions": versions, "job": contents.described(built)}


class Contents:
    """Describes values as JSON. A folder is read once: hashing weights takes long."""

    def __init__(self) -> None:
        self._model = cache(_model)
        self._tokenizer = cache(_tokenizer)
        self._corpus = cache(_corpus)
        self._readers: dict[Folder, Callable[[str], Any]] = {
            "model": self._model,
            "tokenizer": self._tokenizer,
            "corpus": self._corpus,
        }

    def described(self, value: Any) -> Any:
        """``value`` as JSON. Raises TypeError for a type that it does not know."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, range | np.ndarray):
            return _digest(np.asarray(value))
        if isinstance(value, list | tuple):
            return [self.described(item) for item in value]
        if isinstance(value, Mapping):
            return {str(key): self.described(item) for key, item in value.items()}
        if isinstance(value, RootModel):  # a list of sections, such as a sum of objectives
            return {"class": type(value).__name__, "root": self.described(value.root)}
        if isinstance(value, Section):
            paths = dict.fromkeys(_model_paths(type(value)), self._model)
            return self._of_fields(value, type(value).model_fields, paths)
        if is_dataclass(value) and not isinstance(value, type):
            names = [f.name for f in fields(value)]
            if not isinstance(value, InFolders):
                return self._of_fields(value, names, {})
            readers = {name: self._readers[kind] for name, kind in value.folders.items()}
            return self._of_fields(value, names, readers) | value.fingerprints()
        raise TypeError(f"unknown content in the key of a fit: {type(value).__name__} {value!r}")

    def _of_fields(
        self, value: Any, names: Iterable[str], folders: Mapping[str, Callable[[str], Any]]
    ) -> dict[str, Any]:
        dropped = {name for of in type(value).__mro__ for name in DROPPED.get(of, ())}
        class_name, field_names = KNOWN_AS.get(type(value), (type(value).__name__, {}))
        found: dict[str, Any] = {"class": class_name}
        for name in names:
            if name not in dropped:
                content, read = getattr(value, name), folders.get(name)
                if read is not None and content:
                    found[field_names.get(name, name)] = read(content)
                else:
                    found[field_names.get(name, name)] = self.described(content)
        if isinstance(value, ServedTeacher):
            found["is_language_model"] = KNOWN_BACKENDS.get(value.backend, value.backend)
        return found


@cache
def _model_paths(section: type[Section]) -> tuple[str, ...]:
    """Fields that name the folder or file of a model."""
    hints = get_type_hints(section, include_extras=True)
    return tuple(name for name in section.model_fields if _names_a_model(hints[name]))


def _names_a_model(annotation: Any) -> bool:
    return annotation == ModelPath or any(map(_names_a_model, get_args(annotation)))


def _digest(values: np.ndarray) -> str:
    """Row ids and labels: a range and an array of the same numbers are equal."""
    values = values.astype(np.int64) if values.dtype.kind in "iu" else values
    head = f"{values.dtype.str} {values.shape} "
    return hashlib.sha256(head.encode() + np.ascontiguousarray(values).tobytes()).hexdigest()


def _model(path: str) -> Any:
    """Weights, configuration and tokenizer of a folder; the bytes of a file."""
    folder = Path(path)
    if folder.is_file():
        return file_fingerprint(folder)
    found = {"weights": weights_fingerprint(folder)}
    generation = folder / "generation_config.json"  # which tokens end a text
    if generation.exists():
        found["generation"] = hashlib.sha256(generation.read_bytes()).hexdigest()
    if (folder / "tokenizer_config.json").exists():
        found["tokenizer"] = _tokenizer(path)
    return found


def _tokenizer(folder: str) -> str:
    """What the tokenizer does, and its special tokens."""
    if Path(folder).is_file():  # a teacher that reads whole texts
        return file_fingerprint(folder)
    tokenizer = load_tokenizer(folder)
    special = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
    behaviour = json.dumps([fingerprint_of(tokenizer), special])
    return hashlib.sha256(behaviour.encode()).hexdigest()


def _corpus(folder: str) -> str:
    return Corpus(Path(folder)).fingerprint
