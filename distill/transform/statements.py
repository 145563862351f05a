"""Places between statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tree_sitter import Node

from distill.transform.source import COMMENTS, Code, ancestors

_BLOCKS = {
    "c": frozenset(("compound_statement",)),
    "cpp": frozenset(("compound_statement",)),
    "java": frozenset(("block", "constructor_body")),
    "python": frozenset(("block", "module")),
}
_FUNCTIONS = frozenset(
    ("function_definition", "lambda_expression", "method_declaration", "constructor_declaration")
)
_DEFINITIONS = frozenset(("function_definition", "class_definition"))
_NOT_PLAIN = frozenset(("switch_statement", "match_statement", "class_definition"))
_NOT_STATEMENTS = frozenset(("attribute_declaration", "explicit_constructor_invocation"))


class InsertionPoint(NamedTuple):
    """Just before ``statement``, a child of ``block``."""

    statement: Node
    block: Node


def places(code: Code) -> Iterator[InsertionPoint]:
    """Before every statement inside a function (for Python: anywhere but in a class's body).

    Not directly in the body of a switch, where what stands before the first label never runs and
    may not declare, nor between the cases of Python's match; not before Java's `super(…)`, a Python
    docstring or `__future__`.
    """
    for block in code.nodes:
        if block.type not in _BLOCKS[code.language]:
            continue
        parent = block.parent
        if parent is not None and parent.type in _NOT_PLAIN:
            continue
        is_inside = code.language == "python" or any(
            up.type in _FUNCTIONS for up in ancestors(block)
        )
        statements = [child for child in block.named_children if child.type not in COMMENTS]
        if not is_inside or any(child.type in _NOT_STATEMENTS for child in statements):
            continue
        for number, statement in enumerate(statements):
            if statement.type.startswith("preproc"):
                continue
            if code.is_directive(statement.start_byte, statement.start_byte):
                continue
            if code.language == "python":
                if not code.is_first_on_line(statement.start_byte):
                    continue
                if number == 0 and is_string(statement):
                    continue
                if any(s.type == "future_import_statement" for s in statements[number:]):
                    continue
            yield InsertionPoint(statement, block)


def is_in_class(node: Node) -> bool:
    """Python: whether a new name here would become a class's attribute."""
    inner = next((up for up in ancestors(node) if up.type in _DEFINITIONS), None)
    return inner is not None and inner.type == "class_definition"


def is_string(statement: Node) -> bool:
    """Whether a statement is a string alone, which may be a docstring."""
    children = statement.named_children
    return (
        statement.type == "expression_statement"
        and len(children) > 0
        and children[0].type in ("string", "concatenated_string")
    )


def body_indent(code: Code, body: Node) -> bytes | None:
    """Python: how far a block of whole lines is indented; None for one on the line of its colon."""
    first = next((child for child in body.named_children if child.type not in COMMENTS), None)
    if first is None or not code.is_first_on_line(first.start_byte):
        return None
    return code.indent(first.start_byte)


def function_of(node: Node) -> Node | None:
    """The innermost function around a node."""
    return next((above for above in ancestors(node) if above.type in _FUNCTIONS), None)
