"""``a.b=c``: keys of a configuration that a command line changes."""

from __future__ import annotations

from typing import Any

import yaml

from distill.config.yaml_text import read_yaml
from distill.errors import ConfigError

FREE_KEYS = ("search.space",)
"""Sections whose own keys hold dots: ``search.space`` has the keys of an experiment."""


def parse_override(override: str) -> tuple[str, Any]:
    """``a.b=c`` as the key and its value, read as YAML."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"an override must be written key=value, got {override!r}")
    try:
        return key, read_yaml(value)
    except yaml.YAMLError:
        raise ConfigError(f"override {key}: {value!r} is not a YAML value: quote it") from None


def assign(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted ``key`` of a raw configuration, making the sections above it.

    An entry of a list has its index, from 0, or its ``name`` for a key: ``teachers.0.path``,
    ``teachers.reviews.path``. Digits are an index; of names with dots the longest that matches is
    taken. Raises ConfigError for an entry that is not there and for a value that has no keys.
    """
    if not all(key.split(".")):
        raise ConfigError(f"override {key}: a key is missing before or after a dot")
    node: Any = raw
    done, rest = "", key
    while True:
        entry, rest = _next(node, done, rest, key)
        if not rest:
            node[entry] = value
            return
        done = f"{done}.{entry}" if done else str(entry)
        node = _section(node, entry, done, key)


def _section(node: Any, entry: str | int, done: str, key: str) -> Any:
    """The mapping or list at an entry, made where a mapping has none."""
    if isinstance(node, dict) and node.get(entry) is None:
        node[entry] = {}
    child: Any = node[entry]
    if not isinstance(child, dict | list):
        raise ConfigError(f"override {key}: {done} is the value {child!r}, not a section")
    return child


def _next(node: Any, done: str, rest: str, key: str) -> tuple[str | int, str]:
    """What ``rest`` begins with, an index or a key of ``node``, and what remains of it."""
    first, _, after = rest.partition(".")
    if isinstance(node, list):
        return _entry(node, done, rest, key)
    longest = _longest([str(known) for known in node], rest)
    if longest is not None:
        return longest, rest[len(longest) + 1 :]
    if done in FREE_KEYS:
        return rest, ""
    return first, after


def _entry(node: list[Any], done: str, rest: str, key: str) -> tuple[int, str]:
    first, _, after = rest.partition(".")
    names = [str(each.get("name", "")) if isinstance(each, dict) else "" for each in node]
    if first.isdecimal():
        if int(first) < len(node):
            return int(first), after
        raise ConfigError(f"override {key}: {done} has {_listed(names)}, got the index {first}")
    name = _longest([name for name in names if name], rest)
    if name is None:
        raise ConfigError(f"override {key}: {done} has {_listed(names)}, got {first!r}")
    return names.index(name), rest[len(name) + 1 :]


def _longest(names: list[str], rest: str) -> str | None:
    """The longest of ``names`` that ``rest`` is, or begins with before a dot."""
    matching = [name for name in names if rest == name or rest.startswith(f"{name}.")]
    return max(matching, key=len, default=None)


def _listed(names: list[str]) -> str:
    count = "1 entry" if len(names) == 1 else f"{len(names)} entries"
    named = ", ".join(name for name in names if name)
    indices = "" if not names else " (0)" if len(names) == 1 else f" (0 to {len(names) - 1})"
    return f"{count}{indices}" + (f" named {named}" if named else "")
