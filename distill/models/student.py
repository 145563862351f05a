"""Building the student: from dimensions, from a folder, or from an encoder's first layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distill.config import Student
from distill.errors import ConfigError, ModelError
from distill.models.features import FeatureSpace, build_classifier
from distill.models.labels import Classes, Outputs, columns_of
from distill.models.load import (
    FolderInfo,
    check_folder,
    load_base_for_classification,
    load_classifier,
    seeded,
    set_labels,
)
from distill.models.sizes import TYPE_VOCAB_SIZE, solve, solve_features
from distill.models.tokenizer import load_tokenizer, retrain


def build_student(
    student: Student,
    tokenizer_folder: str | Path,
    label_names: Sequence[str],
    max_length: int,
    seed: int,
) -> PreTrainedModel:
    """The student before training, float32 on the CPU, in eval mode.

    A function of its arguments: new weights depend on ``seed`` alone, and no global random state
    is read or changed. ``max_length``: tokens of the longest row, the student's positions.
    Raises ModelError when a folder to start from does not fit the tokenizer, labels or lengths.
    """
    if student.family in ("mlp", "cnn"):
        raise ConfigError(
            f"student.family is {student.family}, but the data is text: use transformer, or give "
            "data.columns.features"
        )
    check_start(student, tokenizer_folder, label_names, max_length)
    if student.path is not None:
        return _continued(student.path, label_names, student.dropout)
    if student.init_from is not None:
        start = student.init_from
        return load_base_for_classification(
            start.path, label_names, seed, layers=start.layers, dropout=student.dropout
        )
    tokenizer = load_tokenizer(tokenizer_folder)
    dimensions = solve(student, len(tokenizer), len(label_names), max_length)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dimensions.hidden,
        num_hidden_layers=dimensions.layers,
        num_attention_heads=dimensions.heads,
        intermediate_size=dimensions.ffn,
        max_position_embeddings=max_length,
        type_vocab_size=TYPE_VOCAB_SIZE,
        hidden_dropout_prob=student.dropout,
        attention_probs_dropout_prob=student.dropout,
        pad_token_id=tokenizer.pad_token_id,  # type: ignore[arg-type] (None: no padding token)
    )
    set_labels(config, label_names)
    with seeded(seed):
        return BertForSequenceClassification(config).eval()


def build_feature_student(
    student: Student, space: FeatureSpace, label_names: Sequence[str], seed: int
) -> PreTrainedModel:
    """The student of features before training, as :func:`build_student`.

    One that starts from a folder keeps the standardisation that it was trained with.
    """
    check_feature_start(student, space, label_names)
    if student.path is not None:
        return _continued(student.path, label_names, student.dropout)
    size = solve_features(student, space, len(label_names))
    with seeded(seed):
        return build_classifier(
            size.family,
            space,
            label_names,
            layers=size.layers,
            hidden=size.hidden,
            dropout=student.dropout,
        )


def student_tokenizer(
    student: Student,
    default_folder: str | Path,
    texts: Callable[[], Iterator[str]],
    out_folder: str | Path,
) -> Path:
    """Save the student's tokenizer into ``out_folder``, and return that.

    It is that of the folder the student starts from; else ``student.tokenizer``; else the one in
    ``default_folder``. With ``student.vocab_size`` the last two are retrained on ``texts`` to at
    most that many tokens; few texts can give fewer, which is logged. The same texts in the same
    order always give the same tokens.
    """
    out_folder = Path(out_folder)
    key, start = _start(student)
    if start is not None:
        tokenizer = load_tokenizer(start)
        if student.vocab_size is not None:
            raise ConfigError(
                f"student.vocab_size {student.vocab_size} would discard the embeddings of {key}: "
                "remove one of the two"
            )
        if student.tokenizer is not None:
            other = load_tokenizer(student.tokenizer)
            if other.get_vocab() != tokenizer.get_vocab():
                raise ConfigError(
                    f"student.tokenizer {student.tokenizer} has different tokens from the "
                    f"embeddings of {key} {start}: remove student.tokenizer"
                )
    else:
        tokenizer = load_tokenizer(student.tokenizer or default_folder)
        if student.vocab_size is not None:
            tokenizer = retrain(tokenizer, texts, student.vocab_size)
    tokenizer.save_pretrained(out_folder)
    return out_folder


def _continued(folder: str, label_names: Sequence[str], dropout: float) -> PreTrainedModel:
    """The folder's classifier, whose outputs may be called LABEL_i, under the run's names."""
    model = load_classifier(folder, dropout=dropout)
    names: Any = model.config.id2label
    if list(names.values()) != list(label_names):
        set_labels(model.config, label_names)
    return model


def check_start(
    student: Student,
    tokenizer_folder: str | Path,
    label_names: Sequence[str],
    max_length: int,
    is_order_given: bool = True,
) -> None:
    """Raise ModelError unless the folder that the student starts from, if any, fits the rest.

    ``is_order_given``: that of ``label_names``, by a person; see distill/models/labels.py.
    """
    if student.path is not None:
        info = check_folder(student.path)
        tokenizer = load_tokenizer(tokenizer_folder)
        _check_fit(info, "student.path", student.path, tokenizer, max_length)
        _check_labels(info, student.path, label_names, is_order_given)
    if student.init_from is not None:
        start = student.init_from
        info = check_folder(start.path)
        tokenizer = load_tokenizer(tokenizer_folder)
        _check_fit(info, "student.init_from.path", start.path, tokenizer, max_length)
        if start.layers > info.num_layers:
            raise ModelError(
                f"student.init_from.layers {start.layers} is more than the {info.num_layers} "
                f"layers of {start.path}: use fewer"
            )


def check_feature_start(
    student: Student, space: FeatureSpace, label_names: Sequence[str], is_order_given: bool = True
) -> None:
    """Raise ModelError unless the folder that the student starts from, if any, fits the data."""
    if student.path is None:
        return
    info = check_folder(student.path)
    if info.num_features != space.num:
        text = f"{info.num_features} features" if info.num_features else "text"
        raise ModelError(
            f"student.path {student.path} takes {text}, the data have {space.num} features: give "
            "another folder, or remove student.path"
        )
    _check_labels(info, student.path, label_names, is_order_given)


def _check_labels(
    info: FolderInfo, folder: str, label_names: Sequence[str], is_order_given: bool
) -> None:
    """Output i must be class i: the head is trained on as it is."""
    if not info.has_classifier_head:
        return
    outputs = Outputs(f"student.path {folder}", info.label_names)
    try:
        columns = columns_of(outputs, Classes("the data", tuple(label_names), is_order_given))
    except ModelError:
        columns = ()
    if columns is None:
        return
    way_out = ""
    if columns:
        way_out = "set data.labels to the former, or "
    elif len(info.label_names) == len(label_names) and not is_order_given:
        way_out = "set data.labels in the order of its classes, or "
    raise ModelError(
        f"student.path {folder} has the labels {list(info.label_names)}, the data "
        f"{list(label_names)}: {way_out}start from only its encoder with student.init_from"
    )


def _start(student: Student) -> tuple[str, str | None]:
    """The folder that the student's embeddings come from, and its key."""
    if student.init_from is not None:
        return "student.init_from.path", student.init_from.path
    return "student.path", student.path


def _check_fit(
    info: FolderInfo, key: str, folder: str, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> None:
    if info.vocab_size != len(tokenizer):
        raise ModelError(
            f"{key} {folder} has embeddings for {info.vocab_size} tokens, the student's tokenizer "
            f"has {len(tokenizer)}: use the tokenizer that the model was trained with"
        )
    if max_length > info.max_positions:
        raise ModelError(
            f"data.max_length {max_length} is more than the {info.max_positions} positions of "
            f"{key} {folder}: lower it"
        )
