"""The rows that an evaluation reads: by its options, else by the columns of the student's run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from distill.config import SPLITS, Columns, Data, Experiment, SplitNames
from distill.data.source import File, column_names, columns_shown, find_files
from distill.data.split_names import split_in
from distill.errors import ConfigError, DataError, InputError
from distill.models.load import check_folder, read_config

TEXT_COLUMNS = ("text", "code")
CODE = "code"


@dataclass(frozen=True)
class EvaluationSource:
    """Labelled rows in a file. A column that is None is the run's, where the student is of one;
    "" leaves the pair, domain or split out."""

    path: str
    text_column: str | None = None
    """None without a run: ``text``, else ``code``; a student of features knows its own."""
    pair_column: str | None = None
    label_column: str | None = None
    """None without a run: ``label``."""
    domain_column: str | None = None
    split_column: str | None = None
    split: str | None = None
    """The value of ``split_column`` that is read; None: the run's name of test, else ``test``."""
    language: str | None = None
    """c, cpp, java, python or text; None: text, unless the column is called code."""


@dataclass(frozen=True)
class EvaluationData:
    """What is read, and what a person should know of it."""

    data: Data
    notes: tuple[str, ...]


OPTIONS = {
    "text": "--text-column",
    "text_pair": "--pair-column",
    "label": "--label-column",
    "domain": "--domain-column",
    "split": "--split-column",
}
"""Of each column of ``data.columns`` the option that names it."""
KINDS = {"text": "text", "text_pair": "second text", "label": "label", "domain": "domain"}


def check_split(source: EvaluationSource, run: Experiment | None) -> None:
    """Raises ConfigError for a split without the column that names it."""
    has_column = run is not None and run.data.columns.split is not None
    given = source.split_column
    if source.split is not None and not (has_column if given is None else given):
        raise ConfigError(
            f"--split {source.split} needs --split-column, the column with the names of the "
            "splits: add it, or give only the files of that split with --data"
        )


def reading_of(
    source: EvaluationSource,
    student: str,
    num_features: int,
    run: Experiment | None,
    run_path: str = "",
) -> EvaluationData:
    """The columns of ``source``: its own, those of ``run``, or the defaults.

    ``num_features``: 0 for a student of texts. Raises ConfigError or DataError where one is not in
    the file, or cannot be combined with the student.
    """
    files = find_files(source.path)
    if not column_names(files[0]):
        raise DataError(f"{source.path} has no data: give a file with labelled rows")
    own = None if run is None else run.data.columns
    notes: list[str] = []
    split = _either(source.split_column, own and own.split)
    if source.split_column is None and split is not None and split not in column_names(files[0]):
        if source.split is not None:
            raise DataError(
                f"--split {source.split}: {source.path} has no split column {split!r}: "
                f"{columns_shown(files[0])}: give it with --split-column, or remove --split"
            )
        notes.append(f"all rows of {source.path} are measured: it has no split column {split!r}")
        split = None
    names: dict[str, str | None] = {
        "label": source.label_column or (own.label if own else "label"),
        "domain": _either(source.domain_column, own and own.domain),
        "split": split,
    }
    if num_features:
        features = _features(source, student, own)
        _check_features(features, source, student, files[0])
        chosen: dict[str, object] = {"features": features[0] if len(features) == 1 else features}
    else:
        names["text"] = source.text_column or (own.text if own else None) or _text_column(files[0])
        names["text_pair"] = _either(source.pair_column, own and own.text_pair)
        _check_pair(student, names["text_pair"])
        chosen = {}
    if own is not None:
        _check_columns_of_run(source, names, files[0], run_path)
    rules: dict[str, object] = {}
    if run is not None:  # how it reads empty texts, and where data is cached
        rules = {"on_empty_text": run.data.on_empty_text, "cache_dir": run.data.cache_dir}
    test_split = source.split
    if test_split is None and run is not None and own is not None and split == own.split:
        test_split = run.data.splits.test
    splits = SplitNames(test=test_split or "test")
    data = Data.model_validate(
        {"path": source.path, "columns": {**names, **chosen}, "splits": splits, **rules}
    )
    if split is not None:
        notes.append(f"rows of split {splits.test!r} (column {split}) are measured")
    else:
        notes += filter(None, [pooled_splits(source), run and _trained_on(files, run)])
    return EvaluationData(data, tuple(notes))


