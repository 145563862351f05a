"""A student's answers for every row of a file: what ``distill predict`` does, without Ray.

Of a classifier the label and the probabilities, of a language model generated text. The rows keep
their order and their columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from distill.data.source import find_files
from distill.data.tables import (
    Content,
    check_ending,
    joined,
    read_content,
    with_columns,
    write_content,
)
from distill.errors import InputError, RunFolderError
from distill.export.kinds import kind_of
from distill.export.locate import Located, locate
from distill.export.request import ExportProgress, PredictionRequest, PredictionSource

OPTIONS = {
    "data.columns.text_pair": "--pair-column",
    "data.columns.text": "--text-column",
    "data.columns.prompt": "--prompt-column",
    "data.columns.messages": "--messages-column",
    "data.columns.tools": "--tools-column",
    "data.path": "--data",
}
"""Keys of a configuration, and the options of this command that replace them."""


@dataclass(frozen=True, eq=False)
class PredictionResult:
    """The rows of the file, and what the student answers."""

    student: Path
    content: Content
    added: dict[str, list[Any]]
    """New columns by name, a value for each row."""
    notes: tuple[str, ...] = ()
    """Counted decisions, such as truncated rows."""

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.added.values())))

    @cached_property
    def table(self) -> pa.Table:
        """The file's columns and, behind them, the new ones."""
        return with_columns(self.content, self.added)

    def write(self, out: str | Path) -> Path:
        """By the ending of ``out``: .parquet, .arrow, .jsonl or .csv; atomically."""
        return write_content(self.content, self.added, out)


def check_out(out: str | Path, overwrite: bool) -> None:
    """Before anything is computed. Raises RunFolderError for a file that exists already."""
    check_ending(out)
    if Path(out).is_dir():
        raise RunFolderError(f"--out {out} is a folder: give a file")
    if Path(out).exists() and not overwrite:
        raise RunFolderError(f"--out {out} already exists: give another file, or add --overwrite")


def predict(request: PredictionRequest, progress: ExportProgress) -> PredictionResult:
    """Every row's prediction. Columns are the run's, as far as ``request.columns`` names no others;
    a label is not needed.

    Raises InputError for a student, file or column that cannot be used, and for a column that is
    called like one of the new ones.
    """
    student = locate(request.student)
    try:
        return _predict(student, request, progress)
    except InputError as error:
        raise type(error)(_as_options(str(error))) from None


def _predict(
    student: Located, request: PredictionRequest, progress: ExportProgress
) -> PredictionResult:
    files = find_files(request.data)
    kind = kind_of(student.folder)
    columns = kind.columns(student, request.columns, files[0])
    progress.say("reading the data")
    content = joined([read_content(file) for file in files])
    answered = kind.predict(student, PredictionSource(files, columns, content), request, progress)
    for note in answered.notes:
        progress.say(note)
    return PredictionResult(student.folder, content, *answered)


def _as_options(message: str) -> str:
    for key, option in OPTIONS.items():
        message = message.replace(key, option)
    return message
