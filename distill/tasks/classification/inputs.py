"""Checks that data, student and teachers agree: all text, or all features of one width."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from distill.config import Data, Experiment, TfidfBaseline
from distill.data.corpus import Corpus
from distill.data.inputs import open_inputs
from distill.errors import ConfigError, DataError, ModelError, TeacherAnswerError
from distill.models.features import FeatureSpace, feature_space
from distill.models.load import FolderInfo, check_folder
from distill.models.tokenizer import load_fast_tokenizer
from distill.records import keywords_of
from distill.teachers.probability import (
    ProbabilityModel,
    check_columns,
    is_pickle,
    label_names,
    load_pickled,
)

TRIED_ROWS = 2


def space_of(data: Data, corpus: Corpus) -> FeatureSpace | None:
    """The features of a corpus as the student needs them; None for text.

    Raises DataError for an image of another size than the rows.
    """
    if corpus.features is None:
        return None
    info, image = corpus.features, data.image
    shape = None if image is None else (image.height, image.width, image.channels)
    if shape is not None and shape[0] * shape[1] * shape[2] != info.num:
        raise DataError(
            f"data.image is {shape[0]} × {shape[1]} × {shape[2]} numbers, a row has {info.num}: "
            "correct its height, width or channels"
        )
    return feature_space(info.columns, info.mean, info.sd, shape)


def check_kind(experiment: Experiment) -> None:
    """Checks that need no data."""
    students = {"student": experiment.student} | {
        f"baselines.{b.name}.student": b.student
        for b in experiment.baselines
        if not isinstance(b, TfidfBaseline) and b.student is not None
    }
    links = experiment.chain.students if experiment.chain else ()
    students |= {f"chain.students.{index}": link for index, link in enumerate(links)}
    if experiment.data.columns.features is None:
        if experiment.data.image is not None:
            raise ConfigError(
                "data.image needs data.columns.features: set it to the column of pixels"
            )
        for key, student in students.items():
            if student.family in ("mlp", "cnn"):
                raise ConfigError(
                    f"{key}.family is {student.family}, the data is text: use transformer, or "
                    "give data.columns.features"
                )
        return
    if experiment.experts is not None:
        raise ConfigError(
            "experts are fine-tuned from a text encoder, the data is features: list existing "
            "models in teachers (folders, or pickles with predict_proba)"
        )
    if any(isinstance(b, TfidfBaseline) for b in experiment.baselines):
        raise ConfigError(
            "baselines: tfidf reads text, the data is features: remove it, and compare with "
            "labels_only or a teacher"
        )


def read_info(path: str, allow_pickle: bool) -> FolderInfo:
    """What is known of a teacher from its folder or pickle, without loading weights."""
    if not is_pickle(path):
        info = check_folder(path, allow_pickle)
        if not info.num_features:
            load_fast_tokenizer(path)  # a teacher reads its own tokens
        return info
    return FolderInfo(
        label_names=label_names(load_pickled(path, allow_pickle), path),
        num_params=0,
        vocab_size=0,
        max_positions=sys.maxsize,
        hidden=0,
        model_type="predict_proba",
        num_layers=0,
        has_classifier_head=True,
    )


def check_teachers(experiment: Experiment, corpus: Corpus, infos: Mapping[str, FolderInfo]) -> None:
    """Raise unless every existing teacher can read the rows."""
    for teacher in experiment.teachers:
        info = infos[teacher.name]
        if teacher.offload_idle_s is not None and is_pickle(teacher.path):
            raise ConfigError(
                f"teachers.{teacher.name}.offload_idle_s: {teacher.path} is an object with "
                "predict_proba, which has nothing on a GPU: remove offload_idle_s"
            )
        check_reader(f"teachers.{teacher.name}", teacher.path, teacher.allow_pickle, info, corpus)


def check_reader(key: str, path: str, allow_pickle: bool, info: FolderInfo, corpus: Corpus) -> None:
    """Raise unless an existing teacher or router can read the rows; an object with predict_proba is
    called with two."""
    num = 0 if corpus.features is None else corpus.features.num
    if is_pickle(path):
        _try_out(key, load_pickled(path, allow_pickle), corpus, path)
    elif info.num_features != num:
        reads = {n: f"{n} features" if n else "text" for n in (info.num_features, num)}
        raise ModelError(
            f"{key}: {path} reads {reads[info.num_features]}, the data is {reads[num]}: give "
            "another folder, or other data.columns"
        )


def _try_out(key: str, model: object, corpus: Corpus, path: str) -> None:
    if corpus.features is not None:
        check_columns(model, f"{key}: {path}", corpus.features.columns, corpus.features.num)
    try:
        rows = open_inputs(corpus, Path(path), 0).padded(corpus.rows("train")[:TRIED_ROWS])
        answer = ProbabilityModel(model)(**keywords_of(rows))
    except TeacherAnswerError as error:
        kind = "text" if corpus.features is None else f"{corpus.features.num} features"
        raise ModelError(f"{key}: {path} cannot predict rows of {kind}: {error}") from None
    names = label_names(model, path)
    if answer.logits.shape[1] != len(names):
        raise ModelError(
            f"{key}: predict_proba of {path} has {answer.logits.shape[1]} columns, its classes_ "
            f"names {len(names)}: the numbers must be equal"
        )
