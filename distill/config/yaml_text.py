"""YAML as every configuration is read and written here: PyYAML's safe YAML 1.1, with the numbers of
YAML 1.2. PyYAML alone reads ``1e-4`` as text, because it has no dot and no sign in the exponent.
A key that a mapping has twice is an error, as YAML 1.2 demands; PyYAML alone takes the last."""

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
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:  # before ``<<`` adds the keys of another mapping
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value!r} occurs twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        super().flatten_mapping(node)


class _Dumper(yaml.SafeDumper):
    """Quotes the words that :class:`_Loader` would take for numbers."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(FLOAT, _NUMBER, list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def yaml_fault(error: yaml.YAMLError, text: str) -> str:
    """What is wrong with ``text``, and where, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    place, line = "", ""
    if mark is not None:
        place = f"line {mark.line + 1}, column {mark.column + 1}: "
        line = "".join(text.splitlines()[mark.line : mark.line + 1])
    problem = error.problem or error.context or "not YAML"
    if mark is not None and "\t" in line[: mark.column + 1] and "character" in problem:
        problem = "a tab: indent with spaces"
    elif problem.startswith("mapping values are not allowed"):
        problem = (
            "a second colon in a line: put a value with a colon in quotes, or check the indent"
        )
    elif problem.startswith(("found character", "found undefined alias")):
        problem += ": put the value in quotes"
    elif problem.startswith("found unexpected end of stream"):
        problem = "the file ends within quotes: close them"
    elif problem.startswith(("expected <block end>", "did not find expected")):
        problem = "the indent differs from that of the keys above: align it"
    elif problem.startswith(("expected ',' or", "expected the node content")):
        problem = "a bracket [ or { is not closed, or a comma is missing"
    return f"{place}{problem}"


def write_yaml(value: Any, **options: Any) -> str:
    """``options`` are those of ``yaml.dump``; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, **options)
