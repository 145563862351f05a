"""Names of Python."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from distill.transform.scopes import Binding, extent, text
from distill.transform.source import Code, ancestors, field, walk

_FUNCTIONS = frozenset(("function_definition", "lambda"))
_COMPREHENSIONS = frozenset(
    (
        "list_comprehension",
        "set_comprehension",
        "dictionary_comprehension",
        "generator_expression",
    )
)
_SCOPES = _FUNCTIONS | _COMPREHENSIONS | {"class_definition", "module"}
_TARGETS = {
    "assignment": "left",
    "augmented_assignment": "left",
    "for_statement": "left",
    "for_in_clause": "left",
    "named_expression": "name",
    "function_definition": "name",
    "class_definition": "name",
    "as_pattern": "alias",
}
_DEFAULTS = frozenset(("default_parameter", "typed_default_parameter"))
_REFLECTION = """
eval exec locals globals vars dir inspect __qualname__ __dict__ __code__ __annotations__
__defaults__ __kwdefaults__ __globals__ f_locals f_lineno _getframe signature get_type_hints pickle
traceback doctest NameError UnboundLocalError
"""
REFLECTION = frozenset(_REFLECTION.split())
"""Words by which a program sees how it is spelled."""


def occurrences(code: Code) -> dict[str, list[Node]]:
    """Every place of every name; attributes and the names of keyword arguments left out."""
    places: dict[str, list[Node]] = {}
    for node in code.nodes:
        if node.type == "identifier" and not _is_member(node):
            places.setdefault(text(node), []).append(node)
    return places


def _is_member(node: Node) -> bool:
    parent = node.parent
    assert parent is not None
    if parent.type == "attribute":
        return parent.child_by_field_name("attribute") == node
    if parent.type == "keyword_argument":
        return parent.child_by_field_name("name") == node
    if parent.type == "dotted_name":
        return parent.named_children[0] != node
    return parent.type == "keyword_pattern" and parent.named_children[0] == node


def targets(node: Node) -> list[Node]:
    """The names that a target binds: not those of `a.b` and `a[i]`."""
    return [
        inner
        for inner in walk(node, into=lambda n: n.type not in ("attribute", "subscript", "call"))
        if inner.type == "identifier"
    ]


def _scope(node: Node) -> Node:
    """The function, class, comprehension or module in which code at ``node`` runs.

    Defaults, annotations, decorators, base classes and the first iterable of a comprehension run
    one further out than they stand.
    """
    child, is_outside = node, False
    for above in ancestors(node):
        is_default = above.type in _DEFAULTS and child == above.child_by_field_name("value")
        is_name = above.type == "function_definition" and child == above.child_by_field_name("name")
        if (
            is_default
            or is_name
            or child.type == "type"
            or (above.type == "class_definition" and child != above.child_by_field_name("body"))
        ):
            is_outside = True
        elif above.type in _COMPREHENSIONS and child.type == "for_in_clause":
            first = next(part for part in above.children if part.type == "for_in_clause")
            right = child.child_by_field_name("right")
            if child == first and right is not None and _contains(right, node):
                is_outside = True
        if above.type in _SCOPES:
            if not is_outside or above.type == "module":
                return above
            is_outside = False
        child = above
    raise AssertionError("a name outside a module")


def _contains(outer: Node, inner: Node) -> bool:
    return outer.start_byte <= inner.start_byte and inner.end_byte <= outer.end_byte


def _bound(code: Code) -> Iterator[tuple[Node, Node]]:
    """Every name that is bound, with its scope."""
    for node in code.nodes:
        if node.type in _TARGETS:
            target = node.child_by_field_name(_TARGETS[node.type])
            for name in () if target is None else targets(target):
                where = _scope(node)
                if node.type == "for_in_clause":
                    where = next(up for up in ancestors(node) if up.type in _COMPREHENSIONS)
                while node.type == "named_expression" and where.type in _COMPREHENSIONS:
                    where = _scope(where)
                yield name, where
        elif node.type in ("parameters", "lambda_parameters"):
            function = node.parent
            assert function is not None
            yield from ((name, function) for name in parameter_names(node))
        elif node.type == "global_statement":
            yield from ((name, code.tree.root_node) for name in node.named_children)
        elif node.type == "case_pattern" and len(node.named_children) == 1:
            for inner in walk(node):
                if inner.type == "dotted_name" and len(inner.named_children) == 1:
                    yield inner.named_children[0], _scope(node)


def parameter_names(parameters: Node) -> list[Node]:
    names = []
    for parameter in parameters.named_children:
        name = parameter.child_by_field_name("name") or parameter
        if name.type == "typed_parameter":
            name = name.named_children[0]
        if name.type in ("list_splat_pattern", "dictionary_splat_pattern"):
            name = name.named_children[0]
        if name.type == "identifier":
            names.append(name)
    return names


def bindings(code: Code) -> list[Binding]:
    """A name of a class's body is bound there alone: methods do not see it."""
    return [
        Binding(text(name), extent(where), where.type != "class_definition")
        for name, where in _bound(code)
    ]