def _check_features(
    features: Sequence[str], source: EvaluationSource, student: str, file: File
) -> None:
    missing = [n for n in features if n not in column_names(file)]
    if missing:
        raise DataError(
            f"{source.path} has no column {missing[0]!r}, which {student} reads: "
            f"{columns_shown(file)}: give a file with all of its features"
        )


def _either(given: str | None, own: str | None) -> str | None:
    """ "" leaves it out."""
    return own if given is None else given or None


def _check_columns_of_run(
    source: EvaluationSource, names: dict[str, str | None], file: File, run_path: str
) -> None:
    """Raises DataError for columns that no option names, and that the file does not have."""
    given = {
        "text": source.text_column,
        "text_pair": source.pair_column,
        "label": source.label_column,
        "domain": source.domain_column,
    }
    there = column_names(file)
    absent = [
        key
        for key, option in given.items()
        if option is None and names.get(key) is not None and names[key] not in there
    ]
    if not absent:
        return
    shown = ", ".join(f"{names[key]!r} ({KINDS[key]})" for key in absent)
    way_out = f"name its own by {', '.join(OPTIONS[key] for key in absent)}"
    if "domain" in absent:
        way_out += f"; {OPTIONS['domain']} '' leaves the domains out"
    raise DataError(
        f"{source.path} lacks columns of {run_path}: {shown}; {columns_shown(file)}: {way_out}"
    )


def _features(source: EvaluationSource, student: str, own: Columns | None) -> tuple[str, ...]:
    """Of the run, which may have renamed them; else as the exported model names them."""
    if named := source.text_column or source.pair_column:
        raise ConfigError(
            f"a column with text is named ({named}), {student} reads features: leave it out"
        )
    if own is not None and own.features is not None:
        return (own.features,) if isinstance(own.features, str) else own.features
    return tuple(getattr(read_config(student), "columns", ()))


def _check_pair(student: str, pair_column: str | None) -> None:
    """A model that was trained on pairs also accepts single texts, but its output means nothing."""
    reading = check_folder(student).reading
    if reading is None or reading.is_pair == (pair_column is not None):
        return
    if reading.is_pair:
        raise ConfigError(
            f"{student} was trained on pairs of texts: give the column of the second text with "
            "--pair-column"
        )
    raise ConfigError(
        f"--pair-column {pair_column}: {student} was trained on single texts: remove the option"
    )


def _text_column(file: File) -> str:
    names = column_names(file)
    for name in TEXT_COLUMNS:
        if name in names:
            return name
    raise DataError(
        f"{file.uri} has no column {' or '.join(TEXT_COLUMNS)}: {columns_shown(file)}: give the "
        "text column with --text-column"
    )


def pooled_splits(source: EvaluationSource) -> str | None:
    """A message where files named as several splits are measured as one; else None."""
    if source.split_column:
        return None
    named = {split for _, split in _named_splits(find_files(source.path))}
    splits = [split for split in SPLITS if split in named]
    if len(splits) < 2:
        return None
    return (
        f"the rows of all files are measured, those of {' and '.join(splits)}: to measure one "
        "split, give only its files with --data"
    )


def _trained_on(files: Sequence[File], run: Experiment) -> str | None:
    """A message where the run was trained on rows of these files; None too where its data is gone.

    Files that the run's data names as test are none of them.
    """
    theirs: list[File] = []
    with suppress(InputError):
        theirs = find_files(run.data.path)
    splits = dict(_named_splits(theirs))
    trained = {f"{f.filesystem.type_name}:{f.path}" for f in theirs if splits.get(f.uri) != "test"}
    again = [file.uri for file in files if f"{file.filesystem.type_name}:{file.path}" in trained]
    if not again:
        return None
    return (
        f"{again[0]} is data that the run was trained on, so the metrics are too high: give a file "
        "with rows that neither the student nor its teachers were trained on"
    )


def _named_splits(files: Sequence[File]) -> Iterator[tuple[str, str | None]]:
    """Of each file its address, and the split that its name or folder gives."""
    for file in files:
        with suppress(DataError):  # a name with two splits
            yield file.uri, split_in(file.split or file.below, SplitNames(), file)


def as_options(message: str) -> str:
    """A message on keys of an experiment, in the names of this command."""
    keys = {f"data.columns.{key}": option for key, option in OPTIONS.items()}
    keys |= {"data.splits.test": "--split", "data.path": "--data"}
    for key in sorted(keys, key=len, reverse=True):  # text_pair before text
        message = message.replace(key, keys[key])
    return message
