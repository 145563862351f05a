"""Which split a data file is in, by the words of its path below ``data.path``.

The words are the split keywords of Hugging Face ``datasets``, so that a data set is read as its
owner split it. They are searched in folder names (the innermost first), then in the file's name;
test.csv in a folder named train is refused. They apply only where some file is named as train: a
single file, or a folder of parts, has no split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from distill.config import SPLITS, Data, Holdout, SplitNames
from distill.data.source import File
from distill.errors import DataError

KEYWORDS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "transfer": ("transfer", "unsupervised", "unlabeled", "unlabelled"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
TRAINED = ("train", "transfer")
HELD_OUT = ("validation", "test")


def assign_splits(files: list[File], data: Data) -> list[File]:
    """The files, each with the split in its name, or None for all of them.

    A column of splits (``data.columns.split``) wins: then only folders of a saved DatasetDict,
    which may lack that column, are assigned. Values of ``data.splits`` are searched before the
    keywords. Raises DataError for a name with two splits, and for one without any where other files
    have one.
    """
    is_saved = any(file.split is not None for file in files)
    if data.columns.split is not None and not is_saved:
        return files
    # A file that is named by itself has no path below ``data.path``.
    names = [file.split or file.below for file in files]
    if not is_saved and not any("train" in _named_in(n, data.splits).splits for n in names):
        return files
    splits = [split_in(name, data.splits, file) for name, file in zip(names, files, strict=True)]
    if None in splits:
        named = [file for file, split in zip(files, splits, strict=True) if split is not None]
        raise _unnamed(files[splits.index(None)], named)
    return [replace(file, split=split) for file, split in zip(files, splits, strict=True)]


def split_in(path: str, names: SplitNames, file: File) -> str | None:
    """The split that a relative ``path`` names; None where it names none.

    Raises DataError where it names two, or where test.csv is in a folder named train.
    """
    named = _named_in(path, names)
    if len(named.splits) > 1:
        raise DataError(
            f"data.path: {named.part!r} in the path {file.uri} names two splits, "
            f"{' and '.join(named.splits)}: rename it, or set the one that is meant, such as "
            f"data.splits.{named.splits[0]}={_stem(named.part)}"
        )
    if not named.splits:
        return None
    (split,) = named.splits
    if named.is_folder and named.is_keyword and split in TRAINED:
        _check_held_out(path.rpartition("/")[2], named.part, split, file)
    return split


def num_held_out(files: Iterable[File], names: SplitNames) -> int:
    """How many of the files are named validation or test, and not train too."""
    found = [_named_in(file.below, names).splits for file in files]
    return sum(bool(splits) and set(splits) <= set(HELD_OUT) for splits in found)


class _Named(NamedTuple):
    """What names splits in a path."""

    part: str
    """A folder, or the file's name."""
    splits: list[str]
    """More than one is a fault; [] where nothing names one."""
    is_folder: bool
    is_keyword: bool
    """Else it is a value of ``data.splits``."""


def _named_in(path: str, names: SplitNames) -> _Named:
    *folders, last = path.split("/")
    given = {s: (getattr(names, s),) for s in SPLITS if getattr(names, s) != s}
    for words in (given, KEYWORDS):
        for i, part in enumerate([*reversed(folders), last]):
            found = [split for split, these in words.items() if _has_word(part, these)]
            if found == ["train", "transfer"]:  # train-unlabeled: train rows, without labels
                found = ["transfer"]
            if found:
                return _Named(part, found, i < len(folders), words is KEYWORDS)
    return _Named(last, [], False, False)


def _check_held_out(name: str, folder: str, trained: str, file: File) -> None:
    """Raises DataError for test.csv in a folder named train: it would be trained on."""
    for split in HELD_OUT:
        if _has_word(name, KEYWORDS[split]):
            stem = _stem(name)
            # A value that is the split's own name is no other word for it.
            way_out = "" if stem == split else f", or set data.splits.{split}={stem}"
            raise DataError(
                f"data.path: {file.uri} has the split {split} in its name, but its folder "
                f"{folder!r} has {trained}: rename the wrong one{way_out}"
            )


def remaining_holdout(data: Data, files: Iterable[File]) -> Holdout:
    """What is still cut from train: the fractions of the splits that no file gives.

    Raises DataError for a fraction that the configuration gives together with a file for its split.
    """
    given: dict[str, File] = {}
    for file in files:
        if file.split not in (None, "train"):
            given.setdefault(file.split, file)
    cut = data.holdout
    for split in given_fractions(cut):
        if split in given:
            raise DataError(
                f"data.holdout.{split} is {getattr(cut, split)}, and {given[split].uri} is the "
                f"{split} split: remove data.holdout.{split}, or name the files to be read in "
                "data.path, without that one"
            )
    left = cut.model_copy(update=dict.fromkeys(given, 0.0))
    if left.transfer + left.validation + left.test >= 1:
        raise DataError(
            "data.holdout leaves no train rows: transfer + validation + test must be below 1, "
            f"got {left.transfer} + {left.validation} + {left.test}"
        )
    return left


def given_fractions(holdout: Holdout) -> list[str]:
    """Splits whose fraction the configuration sets."""
    # A saved configuration, such as that of a run folder, sets all fields.
    is_whole = holdout.model_fields_set == set(Holdout.model_fields)
    return [
        split
        for split in SPLITS[1:]
        if split in holdout.model_fields_set
        and getattr(holdout, split) > 0
        and not (is_whole and getattr(holdout, split) == Holdout.model_fields[split].default)
    ]


def _has_word(name: str, words: Iterable[str]) -> bool:
    """Whether one of them occurs with no letter before or after it, in either case."""
    return any(
        re.search(rf"(?<![^\W\d_]){re.escape(word)}(?![^\W\d_])", name, re.IGNORECASE)
        for word in words
    )


def _unnamed(file: File, named: list[File]) -> DataError:
    if file.split is not None:
        known = "; ".join(f"{split}: {', '.join(words)}" for split, words in KEYWORDS.items())
        return DataError(
            f"data.path: the split of {file.uri} is {file.split!r}, which is not a known name "
            f"({known}): set its split, such as data.splits.validation={file.split}"
        )
    others = f", as {named[0].uri} has" if named else ""
    return DataError(
        f"data.path: {file.uri} has no split in its name{others}: rename it, set a word of its "
        f"name in data.splits, such as data.splits.test={_stem(file.below)}, or leave it out by "
        "listing the files to read in data.path"
    )


def _stem(path: str) -> str:
    return path.rpartition("/")[2].split(".")[0]
