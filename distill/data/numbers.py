"""Columns of numbers as one float32 array a batch, refused where a model could not take them.

Shape suffixes: B rows, D features.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from distill.data.refusals import RowLocation, absent_column
from distill.data.source import File
from distill.errors import DataError

KEY = "data.columns.features"


def features_in(
    batch: pa.RecordBatch, columns: tuple[str, ...], file: File, first_row: int, num: int | None
) -> np.ndarray:
    """features_BD, float32: one column of lists, or one of numbers for each feature.

    ``num``: the features of the rows before, which all others must have; None for the first.
    Raises DataError that names the row of a null, NaN, infinity, text or other length.
    """
    for name in columns:
        if name not in batch.schema.names:
            raise absent_column(KEY, name, file)
    if len(columns) == 1 and _is_list(batch.column(columns[0]).type):
        features_BD = _of_lists(batch.column(columns[0]), columns[0], file, first_row, num)
    else:
        found = [_of_numbers(batch.column(name), name, file, first_row) for name in columns]
        features_BD = np.stack(found, axis=1)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        features_BD = features_BD.astype(np.float32)
    bad_BD = ~np.isfinite(features_BD)
    if bad_BD.any():
        b, d = np.argwhere(bad_BD)[0].tolist()
        which = repr(columns[0]) + f"[{d}]" if len(columns) == 1 else repr(columns[d])
        raise DataError(
            f"{KEY} {which} is {features_BD[b, d]} in {RowLocation(file, first_row + b)}: models "
            "need finite numbers (float32): fill it in, or remove the row"
        )
    return features_BD


def _of_lists(
    array: pa.Array, name: str, file: File, first_row: int, num: int | None
) -> np.ndarray:
    _refuse_nulls(array, name, file, first_row)
    lengths: pa.Array = pc.call_function("list_value_length", [array])
    lengths_B = lengths.to_numpy(zero_copy_only=False)
    num = int(lengths_B[0]) if num is None and len(lengths_B) else num
    assert num is not None, "record batches have rows"
    other_B = lengths_B != num
    if other_B.any() or num == 0:
        b = int(np.argmax(other_B))
        raise DataError(
            f"{KEY} {name!r} has {lengths_B[b]} numbers in {RowLocation(file, first_row + b)}, the "
            f"rows before have {num}: every row needs the same number of numbers, at least one"
        )
    values: pa.Array = array.flatten()  # type: ignore[attr-defined]
    if values.null_count:
        b = pc.index(values.is_null(), True).as_py() // num
        raise _null(name, RowLocation(file, first_row + b))
    return _numeric(values, name, file).reshape(-1, num)


def _of_numbers(array: pa.Array, name: str, file: File, first_row: int) -> np.ndarray:
    _refuse_nulls(array, name, file, first_row)
    if pt.is_binary(array.type) or pt.is_large_binary(array.type):  # CSV: every value is bytes
        return _parsed(array, name, file, first_row)
    return _numeric(array, name, file)


def _numeric(array: pa.Array, name: str, file: File) -> np.ndarray:
    kind = array.type
    if pt.is_boolean(kind):
        array, kind = array.cast(pa.int8()), pa.int8()
    if not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)):
        raise DataError(
            f"{KEY} {name!r} of {file.uri} has the type {kind}: numbers, or lists of numbers with "
            "equal length, are needed; for text, set data.columns.text"
        )
    return array.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _parsed(array: pa.Array, name: str, file: File, first_row: int) -> np.ndarray:
    values = np.empty(len(array), np.float64)
    for b, value in enumerate(array.to_pylist()):
        try:
            values[b] = float(value)
        except ValueError:
            shown = value.decode("utf-8", "replace")[:40]
            raise DataError(
                f"{KEY} {name!r} is {shown!r} in {RowLocation(file, first_row + b)}: a number is "
                "needed: correct it, or leave the column out"
            ) from None
    return values


def _refuse_nulls(array: pa.Array, name: str, file: File, first_row: int) -> None:
    if array.null_count:
        row = first_row + pc.index(array.is_null(), True).as_py()
        raise _null(name, RowLocation(file, row))


def _null(name: str, place: RowLocation) -> DataError:
    return DataError(f"{KEY} {name!r} is null in {place}: fill it in, or remove the row")


def _is_list(kind: pa.DataType) -> bool:
    return pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
