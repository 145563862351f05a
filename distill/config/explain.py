"""One line for each problem of a configuration: the key as the user writes it, what it must be, the
value, the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import RootModel, ValidationError
from pydantic.fields import FieldInfo

from distill.variant import Section

NOUNS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Any: "any value",
}
PLURALS: dict[Any, str] = {str: "texts", int: "whole numbers", float: "numbers"}
RANGES = ("greater_than", "less_than", "too_short", "too_long", "finite_number", "multiple_of")
"""Parts of the kinds of pydantic's errors about a value of the right type."""
MAX_SHOWN = 60
MAX_KEYS = 6


class _Place(NamedTuple):
    """Where a problem is."""

    key: str
    annotation: Any
    """The type that the key must have; None where it is not known."""


def explain(
    error: ValidationError, source: str, whole: type[Section], raw: Mapping[str, Any]
) -> str:
    """A line for each problem of a configuration of type ``whole``, which was read from ``raw``."""
    lines: dict[str, list[str]] = {}
    for problem in sorted(error.errors(), key=_is_about_type):
        location = problem["loc"]
        if problem["type"] == "missing" and isinstance(location[-1], int):
            location = location[:-1]  # a list that is too short: of betas, say
        place = _place(whole, location, raw)
        same_key = lines.setdefault(place.key, [])
        # Each type of a union reports its own: the first to say what is wrong is enough.
        if not (same_key and _is_about_type(problem)):
            same_key.append(_line(place, problem, source, whole))
    return "\n".join(f"{source}: {line}" for found in lines.values() for line in found)


def _is_about_type(problem: Any) -> bool:
    """Whether the value is of another type than the key; not out of range, missing or unknown."""
    known = (*RANGES, "extra_forbidden", "missing", "value_error")
    return not any(part in problem["type"] for part in known)


def _line(place: _Place, problem: Mapping[str, Any], source: str, whole: type[Section]) -> str:
    key, annotation = place
    value, kind, message = problem.get("input"), problem["type"], problem["msg"]
    if kind == "extra_forbidden":
        return f"unknown key {key}{_suggestion(key, annotation, whole)}"
    if kind == "missing" and isinstance(problem["loc"][-1], str):
        return f"{key} is missing: add it to {source}"
    if kind in ("value_error", "assertion_error"):
        message = message.removeprefix("Value error, ")
        return message if key in message else f"{key}: {message}"
    if any(part in kind for part in RANGES):
        must = message[0].lower() + message[1:]
        must = must.replace("input should be", "must be").replace("input should", "must")
        return f"{key} {must}, got {_shown(value)}"
    if kind in ("union_tag_invalid", "union_tag_not_found") and isinstance(value, Mapping):
        types = _types(annotation)
        if "type" not in value:
            return f"{key}.type is missing: give one of {', '.join(types)}"
        close = difflib.get_close_matches(str(value["type"]), types, n=1)
        way_out = f": did you mean {close[0]}?" if close else ""
        return f"{key}.type must be one of {', '.join(types)}, got {value['type']!r}{way_out}"
    return _wrong_type(key, annotation, value, message)


def _wrong_type(key: str, annotation: Any, value: Any, message: str) -> str:
    if annotation is None:
        return f"{key}: {message[0].lower()}{message[1:]}, got {_shown(value)}"
    sections = _sections(annotation)
    is_list = any(get_origin(each) in (tuple, list) for each in _alternatives(annotation))
    must = f"it must be {_noun(annotation)}"
    if value is None and sections:
        return f"{key} is empty: give it a value, or remove the key; {must}"
    line = f"{key} must be {_noun(annotation)}, got {_shown(value)}"
    name = "-" if _leaf(key).isdigit() else f"{_leaf(key)}:"
    if sections and is_list:
        return f"{line}: begin each entry with a dash, as in - {_example(sections[0])}"
    if sections:
        meant = [s for s in sections if value in _types(s)]
        return f"{line}: write {name} {_example((meant or sections)[0])}"
    if isinstance(value, str) and value and is_list:
        return f"{line}: write {name} [{value}]"
    if str in _alternatives(annotation) and not isinstance(value, dict | list | NoneType):
        return f"{line}: put it in quotes"  # which YAML reads as a number, a date, yes or no
    return line + _nearest(value, _words(annotation))


def wrong_word(key: str, words: Iterable[str], value: object) -> str:
    """The message for a value that is none of ``words``."""
    words = list(words)
    line = f"{key} must be one of {', '.join(words)}, got {_shown(value)}"
    return line + _nearest(value, words)


def _nearest(value: object, words: list[str]) -> str:
    close = difflib.get_close_matches(str(value), words, n=1)
    return f": did you mean {close[0]}?" if close else ""


