"""Error messages about a data set: the key or file, the value, and the fix."""

from __future__ import annotations

from typing import NamedTuple

from distill.config import Data
from distill.data.names import INTEGRAL, final_names, is_number
from distill.data.source import File, column_names, columns_shown, listed
from distill.data.usual_columns import proposals
from distill.errors import DataError, UnknownLabelError


class RowLocation(NamedTuple):
    """A row of a file, counted from 1 (a CSV header does not count)."""

    file: File
    row: int

    def __str__(self) -> str:
        return f"row {self.row} of {self.file.uri}"


class Labels:
    """Numbers labels as they come, and records where each was first seen."""

    def __init__(self, names: tuple[str, ...] | None, is_evaluated: bool = False) -> None:
        """``names``: all labels in class order, where data.labels or the teachers give them.
        ``is_evaluated``: every row needs a label, whatever data.unlabelled."""
        self.given = names
        self._is_evaluated = is_evaluated
        self.numbers: dict[str, int] = {n: i for i, n in enumerate(names or ())}
        self._forms = _forms(names or ())
        self._is_integral = all(map(INTEGRAL.fullmatch, self._forms))
        self._in_train: set[str] = set()
        self._places: dict[str, tuple[str, RowLocation]] = {}
        self._declared: dict[tuple[str, ...], File] = {}
        self._words: dict[str, tuple[str, RowLocation]] = {}
        self._figures: dict[str, tuple[str, RowLocation]] = {}

    def number(self, label: str | None, split: str, place: RowLocation, data: Data) -> int:
        if label is None:
            raise self._missing(split, place, data)
        if self.given is not None:
            return self.numbers[self._named(label, place, data)]
        if split == "train":
            self._in_train.add(label)
        self._places.setdefault(label, (split, place))
        self._remember(label, place, data.columns.label)
        return self.numbers.setdefault(label, len(self.numbers))

    def final(self) -> list[str]:
        """Class names in class order: those given, else those of the train split, sorted.

        Names that a file declares (ClassLabel) are sorted too: they give names, but no order.
        Raises DataError for a label that train never has, and for names that mean the same.
        """
        if self.given is not None:
            return list(self.given)
        if not self.numbers.keys() <= self._known():
            self._refuse_two_kinds()
            self._refuse_two_cases()
        self._refuse_other_declarations()
        finals = self._finals()
        in_train = {finals[label] for label in self._in_train}
        for label, (split, place) in self._places.items():
            if finals[label] not in in_train:
                raise DataError(
                    f"the label {label!r} of the {split} split ({place}) never occurs in the train "
                    f"split, which has {listed(sorted(in_train))}: add train rows with "
                    "it, remove the row, or list all labels in data.labels"
                )
        is_numeric = all(n.removeprefix("-").isdecimal() for n in in_train)
        return sorted(in_train, key=lambda n: (int(n) if is_numeric else 0, n))

    def indices(self) -> list[int]:
        """The class of each number that was given to a label, in the order of the numbers."""
        index = {name: i for i, name in enumerate(self.final())}
        finals = self._finals()
        return [index[finals[label]] for label in self.numbers]

    def _finals(self) -> dict[str, str]:
        is_known = self.given is not None or self.numbers.keys() <= self._known()
        return {n: n for n in self.numbers} if is_known else final_names(self.numbers)

    def _named(self, label: str, place: RowLocation, data: Data) -> str:
        """The given name that a label is: as written, or in another form."""
        if label in self.numbers:
            return label
        match = INTEGRAL.fullmatch(label) if self._is_integral else None
        for form in (label, *([str(int(match[1]))] if match else [])):
            if form in self._forms:
                return self._forms[form]
        raise self._unknown(label, place, data)

    def _known(self) -> set[str]:
        """Names that files declare as their classes."""
        return set().union(*self._declared)

    def _remember(self, label: str, place: RowLocation, column: str) -> None:
        file = place.file
        if column in file.folder_columns:  # one label a file, whatever it is
            return
        if (names := file.class_names_of(column)) is not None:
            self._declared.setdefault(names, file)
        kind = self._figures if is_number(label) else self._words
        kind.setdefault(file.uri, (label, place))

    def _refuse_two_kinds(self) -> None:
        words = [self._words[uri] for uri in self._words if uri not in self._figures]
        figures = [self._figures[uri] for uri in self._figures if uri not in self._words]
        if words and figures:
            (word, place), (figure, other) = words[0], figures[0]
            raise DataError(
                f"labels are words in one file and numbers in another: {word!r} in {place}, "
                f"{figure!r} in {other}: write them in one way, or list all labels in data.labels"
            )

    def _refuse_two_cases(self) -> None:
        seen: dict[str, str] = {}
        for label in self.numbers:
            first = seen.setdefault(label.casefold(), label)
            if first != label:
                raise DataError(
                    f"the labels {first!r} ({self._places[first][1]}) and {label!r} "
                    f"({self._places[label][1]}) differ only in case: write them in the same way, "
                    "or list all labels, with both, in data.labels"
                )

    def _refuse_other_declarations(self) -> None:
        declared = list(self._declared.items())
        for names, other in declared[1:]:
            first, file = declared[0]
            if not set(names) & set(first):
                raise DataError(
                    f"{file.uri} names its classes {listed(first)}, and {other.uri} "
                    f"{listed(names)}: they have no name in common: set data.path to files of one "
                    "data set, or list all labels in data.labels"
                )

    def _unknown(self, label: str, place: RowLocation, data: Data) -> UnknownLabelError:
        declared = " (a ClassLabel name)" if place.file.class_names_of(data.columns.label) else ""
        fault = f"the label {label!r}{declared} in {place} is not among the labels "
        fault += listed(self.given or ())
        way_out = "correct it, or remove the row"
        if data.labels is not None:  # else a model names them
            fault += " of data.labels"
            way_out = "correct data.labels or the label, or remove the row"
        return UnknownLabelError(f"{fault}: {way_out}", fault)

    def _missing(self, split: str, place: RowLocation, data: Data) -> DataError:
        column = data.columns.label
        names = column_names(place.file)
        # Nothing of a validation or test split is trained on, unless a hash cut it.
        is_given = split != "train" and (
            data.columns.split is not None or place.file.split == split
        )
        if names and column not in names:
            ways = "drop" if is_given else "transfer or drop"
            absent = absent_column("data.columns.label", column, place.file)
            if self._is_evaluated:
                return absent
            return DataError(f"{absent}; for rows without a label set data.unlabelled to {ways}")
        if self._is_evaluated:
            return DataError(
                f"{place} has no label in data.columns.label {column!r}: label it, or remove "
                "the row"
            )
        fault = f"{place} is in the {split} split and has no label in column {column!r}: label it, "
        if is_given:
            return DataError(f"{fault}or set data.unlabelled=drop to leave such rows out")
        return DataError(
            f"{fault}or set data.unlabelled=transfer to train on them with the teachers' outputs "
            "only, or data.unlabelled=drop"
        )


