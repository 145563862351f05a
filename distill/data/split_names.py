"""Which split a data file is in, by the words of its path below ``data.path``.

The words are the split keywords of Hugging Face ``datasets``, so that a data set is read as its
owner split it. They are looked for in folder names (the innermost first), then in the file's name,
and only where some file is named as train: a lone file, or a folder of parts, has no split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from distill.config import SPLITS, Data, Holdout, SplitNames
from distill.data.source import File
from distill.errors import DataError

KEYWORDS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "transfer": ("transfer", "unsupervised", "unlabeled", "unlabelled"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def assign_splits(files: list[File], data: Data) -> list[File]:
    """The files, each with the split that its name says, or None for all of them.

    A column of splits (``data.columns.split``) wins: then only folders of a saved DatasetDict,
    which may lack that column, are assigned. Values of ``data.splits`` are looked for before the
    keywords. Raises DataError for a name that says two splits, and for one that says none beside
    others that do.
    """
    is_saved = any(file.split is not None for file in files)
    if data.columns.split is not None and not is_saved:
        return files
    # A file that is named by itself has no path below ``data.path``.
    names = [file.split or file.below for file in files]
    splits = [split_in(name, data.splits, file) for name, file in zip(names, files, strict=True)]
    if not is_saved and "train" not in splits:
        return files
    if None in splits:
        named = [file for file, split in zip(files, splits, strict=True) if split is not None]
        raise _unnamed(files[splits.index(None)], named)
    return [replace(file, split=split) for file, split in zip(files, splits, strict=True)]


def files_of(split: str, files: list[File], data: Data) -> list[File]:
    """Of files that are read as one split alone, those whose names say it; all of them where they
    say nothing, or all the same. ``split`` is a word for it, such as dev.

    Raises DataError as :func:`assign_splits` does, and where no name says this split.
    """
    if data.columns.split is not None:
        return files
    if saved := [file for file in files if file.split == split]:
        return saved
    assigned = assign_splits(files, data.model_copy(update={"splits": SplitNames()}))
    known = {file.split for file in assigned} - {None}
    if len(known) < 2:
        return files
    wanted = next((name for name, words in KEYWORDS.items() if split in words), split)
    if found := [file for file in assigned if file.split == wanted]:
        return found
    there = ", ".join(name for name in SPLITS if name in known)
    raise DataError(
        f"data.path: no file of {files[0].uri} and {len(files) - 1} more is named as the split "
        f"{split!r}: they are named as {there}; choose one by data.splits.test, or name a file"
    )


def split_in(path: str, names: SplitNames, file: File) -> str | None:
    """The split that ``path``, relative, says; None where it says none."""
    *folders, last = path.split("/")
    given = {s: (getattr(names, s),) for s in SPLITS if getattr(names, s) != s}
    for words in (given, KEYWORDS):
        for part in [*reversed(folders), last]:
            found = [split for split, these in words.items() if _has_word(part, these)]
            if found == ["train", "transfer"]:  # train-unlabeled: train rows, without labels
                return "transfer"
            if len(found) > 1:
                raise DataError(
                    f"data.path: the name {part!r} of {file.uri} says {' and '.join(found)}: "
                    f"rename it, or give a value of its own, such as data.splits.{found[0]}="
                    f"{part.split('.')[0]}"
                )
            if found:
                return found[0]
    return None


def remaining_holdout(data: Data, files: Iterable[File]) -> Holdout:
    """What is still cut from train: the fractions of the splits that no file gives.

    Raises DataError for a fraction that the configuration gives beside a file for its split.
    """
    given: dict[str, File] = {}
    for file in files:
        if file.split not in (None, "train"):
            given.setdefault(file.split, file)
    cut = data.holdout
    # A configuration that was written out again, as into a run folder, sets all of them.
    is_whole = cut.model_fields_set == set(Holdout.model_fields)
    for split, file in given.items():
        fraction = getattr(cut, split)
        is_default = fraction == Holdout.model_fields[split].default
        if split in cut.model_fields_set and fraction > 0 and not (is_whole and is_default):
            raise DataError(
                f"data.holdout.{split} is {fraction}, and {file.uri} is the {split} split: remove "
                f"data.holdout.{split}, or name the files to be read in data.path, without that one"
            )
    left = cut.model_copy(update=dict.fromkeys(given, 0.0))
    if left.transfer + left.validation + left.test >= 1:
        raise DataError(
            "data.holdout leaves no train rows: transfer + validation + test must be below 1, "
            f"got {left.transfer} + {left.validation} + {left.test}"
        )
    return left


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
            f"data.path: the split of {file.uri} is {file.split!r}, which is no known name "
            f"({known}): say which split it is, such as data.splits.validation={file.split}"
        )
    beside = f", and the name of {named[0].uri} beside it does" if named else ""
    return DataError(
        f"data.path: the name of {file.uri} says no split{beside}: rename it, give a word of its "
        f"name in data.splits, such as data.splits.test={_stem(file.below)}, or leave it out: "
        "name the files to be read in data.path"
    )


def _stem(path: str) -> str:
    return path.rpartition("/")[2].split(".")[0]
