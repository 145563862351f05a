"""The experiment of a call: a configuration with overrides, teachers and data given as objects."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from distill.config import Experiment, load, parse
from distill.config.overrides import assign, parse_override
from distill.errors import ConfigError

Config: TypeAlias = "str | Path | Mapping[str, Any] | Experiment"
"""A YAML file, its content, or an Experiment."""
Overrides: TypeAlias = "Mapping[str, Any] | Sequence[str] | None"
"""Dotted keys and their values, or strings ``a.b=c`` as on the command line."""
UNSAFE = re.compile(r"[^ -~]")
"""Characters of a JSON text, all of them inside strings, that are escaped in YAML."""
UNWRITTEN = "<data>"
"""``data.path`` until the data cache is known, where the table is written to."""


def experiment_of(
    config: Config,
    teachers: Mapping[str, Any] | None = None,
    overrides: Overrides = None,
    data: Any = None,
    output_suffix: str = "",
) -> Experiment:
    """The experiment with teachers and data in files, which the command line could run as well.

    ``teachers`` follow those that the configuration names. ``data`` replaces ``data.path``.
    Overrides of ``teachers.…`` are applied last, so that they reach teachers given as objects.
    """
    changes = override_strings(overrides)
    late = [one for one in changes if teachers and one.startswith("teachers.")]
    changes = [one for one in changes if one not in late]
    if data is not None:
        changes.append(_override("data.path", UNWRITTEN))
    experiment = _read(config, changes, output_suffix)
    if data is None and not teachers:
        return experiment
    raw = experiment.model_dump(mode="json")
    if data is not None:
        from distill.api.tables import path_of
        from distill.data.corpus import cache_root

        raw["data"]["path"] = path_of(data, cache_root(experiment.data.cache_dir))
    if teachers:
        raw["teachers"] += _sections(experiment, teachers)
    for one in late:
        assign(raw, *parse_override(one))
    return parse(raw, source="distill")


def override_strings(overrides: Overrides) -> list[str]:
    """``a.b=c`` of either form. Raises ConfigError for one string, which is no list of them."""
    if overrides is None:
        return []
    if isinstance(overrides, str):
        raise ConfigError(
            f"overrides is the string {overrides!r}: give a list of strings, or a dict"
        )
    if isinstance(overrides, Mapping):
        return [_override(key, value) for key, value in overrides.items()]
    return list(overrides)


def _override(key: str, value: Any) -> str:
    try:
        text = json.dumps(value, default=_plain, ensure_ascii=False)
    except TypeError:
        raise ConfigError(f"override {key}: {value!r} is not a valid configuration value") from None
    return f"{key}={UNSAFE.sub(_escape, text)}"


def _escape(found: re.Match[str]) -> str:
    """As YAML reads it: of JSON's own two escapes for 😀 it makes two characters."""
    return f"\\U{ord(found[0]):08x}"


def _plain(value: Any) -> Any:
    """Paths, and numbers and arrays of numpy."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError


def _read(config: Config, changes: list[str], output_suffix: str) -> Experiment:
    if isinstance(config, str | Path):
        return load(config, changes, output_suffix)
    if isinstance(config, Experiment):
        if not changes:
            return config
        raw: dict[str, Any] = config.model_dump(mode="json")
    elif isinstance(config, Mapping):
        raw = copy.deepcopy(dict(config))
    else:
        raise ConfigError(
            f"the configuration is a {type(config).__name__}: give a YAML file, a dict or an "
            "Experiment"
        )
    for one in changes:
        assign(raw, *parse_override(one))
    return parse(raw)


def _sections(experiment: Experiment, teachers: Mapping[str, Any]) -> list[dict[str, Any]]:
    from distill.api.teachers import section_of
    from distill.data.corpus import cache_root

    if experiment.experts is not None:
        raise ConfigError(
            "teachers are given and the configuration has a section experts: give one of the two"
        )
    folder = cache_root(experiment.data.cache_dir).absolute() / "teachers"
    return [section_of(name, teacher, folder) for name, teacher in teachers.items()]
