"""What ``distill predict`` is given, and how its files are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import pyarrow as pa
import torch

from distill.config import Columns, Device
from distill.data.file_format import Kept
from distill.data.source import File, column_names, listed, read_batches
from distill.data.tables import Content, names_in
from distill.errors import ConfigError, DataError

T = TypeVar("T")


class ExportProgress(Protocol):
    def say(self, message: str) -> None: ...
    def update(self, label: str, done: float | None = None, total: float | None = None) -> None: ...


@dataclass(frozen=True)
class ColumnOptions:
    """Columns that replace those of the run's configuration; None: as there."""

    text: str | None = None
    pair: str | None = None
    prompt: str | None = None
    messages: str | None = None
    tools: str | None = None


@dataclass(frozen=True)
class PredictionRequest:
    """What ``distill predict`` is given."""

    student: Path
    """A run, a sweep's trial, or an exported folder."""
    data: str
    """A file, folder, glob or URI of Parquet, Arrow, JSON lines or CSV."""
    columns: ColumnOptions = ColumnOptions()
    max_length: int | None = None
    """Classifiers: tokens kept of a row; None: as in training."""
    max_new_tokens: int = 64
    """Language models: tokens generated for a row at most."""
    batch_size: int | None = None
    """Rows at once; None: 64, of language models 8."""
    device: Device = "auto"
    """auto: the GPU where there is one."""


@dataclass(frozen=True, eq=False)
class PredictionSource:
    """The rows of a request."""

    files: Sequence[File]
    columns: Columns
    """What the student reads."""
    content: Content
    """All columns, which the output repeats."""


class Answered(NamedTuple):
    """What a student answers."""

    added: dict[str, list[Any]]
    """New columns by name, a value for each row."""
    notes: tuple[str, ...] = ()
    """Counted decisions, such as truncated rows."""


def device_of(device: Device) -> torch.device:
    """Raises ConfigError for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ConfigError("--device cuda: there is no GPU that torch can use: set --device cpu")
    return torch.device("cuda" if has_gpu and device != "cpu" else "cpu")


def check_new_columns(new: Sequence[str], content: Content, data: str) -> None:
    """Raises DataError for a name that the data has already."""
    taken = [name for name in new if name in names_in(content)]
    if taken:
        raise DataError(
            f"{data} has a column {taken[0]!r} already, which is the name of a new column: rename "
            "it, or remove it"
        )


def check_options(given: dict[str, str | None], folder: Path, reads: str) -> None:
    """Raises ConfigError for the first option that is given: the student has no such column."""
    for option, value in given.items():
        if value is not None:
            raise ConfigError(f"{option} {value}: {folder} reads {reads}: remove it")


def usual_column(names: Sequence[str], file: File, option: str = "--text-column") -> str:
    """The first of ``names`` that the file has. Raises DataError for a file with none of them."""
    there = column_names(file)
    found = next((name for name in names if name in there), None)
    if found is None:
        raise DataError(
            f"{file.uri} has no column {' or '.join(names)}, it has {listed(there)}: give the text "
            f"column with {option}"
        )
    return found


def batches(
    files: Sequence[File],
    names: tuple[str, ...],
    kept: Kept = Kept(),  # noqa: B008 (immutable)
) -> Iterator[tuple[pa.RecordBatch, File, int]]:
    """Record batches of strings, each with its file and the number of its first row there."""
    for file in files:
        first_row = 1
        for batch in read_batches(file, names, kept):
            if batch.num_rows:
                yield batch, file, first_row
            first_row += batch.num_rows


def some(rows: list[T], files: Sequence[File]) -> list[T]:
    """The rows. Raises DataError for none."""
    if not rows:
        raise DataError(f"data.path: {files[0].uri} has no rows: give a file with rows")
    return rows
