"""Label names: how values become them, and which output of a model is which class of a run.

A model names its outputs (``id2label``, ``classes_``) and a run its classes. Both are matched by
name, in any order; numbers stand for positions only in an order that somebody gave.

Shape suffix: V classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from distill.errors import ConfigError, ModelError

SHOWN = 10
"""Labels that a message lists before it only counts them."""


@dataclass(frozen=True)
class Outputs:
    """The labels of one model, in the order of its outputs."""

    description: str
    """What messages call the model."""
    names: tuple[str, ...]
    key: str | None = None
    """Where its labels can be renamed, such as ``teachers.reviews.labels``; None: nowhere."""
    labels: Mapping[str, str] | None = None
    """Renames them, as ``key`` has it."""

    @property
    def is_numbered(self) -> bool:
        """Whether they are LABEL_0, LABEL_1, … or 0, 1, …, and nothing renames them."""
        return not self.labels and _numbers(self.names) is not None

    def renamed(self) -> tuple[str, ...]:
        """The names under ``labels``, without spaces around them.

        Raises ConfigError for a key that is no label of the model, or two labels that would be one;
        ModelError where the model itself names two outputs alike.
        """
        own = tuple(name.strip() for name in self.names)
        if twice := _twice(own):
            raise ModelError(
                f"{self.description} names two of its classes {twice!r}: correct id2label in its "
                "config.json (of a pickled object: classes_)"
            )
        labels = self.labels or {}
        for name, label in labels.items():
            if name not in own:
                raise ConfigError(
                    f"{self.key} maps {name!r} to {label!r}, but {self.description} has no label "
                    f"{name!r}: its labels are {shown(own)}"
                )
        found = tuple(labels.get(name, name) for name in own)
        if twice := _twice(found):
            both = " and ".join(
                repr(n) for n, label in zip(own, found, strict=True) if label == twice
            )
            raise ConfigError(
                f"{self.key}: {both} of {self.description} would both be {twice!r}: give "
                "each label of the model a label of its own"
            )
        return found


@dataclass(frozen=True)
class Classes:
    """The classes of a run, in class order."""

    description: str
    """Where they come from, such as ``data.labels``."""
    names: tuple[str, ...]
    is_order_given: bool = False
    """Whether a person wrote down their order, so that class i can be called i. The sorted labels
    of a data set are a guess, and no such order."""


def columns_of(outputs: Outputs, classes: Classes) -> tuple[int, ...] | None:
    """int[V]: the model's output of each class; None where both have the same order.

    By name, after ``outputs.labels``. Without these, where no name matches, LABEL_i and i are the
    same label, and both are class i of an order that was given. Raises ModelError, or ConfigError
    for ``outputs.labels``, where that leaves a label without its counterpart or in doubt.
    """
    names = outputs.renamed()
    if sorted(names) != sorted(classes.names):
        names = _by_number(outputs, names, classes)
    index = {name: j for j, name in enumerate(names)}
    columns = tuple(index[name] for name in classes.names)
    return None if columns == tuple(range(len(columns))) else columns


def class_orders(outputs: Outputs) -> tuple[tuple[str, ...], ...]:
    """What the classes of a run can be whose labels this model names, the more probable ones first.

    LABEL_i does not name the data's labels: they may be the integers, or have these very names.
    """
    names = outputs.renamed()
    numbers = _numbers(names)
    if outputs.labels or numbers is None or names[0].isdecimal():
        return (names,)
    return tuple(map(str, numbers)), names


def _by_number(outputs: Outputs, names: tuple[str, ...], classes: Classes) -> tuple[str, ...]:
    """The classes that numbered outputs mean; refuses all that cannot be matched."""
    is_matched = not set(names).isdisjoint(classes.names)
    numbers = None if outputs.labels or is_matched else _numbers(names)
    if numbers is None or len(names) != len(classes.names):
        raise _unmatched(outputs, names, classes)
    readings: list[tuple[str, ...]] = []
    if (own := _numbers(classes.names)) is not None:
        by_number = dict(zip(own, classes.names, strict=True))
        readings.append(tuple(by_number[number] for number in numbers))
    if classes.is_order_given:
        readings.append(tuple(classes.names[number] for number in numbers))
    if not readings:
        raise _unmatched(outputs, names, classes)
    for name, label, at_place in zip(names, readings[0], readings[-1], strict=True):
        if label != at_place:
            raise ModelError(
                f"{_both(outputs, names, classes)}: {name} can be the label {label!r} or the class "
                f"at its place, {at_place!r}: {map_them(outputs, names)}"
            )
    return readings[0]


def _unmatched(
    outputs: Outputs, names: tuple[str, ...], classes: Classes
) -> ModelError | ConfigError:
    alone = [name for name in names if name not in classes.names]
    both = _both(outputs, names, classes)
    for name, label in (outputs.labels or {}).items():
        if label in alone:
            return ConfigError(
                f"{outputs.key} maps {name!r} to {label!r}, which is not a label of "
                f"{classes.description}: its labels are {shown(classes.names)}"
            )
    if len(names) != len(classes.names):
        lacking = [name for name in classes.names if name not in names]
        name = alone[0] if alone else lacking[0]
        limit = "" if outputs.key is None else f" ({outputs.key} only renames labels)"
        return ModelError(
            f"{both}: {name!r} has no counterpart: give a model with as many classes{limit}"
        )
    return ModelError(f"{both}: {alone[0]!r} matches none of them: {map_them(outputs, alone)}")


def _both(outputs: Outputs, names: tuple[str, ...], classes: Classes) -> str:
    sizes = len(names), len(classes.names)
    counts = ("", "") if sizes[0] == sizes[1] else (f"{sizes[0]} ", f"{sizes[1]}: ")
    return (
        f"{outputs.description} has the {counts[0]}labels {shown(names)}, those of "
        f"{classes.description} are {counts[1]}{shown(classes.names)}"
    )


def map_them(outputs: Outputs, unmatched: Sequence[str]) -> str:
    """The fix for labels of a model that match none of the classes."""
    if outputs.key is None:
        return "its labels must be these names, in any order"
    # Of numbers the others may match by accident: 0 to 4 and the stars 1 to 5.
    names = outputs.names if outputs.is_numbered else unmatched
    return f"map them with {outputs.key}: {template(names)}"


def template(names: Sequence[str]) -> str:
    """A map to be filled in, as YAML: ``{LABEL_0: …, LABEL_1: …}``."""
    return yaml.safe_dump(
        dict.fromkeys(names, "…"),
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=float("inf"),
    ).strip()


def shown(names: Sequence[str]) -> str:
    """The first names, and how many there are where that is not all."""
    first = ", ".join(names[:SHOWN])
    return first if len(names) <= SHOWN else f"{first}, … ({len(names)} labels)"


def _numbers(names: Sequence[str]) -> tuple[int, ...] | None:
    """i of names that all are i, or all LABEL_i, for 0, 1, … in any order; None of others."""
    for pattern in (r"(0|[1-9][0-9]*)", r"LABEL_(0|[1-9][0-9]*)"):
        found = [re.fullmatch(pattern, name) for name in names]
        numbers = tuple(int(match[1]) for match in found if match is not None)
        if sorted(numbers) == list(range(len(names))):
            return numbers
    return None


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
