"""Labels as a person writes them in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator


def as_label(value: Any) -> str:
    """A label of ``id2label`` or ``classes_`` as one in a data file is read: integers (also as
    floats) in decimal, booleans as 0 and 1."""
    value = value.item() if hasattr(value, "item") else value  # numpy's, inside an object array
    is_whole = isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer())
    return str(int(value)) if is_whole else str(value)


def configured_label(value: Any) -> str:
    """A label that a person wrote in YAML, without spaces around it; integers are labels too.

    Raises ValueError for a boolean: YAML makes one of ``no`` and ``yes``, which are then lost.
    """
    if isinstance(value, bool):
        words = "yes, on and true" if value else "no, off and false"
        raise ValueError(
            f"YAML reads {words} as a boolean: put the label in quotes, or write {int(value)} for "
            f"{str(value).lower()} in a column of booleans"
        )
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole and not isinstance(value, str):
        raise ValueError(f"{value!r} is not a label: give a string or an integer")
    label = as_label(value).strip()
    if not label:
        raise ValueError("a label is empty: give it a name")
    return label


Label = Annotated[str, BeforeValidator(configured_label, json_schema_input_type=str | int)]


def configured_map(raw: Any) -> dict[str, str]:
    """``{LABEL_0: negative, 1: positive}`` as names; raises ValueError."""
    if not isinstance(raw, Mapping):
        raise ValueError(
            f"{raw!r} is not a mapping: write the model's label, then the data's, as {{LABEL_0: "
            "negative, LABEL_1: positive}"
        )
    found: dict[str, str] = {}
    for key, value in raw.items():
        label = configured_label(key)
        if label in found:
            raise ValueError(f"the label {label!r} is mapped twice: remove one of the two")
        found[label] = configured_label(value)
    return found