def _forms(names: tuple[str, ...]) -> dict[str, str]:
    """Other forms of given names, each with the first name that has it."""
    plain = {name: name.strip() for name in reversed(names)}
    finals = final_names(plain.values())
    return {finals[p]: name for name, p in plain.items()} | {p: n for n, p in plain.items()}


def absent_column(key: str, name: str, file: File) -> DataError:
    """``key``: what configures the column ``name``."""
    # Features are as many columns as there are numbers: none of them is usual.
    meant = "" if key.endswith(".features") else proposals({name: key}, column_names(file))
    shown = columns_shown(file, is_hinting=not meant)
    return DataError(f"{key} {name!r} is not a column of {file.uri}: {shown}{meant}")


def no_rows(
    files: list[File], num_empty: int, num_unlabelled: int, split: str | None, data: Data
) -> DataError:
    lost = [f"{num_empty} rows with empty text were dropped"] if num_empty else []
    if num_unlabelled:
        did = "dropped" if data.unlabelled == "drop" else "moved or dropped"
        lost.append(f"{num_unlabelled} rows without a label were {did} (data.unlabelled)")
    dropped = f" ({'; '.join(lost)})" if lost else ""
    where = files[0].uri + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    if split is None:
        way_out = "label some of them" if num_unlabelled else "name a file with data"
        return DataError(f"data.path: {where} holds no rows{dropped}: {way_out}")
    named = next((file.uri for file in files if file.split == split), None)
    if named is not None and split != "train":
        way_out = f"{named} is a file of this split: add rows to it, or leave it out of data.path"
    elif data.columns.split is not None:
        name = getattr(data.splits, split)
        way_out = (
            f"no row has the split {name!r} (data.splits.{split}): add such rows, or correct the "
            "value"
        )
    elif split == "train":
        way_out = "label some of them, " if num_unlabelled else ""
        way_out += "lower data.holdout or add rows"
    else:
        fraction = getattr(data.holdout, split)
        way_out = f"data.holdout.{split} is {fraction}: raise it or add rows"
    return DataError(f"data.path: {where} has no {split} rows{dropped}: {way_out}")


def no_labels(files: list[File], data: Data) -> DataError:
    if all(data.columns.label not in column_names(file) for file in files):
        return absent_column("data.columns.label", data.columns.label, files[0])
    return DataError(
        f"no row for the train split has a label in column {data.columns.label!r}, and "
        f"data.unlabelled is {data.unlabelled}: correct data.columns.label, or label some rows; "
        f"of {files[0].uri} {columns_shown(files[0])}"
    )


def one_label(label: str, data: Data) -> DataError:
    limit = data.limit.train
    hint = f", or raise data.limit.train ({limit})" if limit is not None else ""
    return DataError(
        f"all rows of the train split have the label {label!r}: a classifier needs at least two; "
        f"check data.columns.label {data.columns.label!r}{hint}"
    )