def _place(whole: type[Section], location: tuple[int | str, ...], raw: Mapping[str, Any]) -> _Place:
    """The key of a location, as the user writes it: without the tags of unions, which pydantic puts
    into it, and with the names of a list's entries for their indices."""
    annotation: Any = whole
    node: Any = raw
    parts: list[str] = []
    for depth, part in enumerate(location):
        found = None
        if isinstance(part, int):
            found = _element(annotation, tuple, list)
            node = node[part] if isinstance(node, list | tuple) and part < len(node) else None
            name = node.get("name") if isinstance(node, Mapping) else None
            has_name = isinstance(name, str) and bool(name.strip()) and location[-1] != "name"
            parts.append(str(name).strip() if has_name else str(part))
        elif tagged := [s for s in _sections(annotation) if part in _types(s)]:
            annotation = tagged[0]
            continue
        elif (
            (isinstance(node, Mapping) and part in node)
            or raw is None
            or part in _keys_of(annotation)
        ):
            found = _field(annotation, part) or _element(annotation, dict)
            is_unknown = found is None and depth == len(location) - 1
            parts.append(part)
            if is_unknown:
                break  # an unknown key: what is known is where it stands
            node = node.get(part) if isinstance(node, Mapping) else None
        else:
            continue  # the name of one type of a union
        annotation = found
    return _Place(".".join(parts), annotation)


def _alternatives(annotation: Any) -> list[Any]:
    """Types of a union, without Annotated; a type alone is its only one."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [each for arg in get_args(annotation) for each in _alternatives(arg)]
    return [annotation]


def _sections(annotation: Any) -> list[type[Section]]:
    """Sections that a value, or an entry of the list, may be."""
    found = []
    for each in _alternatives(annotation):
        if isinstance(each, type) and issubclass(each, Section):
            found.append(each)
        elif get_origin(each) in (tuple, list):
            found += _sections(get_args(each)[0])
    return found


def _field(annotation: Any, name: str) -> Any:
    fields = [s.model_fields[name] for s in _sections(annotation) if name in s.model_fields]
    return fields[0].annotation if fields else None


def _element(annotation: Any, *origins: type) -> Any:
    """Of the entries of a list, or the values of a mapping."""
    for each in _alternatives(annotation):
        if isinstance(each, type) and issubclass(each, RootModel):
            return _element(each.model_fields["root"].annotation, *origins)
        if get_origin(each) in origins:
            arguments = [a for a in get_args(each) if a is not Ellipsis]
            return arguments[-1]
    return None


def _keys(section: type[Section]) -> list[str]:
    """Those that must be given first."""
    return sorted(section.model_fields, key=lambda k: not section.model_fields[k].is_required())


def _example(section: type[Section]) -> str:
    """``{type: grid, values: …}``: with the keys that must be given, or else with the first."""
    needed = [k for k in _keys(section) if section.model_fields[k].is_required()]
    pairs = [f"type: {kind}" for kind in _types(section)] + [f"{key}: …" for key in needed]
    return f"{{{', '.join(pairs or [f'{_keys(section)[0]}: …'])}}}"


def _keys_of(annotation: Any) -> list[str]:
    return [key for section in _sections(annotation) for key in _keys(section)]


def _types(annotation: Any) -> list[str]:
    """Values of ``type`` that tell the sections of a family apart."""
    fields: list[FieldInfo] = [
        s.model_fields["type"] for s in _sections(annotation) if "type" in s.model_fields
    ]
    return [field.default for field in fields if isinstance(field.default, str)]


def _words(annotation: Any) -> list[str]:
    return [
        str(word)
        for each in _alternatives(annotation)
        if get_origin(each) is Literal
        for word in get_args(each)
    ]


def _noun(annotation: Any) -> str:
    """``a number``, ``text or a list of texts``; null is left out: only a default is null."""
    kinds = [each for each in _alternatives(annotation) if each is not NoneType]
    if types := [kind for each in kinds for kind in _types(each) if get_origin(each) is None]:
        return f"a section whose type is one of {', '.join(types)}"
    return " or ".join(dict.fromkeys(_noun_of(each) for each in kinds))


def _noun_of(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        words = ", ".join(str(word) for word in arguments)
        return words if len(arguments) == 1 else f"one of {words}"
    if origin in (tuple, list):
        count = "" if arguments[-1] is Ellipsis or origin is list else f"{len(arguments)} "
        (element, *_) = _alternatives(arguments[0])
        if element in PLURALS:
            return f"a list of {count}{PLURALS[element]}"
        return f"a list, each entry {_noun(arguments[0])}"
    if isinstance(kind, type) and issubclass(kind, Section):
        keys = _keys(kind)
        rest = ", …" if len(keys) > MAX_KEYS else ""
        return f"a section with the keys {', '.join(keys[:MAX_KEYS])}{rest}"
    return NOUNS.get(kind, "a mapping")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    shown = repr(value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _suggestion(key: str, annotation: Any, whole: type[Section]) -> str:
    """``: did you mean …`` from the keys of the section where the unknown key stands, else where a
    key of this name is; else the keys that the section has."""
    name, known = _leaf(key), list(dict.fromkeys(_keys_of(annotation)))
    if close := difflib.get_close_matches(name, known, n=1):
        return f": did you mean {close[0]}?"
    elsewhere = [path for path in _paths(whole, "") if _leaf(path) == name]
    if elsewhere:
        nearest = sorted(elsewhere, key=lambda path: path.count("."))[:3]
        return f": did you mean {' or '.join(nearest)}?"
    return f": known keys are {', '.join(known)}" if known else ""


def _paths(section: type[Section], above: str) -> Iterator[str]:
    """Keys of sections that a file has once: no entries of lists, no variants."""
    for name, field in section.model_fields.items():
        yield above + name
        alternatives = _alternatives(field.annotation)
        inner = [a for a in alternatives if isinstance(a, type) and issubclass(a, Section)]
        if len(inner) == 1:
            yield from _paths(inner[0], f"{above}{name}.")
