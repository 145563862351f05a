"""What is refused in a data set, in words: the key or file, the value, and the way out."""

from __future__ import annotations

from typing import NamedTuple

from distill.config import Data
from distill.data.source import File, column_names
from distill.errors import DataError, UnknownLabelError


class Place(NamedTuple):
    """A row of a file, counted from 1 (a CSV header does not count)."""

    file: File
    row: int

    def __str__(self) -> str:
        return f"row {self.row} of {self.file.uri}"


class Labels:
    """Numbers labels as they come, and remembers where each was first seen outside train."""

    def __init__(self, names: tuple[str, ...] | None) -> None:
        self._given = names
        self._in_train: set[str] = set()
        self._elsewhere: dict[str, tuple[str, Place]] = {}
        self.numbers: dict[str, int] = {n: i for i, n in enumerate(names or ())}

    def number(self, label: str | None, split: str, place: Place, data: Data) -> int:
        if label is None:
            raise self._missing(split, place, data)
        if self._given is not None:
            if label not in self.numbers:
                raise self._unknown(label, place, data)
        elif split == "train":
            self._in_train.add(label)
        else:
            self._elsewhere.setdefault(label, (split, place))
        return self.numbers.setdefault(label, len(self.numbers))

    def final(self) -> list[str]:
        """Class names in class order. Raises DataError for a label that train never has."""
        if self._given is not None:
            return list(self._given)
        for label, (split, place) in self._elsewhere.items():
            if label not in self._in_train:
                raise DataError(
                    f"the label {label!r} of the {split} split ({place}) never occurs in the train "
                    f"split, which has {', '.join(sorted(self._in_train))}: add train rows with "
                    "it, remove the row, or list all labels in data.labels"
                )
        is_numeric = all(n.removeprefix("-").isdecimal() for n in self._in_train)
        return sorted(self._in_train, key=lambda n: (int(n) if is_numeric else 0, n))

    def _unknown(self, label: str, place: Place, data: Data) -> UnknownLabelError:
        assert self._given is not None
        fault = f"the label {label!r} in {place} is not among the labels {', '.join(self._given)}"
        way_out = "correct it, or remove the row"
        if data.labels is not None:  # else a model names them
            fault += " of data.labels"
            way_out = "correct data.labels or the label, or remove the row"
        return UnknownLabelError(f"{fault}: {way_out}", fault)

    def _missing(self, split: str, place: Place, data: Data) -> DataError:
        column = data.columns.label
        names = column_names(place.file)
        if names and column not in names:
            return absent_column("data.columns.label", column, place.file)
        return DataError(
            f"{place} is in the {split} split and has no label in column {column!r}: label it, "
            "or move it to the transfer split (data.splits.transfer)"
        )


def absent_column(key: str, name: str, file: File) -> DataError:
    existing = ", ".join(column_names(file)) or "none"
    return DataError(f"{key} {name!r} is not a column of {file.uri}: its columns are {existing}")


def no_rows(
    files: list[File], num_dropped: int, split: str | None = None, data: Data | None = None
) -> DataError:
    dropped = f" ({num_dropped} rows with empty text were dropped)" if num_dropped else ""
    where = files[0].uri + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    if split is None or data is None:
        return DataError(f"data.path: {where} holds no rows{dropped}: name a file with data")
    if data.columns.split is not None or files[0].split is not None:
        name = getattr(data.splits, split)
        way_out = (
            f"no row's split is {name!r} (data.splits.{split}): add such rows, or name the value "
            "that is meant"
        )
    elif split == "train":
        way_out = "lower data.holdout or add rows"
    else:
        fraction = getattr(data.holdout, split)
        way_out = f"data.holdout.{split} is {fraction}: raise it or add rows"
    return DataError(f"data.path: {where} has no {split} rows{dropped}: {way_out}")


def one_label(label: str, data: Data) -> DataError:
    limit = data.limit.train
    hint = f", or raise data.limit.train ({limit})" if limit is not None else ""
    return DataError(
        f"all rows of the train split have the label {label!r}: a classifier needs at least two; "
        f"check data.columns.label {data.columns.label!r}{hint}"
    )
