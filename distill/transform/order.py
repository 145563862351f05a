"""Neighbouring declarations that do not depend on each other change places."""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random

from tree_sitter import Node

from distill.transform.names import identifiers
from distill.transform.scopes import text
from distill.transform.scopes_c import declared
from distill.transform.source import COMMENTS, Code, Edit, field, some, walk
from distill.transform.statements import places

_LITERAL_WORDS = """
number_literal string_literal char_literal true false null decimal_integer_literal
hex_integer_literal decimal_floating_point_literal character_literal null_literal integer float
string none
"""
_LITERALS = frozenset(_LITERAL_WORDS.split())
_TYPES = frozenset(
    (
        "primitive_type",
        "sized_type_specifier",
        "integral_type",
        "floating_point_type",
        "boolean_type",
    )
)


def declaration_order(code: Code, rng: Random) -> str:
    """Two adjacent local declarations, without initialisers or with literal ones, are swapped.

    C, C++: plain types and pointers only, as others run constructors. Python: assignments of
    literals to two names, not in a class. Each may mention neither name of the other.
    """
    sites = []
    statements = [place.statement for place in places(code)]
    for first, second in pairwise(statements):
        if first.parent != second.parent or _next(first) != second:
            continue
        one, two = _neutral(code, first), _neutral(code, second)
        if not one or not two or code.slice(first) == code.slice(second):
            continue
        if one & _words(code, second) or two & _words(code, first):
            continue
        sites.append(
            [
                Edit(first.start_byte, first.end_byte, code.slice(second)),
                Edit(second.start_byte, second.end_byte, code.slice(first)),
            ]
        )
    return code.edited(some(sites, rng))


def _next(node: Node) -> Node | None:
    """The next statement, unless something other than a comment is between."""
    following = node.next_sibling
    while following is not None and following.type in COMMENTS:
        following = following.next_sibling
    return following


def _words(code: Code, node: Node) -> set[str]:
    return set(re.findall(r"\w+", text(node)))


def _neutral(code: Code, node: Node) -> set[str]:
    """The names that a declaration declares if it is neutral, else none."""
    if code.is_directive(node.start_byte, node.end_byte):
        return set()
    if code.language == "python":
        return _python(code, node)
    if node.type != ("local_variable_declaration" if code.language == "java" else "declaration"):
        return set()
    if code.is_c_like and any(child.type == "storage_class_specifier" for child in node.children):
        return set()
    names: set[str] = set()
    for declarator in node.children_by_field_name("declarator"):
        value = declarator.child_by_field_name("value")
        if value is not None and not _is_literal(value):
            return set()
        if code.language == "java":
            names.add(text(field(declarator, "name")))
            continue
        found, is_function = declared(declarator)
        if is_function or len(found) != 1 or not _is_plain(code, node, declarator):
            return set()
        names.add(text(found[0]))
    return names


def _is_literal(value: Node) -> bool:
    if value.type == "unary_expression":
        return _is_literal(field(value, "argument" if _has_argument(value) else "operand"))
    return value.type in _LITERALS and not any(n.type == "interpolation" for n in walk(value))


def _has_argument(value: Node) -> bool:
    return value.child_by_field_name("argument") is not None


def _is_plain(code: Code, declaration: Node, declarator: Node) -> bool:
    """A plain type, or a pointer to any; array sizes are numbers."""
    for node in walk(declarator):
        if node.type == "array_declarator":
            size = node.child_by_field_name("size")
            if size is None or size.type != "number_literal":
                return False
        if node.type in (
            "function_declarator",
            "reference_declarator",
            "structured_binding_declarator",
        ):
            return False
    kind = field(declaration, "type")
    is_pointer = any(node.type == "pointer_declarator" for node in walk(declarator))
    if kind.type in _TYPES:
        return True
    is_named = kind.type == "type_identifier"
    return is_named and (is_pointer or code.language == "c")


def _python(code: Code, node: Node) -> set[str]:
    if node.type != "expression_statement" or len(node.named_children) != 1:
        return set()
    assignment = node.named_children[0]
    if assignment.type != "assignment" or assignment.child_by_field_name("type") is not None:
        return set()
    left, right = field(assignment, "left"), assignment.child_by_field_name("right")
    if left.type != "identifier" or right is None or not _is_literal(right):
        return set()
    # What is seen by name or in order of assignment stays in order.
    return {text(left)} if text(left) in identifiers(code) else set()
