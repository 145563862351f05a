"""The experiment of a trial: the file, with searched keys set."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo

from distill.config import KD, Experiment, parse
from distill.config.overrides import assign
from distill.config.search_space import Value, read_value
from distill.variant import Variant


def with_values(raw: Mapping[str, Any], values: Mapping[str, Value]) -> Experiment:
    """The experiment with searched keys set; ConfigError where they do not go together.

    A searched ``aggregation.type``, ``objective.type`` or ``kd.schedule.type`` keeps, of the file's
    section, the keys that the type has: the file's ``k`` is no key of ``mean``. So does
    ``objective.0.type``, of an entry of a list.
    """
    changed = copy.deepcopy(dict(raw))
    for key, value in values.items():
        path, _, last = key.rpartition(".")
        name, _, index = path.partition(".")
        if name in ("aggregation", "objective") and last == "type":
            section = changed.get(name, {})
            if index.isdecimal() and isinstance(section, list) and int(index) < len(section):
                section = section[int(index)]
            if isinstance(section, dict):
                _keep_known(section, Experiment.model_fields[name], value)
        if path == "kd.schedule" and last == "type":
            schedule = changed.get("kd", {}).get("schedule", {})
            _keep_known(schedule, KD.model_fields["schedule"], value)
    for key, value in values.items():
        assign(changed, key, read_value(value))
    text = ", ".join(f"{key}={value}" for key, value in values.items())
    return parse(changed, source=text or "the experiment")


def _keep_known(section: dict[str, Any], family: FieldInfo, kind: Value) -> None:
    """Remove the keys that the variant ``kind`` of this section of the file does not have."""
    variants = _variants(family.annotation)
    fields = [v.model_fields for v in variants if v.model_fields["type"].default == kind]
    for key in list(section):
        if fields and key not in fields[0]:
            del section[key]


def _variants(annotation: Any) -> list[type[Variant]]:
    """The sections that a key may be."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Variant) else []
    return [found for argument in get_args(annotation) for found in _variants(argument)]
