"""Any column as strings, so that the same data has the same fingerprint in every format."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from distill.errors import DataError


def as_strings(
    array: pa.Array,
    column: str,
    uri: str,
    first_row: int,
    class_names: tuple[str, ...] | None = None,
    is_group: bool = False,
) -> pa.Array:
    """``array`` as valid UTF-8 large_string; nulls stay null, and NaN is one.

    Integers are written in decimal, booleans as "0" and "1", and integers of a ClassLabel column
    as their name (-1 as null). Floats and decimals must be integers, unless decimals are of a
    column that groups rows (``is_group``): there "1.50" is "1.5", and dates and times are ISO 8601
    (in UTC where they have a time zone). Raises DataError for other types and for bytes that are
    not UTF-8.
    """
    kind = array.type
    if pt.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pt.is_floating(kind):
        without_nan = pa.array(array.to_numpy(zero_copy_only=False), from_pandas=True)
        array = _integers(without_nan, column, uri)
        kind = array.type
    if pt.is_decimal(kind) and not is_group:
        array = _integers(array, column, uri)
        kind = array.type
    if class_names is not None and pt.is_integer(kind):
        numbers = array.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        if ((numbers < -1) | (numbers >= len(class_names))).any():
            raise DataError(
                f"data.path: column {column!r} of {uri} has a class outside its "
                f"{len(class_names)} ClassLabel names: save the dataset again"
            )
        return pa.array(class_names, pa.large_string()).take(pa.array(numbers, mask=numbers < 0))
    if pt.is_null(kind):
        return array.cast(pa.large_string())
    if pt.is_boolean(kind):
        return array.cast(pa.int8()).cast(pa.large_string())
    if pt.is_integer(kind):
        return array.cast(pa.large_string())
    if is_group and pt.is_decimal(kind):
        return pa.array([_plain(value) for value in array.to_pylist()], pa.large_string())
    if is_group and pt.is_temporal(kind) and not pt.is_duration(kind):
        return _iso(array)
    if not is_text(kind):
        raise DataError(
            f"data.path: column {column!r} of {uri} has the type {kind}: a string, integer or "
            "boolean is needed"
        )
    # Through binary, because files may label any bytes as a string: this cast checks UTF-8.
    raw = array.cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string())
    except pa.ArrowInvalid:
        row = first_row + _first_bad(raw)
        raise DataError(
            f"data.path: column {column!r} of {uri} is not UTF-8 in row {row}: "
            "convert the file to UTF-8"
        ) from None


def _integers(array: pa.Array, column: str, uri: str) -> pa.Array:
    """Floats (into which pandas turns integers with gaps) or decimals as int64."""
    try:
        return array.cast(pa.int64())
    except pa.ArrowInvalid:
        raise DataError(
            f"data.path: column {column!r} of {uri} has non-integer numbers: a string, integer or "
            "boolean is needed"
        ) from None


def _plain(value: Decimal | None) -> str | None:
    """Without an exponent, nor zeros after the last digit of a fraction."""
    if value is None:
        return None
    digits, point, fraction = f"{value:f}".partition(".")
    return digits + (point + fraction).rstrip("0").rstrip(".")


def _iso(array: pa.Array) -> pa.Array:
    """Dates, times and timestamps; a fraction of a second without zeros at its end."""
    kind: Any = array.type
    if pt.is_timestamp(kind) and kind.tz is not None:
        array = array.cast(pa.timestamp(kind.unit, "UTC"))
    compute: Any = pc  # has functions that only run time knows
    text = array.cast(pa.large_string())
    for pattern, new in ((" ", "T"), (r"(\.\d*?)0+(Z?)$", r"\1\2"), (r"\.(Z?)$", r"\1")):
        text = compute.replace_substring_regex(text, pattern=pattern, replacement=new)
    return text


def as_json(array: pa.Array, column: str, uri: str, first_row: int) -> pa.Array:
    """Lists as JSON, and strings, which hold JSON already, as they are; nulls stay null."""
    kind = array.type
    if is_text(kind) or pt.is_null(kind):
        return as_strings(array, column, uri, first_row)
    if not (pt.is_list(kind) or pt.is_large_list(kind)):
        raise DataError(
            f"data.path: column {column!r} of {uri} has the type {kind}: lists of messages (or of "
            "tool schemas), or such lists as strings of JSON, are needed"
        )
    try:
        # Maps, as arguments of calls may be, are objects.
        items = array.to_pylist(maps_as_pydicts="strict")
        values = [None if v is None else json.dumps(v) for v in items]
    except (TypeError, UnicodeDecodeError, KeyError):
        # Dates and the like; bytes that are not UTF-8; a map with a key twice.
        raise DataError(
            f"data.path: column {column!r} of {uri} has the type {kind}, which cannot be converted "
            "to JSON, or is not UTF-8: keep role and content, as UTF-8 strings"
        ) from None
    return pa.array(values, pa.large_string())


def is_text(kind: pa.DataType) -> bool:
    return (
        pt.is_string(kind)
        or pt.is_large_string(kind)
        or pt.is_string_view(kind)
        or pt.is_binary(kind)
        or pt.is_large_binary(kind)
    )


def _first_bad(raw: pa.Array) -> int:
    for i, value in enumerate(raw.to_pylist()):
        try:
            (value or b"").decode("utf-8")
        except UnicodeDecodeError:
            return i
    raise AssertionError("Arrow refused bytes that Python decodes")
