"""An exported student on any labelled file: what ``distill evaluate`` reports."""

from __future__ import annotations

from pathlib import Path

from distill.config import Columns, Data
from distill.data.batches import Batches
from distill.data.corpus import build_corpus
from distill.data.inputs import open_inputs
from distill.data.source import column_names, find_files
from distill.errors import ConfigError, DataError, ModelError
from distill.evaluation.efficiency import folder_size_mb, measure
from distill.evaluation.predict import confusion, predict
from distill.models.load import FolderInfo, check_folder, load_classifier, read_config
from distill.module import DistillModule

BATCH = 64
TEXT_COLUMNS = ("text", "code")


def evaluate_folder(
    student: str | Path,
    data: str,
    text_column: str | None = None,
    label_column: str = "label",
    max_length: int | None = None,
    pair_column: str | None = None,
) -> dict[str, float]:
    """Stable metric names: ``test.*`` over every row of ``data``, and what the student costs.

    Labels are matched by name with the student's, and a student of features names its columns
    itself. Texts are cut as in training (``data.max_length``, ``data.cut``) where the export says
    so; ``max_length`` replaces the length. Raises InputError for a folder, column or label that
    cannot be used.
    """
    info = check_folder(student)
    if not info.has_classifier_head:
        raise ModelError(f"{student} has no classification head: give an exported student")
    if info.num_features:
        columns = _feature_columns(student, text_column or pair_column, label_column)
        length = 1
    else:
        _check_pair(student, info, pair_column)
        length = _length(student, info, max_length)
        text = text_column or _text_column(data)
        columns = Columns(text=text, text_pair=pair_column, label=label_column)
    corpus = build_corpus(Data(path=data, columns=columns), labels=info.label_names, only="test")
    if corpus.features is not None and corpus.features.num != info.num_features:
        raise DataError(
            f"{data} has {corpus.features.num} features in {', '.join(corpus.features.columns)}, "
            f"{student} was trained on {info.num_features}: give data of the same kind"
        )
    inputs = open_inputs(corpus, student, length, info.reading.cut if info.reading else "head")
    model = load_classifier(student)
    rows = corpus.rows("test")
    batches = Batches(inputs, rows, BATCH, seed=0, shuffle=False)
    predicted = predict(DistillModule(model).eval(), batches)
    quality = confusion(corpus.labels_of(rows), predicted.student_R, len(info.label_names))
    cost = measure(model, length)
    return {
        **{f"test.{name}": value for name, value in quality.metrics().items()},
        "test.rows": float(len(rows)),
        "test.truncated_rows": float(inputs.num_truncated),
        "student.params": float(cost.params),
        "student.size_mb": folder_size_mb(student),
        "student.latency_ms": cost.latency_ms,
        "student.gflops": cost.gflops,
    }


def _feature_columns(student: str | Path, named: str | None, label_column: str) -> Columns:
    if named is not None:
        raise ConfigError(
            f"a column with text is named ({named}), {student} reads features: leave it out"
        )
    names: list[str] = list(getattr(read_config(student), "columns", ()))
    features = names[0] if len(names) == 1 else tuple(names)
    return Columns.model_validate({"features": features, "label": label_column})


def _check_pair(student: str | Path, info: FolderInfo, pair_column: str | None) -> None:
    """One that was trained on pairs answers about single texts too, but nonsense."""
    if info.reading is None or info.reading.is_pair == (pair_column is not None):
        return
    if info.reading.is_pair:
        raise ConfigError(
            f"{student} was trained on pairs of texts: name the column with the second one by "
            "--pair-column"
        )
    raise ConfigError(
        f"--pair-column {pair_column}: {student} was trained on single texts: leave it out"
    )


def _length(student: str | Path, info: FolderInfo, max_length: int | None) -> int:
    trained = info.reading.max_length if info.reading else min(info.max_positions, 512)
    length = max_length or trained
    if length > info.max_positions:
        raise ConfigError(
            f"--max-length {length} is longer than the {info.max_positions} positions of "
            f"{student}: lower it"
        )
    return length


def _text_column(data: str) -> str:
    files = find_files(data)
    names = column_names(files[0])
    for name in TEXT_COLUMNS:
        if name in names:
            return name
    raise DataError(
        f"{data} has no column {' or '.join(TEXT_COLUMNS)}, it has {', '.join(names)}: name the "
        "one with the text by --text-column"
    )