def refused(code: Code) -> set[str]:
    """Names that something outside, a string, a caller's keyword or reflection may mean."""
    if code.words & REFLECTION:
        return set(occurrences(code))
    names: set[str] = set()
    parameters: set[str] = set()
    keywords: set[str] = set()
    strings: list[str] = []
    has_spread = False
    for node in code.nodes:
        if node.type in ("import_statement", "import_from_statement", "type_parameter"):
            names.update(text(n) for n in walk(node) if n.type == "identifier")
        elif node.type in ("parameters", "lambda_parameters"):
            parameters.update(map(text, parameter_names(node)))
        elif node.type == "keyword_argument":
            keywords.add(text(field(node, "name")))
        elif node.type == "dictionary_splat":
            has_spread = True
        elif node.type == "string_content":
            strings.append(text(node))
        elif node.type == "except_clause" and _has_names(text(node).split(":")[0]):
            return set(occurrences(code))
        elif node.type == "class_definition" and node.child_by_field_name("superclasses"):
            names.update(_inherited_parameters(node))
        elif node.type == "interpolation":
            if any(child.type == "=" for child in node.children) or "=" in text(node):
                names.update(text(n) for n in walk(node) if n.type == "identifier")
        elif node.type == "decorated_definition":
            names.update(_signature(field(node, "definition")))
        elif node.type == "function_definition" and text(field(node, "name")).startswith("test"):
            names.update(_signature(node))
    names.update(parameters if has_spread else parameters & keywords)
    for string in strings:
        # "name", and "module.name" for what imports or patches by path.
        if re.fullmatch(r"[\w.]+", string):
            names.update(string.split("."))
    names.update(text(name) for name, where in _bound(code) if where.type == "class_definition")
    return names | _uncovered(code) | _seen_types(code, " ".join(strings))


def _has_names(clause: str) -> bool:
    """Whether an error whose message spells a function's or a class's name can be shown."""
    return " as " in clause and ("TypeError" in clause or "AttributeError" in clause)


def _inherited_parameters(definition: Node) -> set[str]:
    """Parameters of methods of a class with bases: callers of the base may name them."""
    return {
        text(name)
        for node in walk(field(definition, "body"))
        if node.type == "parameters"
        for name in parameter_names(node)
    }


def _signature(definition: Node) -> set[str]:
    """The name and the parameters, which a decorator or a test runner may ask for."""
    parameters = definition.child_by_field_name("parameters")
    names = [field(definition, "name"), *(parameter_names(parameters) if parameters else [])]
    return set(map(text, names))


def _uncovered(code: Code) -> set[str]:
    """Names with a place from which no scope of the snippet that binds them is seen."""
    scopes: dict[str, set[Node]] = {}
    for name, where in _bound(code):
        scopes.setdefault(text(name), set()).add(where)
    return {
        name
        for name, nodes in occurrences(code).items()
        if not all(_is_seen(node, scopes.get(name, set())) for node in nodes)
    }


def _is_seen(node: Node, scopes: set[Node]) -> bool:
    if not scopes:
        return False
    where = _scope(node)
    while True:
        if where in scopes:
            return True
        if where.type == "module":
            return False
        where = _scope(where)
        while where.type == "class_definition":
            where = _scope(where)


def _seen_types(code: Code, strings: str) -> set[str]:
    """Classes whose name a message, a base or a string shows."""
    classes = [node for node in code.nodes if node.type == "class_definition"]
    is_named = any(
        node.type == "attribute" and text(field(node, "attribute")).startswith("__")
        for node in code.nodes
    ) or any(word.startswith("__") and not word.endswith("__") for word in code.words)
    shown = set(re.findall(r"\w+", strings))
    return {
        name
        for node in classes
        if (name := text(field(node, "name"))) in shown
        or is_named
        or node.child_by_field_name("superclasses") is not None
    }
