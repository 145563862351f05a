"""YAML as every configuration is read and written here: PyYAML's safe YAML 1.1, with the numbers of
YAML 1.2. PyYAML alone takes ``1e-4`` for a word, for want of a dot and of the exponent's sign."""

from __future__ import annotations

import re
from typing import Any

import yaml

FLOAT = "tag:yaml.org,2002:float"
_NUMBER = re.compile(
    r"""[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$
      | [-+]\.[0-9]+$""",
    re.VERBOSE,
)
"""What YAML 1.2's core schema has and PyYAML's resolver does not: 1e-4, 1e4, 1.5e3, -.5."""


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    """Quotes the words that :class:`_Loader` would take for numbers."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(FLOAT, _NUMBER, list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def write_yaml(value: Any, **options: Any) -> str:
    """``options`` are those of ``yaml.dump``; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, **options)
