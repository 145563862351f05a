"""What the value of a searched key may be: a config class is a domain.

search:
  space:
    kd.temperature: {type: grid, values: [1, 2, 4]}
    optimizer.lr: {type: loguniform, low: 1.0e-4, high: 1.0e-2}
    aggregation: {type: grid, values: [{type: mean}, {type: routed, k: 1}]}  # a whole section
    objective: {type: grid, values: [{type: jsd}, [{type: forward_kl}, {type: cosine}]]}  # a list
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from distill.config.yaml_text import read_yaml, write_yaml
from distill.variant import Variant

Value = bool | int | float | str


def _written(value: Any) -> Any:
    """A section or list as one line of YAML: a value stays something that compares, prints and is
    a key."""
    if not isinstance(value, dict | list):
        return value
    flow = write_yaml(value, default_flow_style=True, width=math.inf)
    return flow.strip()


def read_value(value: Value) -> Any:
    """What a value sets its key to: itself, or the section or list that :func:`_written` wrote."""
    if isinstance(value, str) and value.startswith(("{", "[")):
        return read_yaml(value)
    return value


Listed = Annotated[
    Value,
    BeforeValidator(_written, json_schema_input_type=Value | dict[str, Any] | list[Any]),
]


class _Values(Variant):
    values: tuple[Listed, ...] = Field(min_length=1)
    """Numbers, words, or whole sections or lists (stored as one line of YAML)."""

    @model_validator(mode="after")
    def _differ(self) -> _Values:
        # Alike as numbers, 1 and 1.0, or as words, 1 and '1'; a truth value is no number.
        numbers = {(isinstance(value, bool), value) for value in self.values}
        if min(len(numbers), len({str(value) for value in self.values})) < len(self.values):
            raise ValueError(f"values must differ, got {list(self.values)}")
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that between them meet every limit of the key."""
        return self.values


class Grid(_Values):
    """Every value, in combination with every value of the other keys."""

    type: Literal["grid"] = "grid"


class Choice(_Values):
    """One of the values, each equally likely."""

    type: Literal["choice"] = "choice"


class _Range(Variant):
    low: int | float
    high: int | float

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got low {self.low} and high {self.high}")
        return self

    @property
    def is_integer(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Value, ...]:
        return self.low, self.high


class Uniform(_Range):
    """A number from ``low`` to ``high``."""

    type: Literal["uniform"] = "uniform"


class LogUniform(_Range):
    """A number from ``low`` to ``high``, uniform on a log scale; integers if both ends are."""

    type: Literal["loguniform"] = "loguniform"

    @model_validator(mode="after")
    def _positive(self) -> LogUniform:
        if self.low <= 0:
            raise ValueError(f"low of a loguniform range must be above 0, got {self.low}")
        return self


class Quantised(_Range):
    """``low``, ``low + step``, … up to ``high``; integers if all three are."""

    type: Literal["quantised"] = "quantised"
    step: int | float = Field(gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Quantised:
        steps = (self.high - self.low) / self.step
        if abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
            raise ValueError(
                f"high must be low plus whole steps, got low {self.low}, high {self.high}, "
                f"step {self.step}"
            )
        return self

    @property
    def is_integer(self) -> bool:
        return super().is_integer and isinstance(self.step, int)

    @property
    def all_values(self) -> list[int | float]:
        num_steps = round((self.high - self.low) / self.step)
        return [self.low + i * self.step for i in range(num_steps + 1)]


Domain = Annotated[Grid | Choice | Uniform | LogUniform | Quantised, Field(discriminator="type")]
Space = Mapping[str, Domain]
"""Searched keys of the experiment and their domains."""


def middle(domain: Domain) -> Value:
    """A value that stands for the domain."""
    if isinstance(domain, _Values):
        return domain.values[len(domain.values) // 2]
    is_log = isinstance(domain, LogUniform)
    value = math.sqrt(domain.low * domain.high) if is_log else (domain.low + domain.high) / 2
    return fitted(value, domain)


def fitted(value: Value, domain: Domain) -> Value:
    """The domain's value that is nearest; a value of another kind is replaced by the middle."""
    if isinstance(domain, _Values):
        if value in domain.values:
            return value
        numbers = [v for v in domain.values if _is_number(v)]
        if not (_is_number(value) and numbers):
            return middle(domain)
        return min(numbers, key=lambda v: abs(float(v) - float(value)))
    if not _is_number(value):
        return middle(domain)
    clipped = min(max(float(value), domain.low), domain.high)
    if isinstance(domain, Quantised):
        clipped = domain.low + round((clipped - domain.low) / domain.step) * domain.step
    return round(clipped) if domain.is_integer else clipped


def belongs(values: Mapping[str, Value], space: Space) -> bool:
    """Whether these are values of the space, key for key."""
    return values.keys() == space.keys() and all(
        _is_close(fitted(value, space[key]), value) for key, value in values.items()
    )


def _is_close(one: Value, other: Value) -> bool:
    if _is_number(one) and _is_number(other):
        return math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-12)
    return one == other


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def combinations(space: Space) -> Iterator[dict[str, Value]]:
    """Every combination of the grids' values, the last key fastest."""
    axes = [domain.values for domain in space.values() if isinstance(domain, _Values)]
    for values in itertools.product(*axes):
        yield dict(zip(space, values, strict=True))
