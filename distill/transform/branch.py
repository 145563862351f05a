"""The two sides of an `if` change places under the negated condition."""

from __future__ import annotations

import re
from random import Random

from tree_sitter import Node

from distill.transform.loop import has_directive
from distill.transform.source import COMMENTS, Code, Edit, Site, field, has, some
from distill.transform.statements import body_indent


def branch(code: Code, rng: Random) -> str:
    """`if (c) A else B` becomes `if (!(c)) B else A`; without an else, A goes to a new one.

    A leading negation is taken away instead of doubled. Conditions that declare (C++, Java's
    patterns) stay. Of a Python chain the last condition is negated: its two blocks trade places.
    """
    sites: list[Site] = []
    for node in code.nodes:
        if node.type != "if_statement" or has_directive(code, node):
            continue
        site = _python(code, node) if code.language == "python" else _c_like(code, node)
        if site:
            sites.append(site)
    return code.edited(some(sites, rng))


def _c_like(code: Code, node: Node) -> Site:
    condition = node.child_by_field_name("condition")
    if condition is None:  # if consteval
        return []
    inner = [child for child in condition.named_children if child.type not in COMMENTS]
    if len(inner) != 1 or inner[0].type == "declaration" or has(condition, "declaration"):
        return []
    if has(condition, "instanceof_expression", *COMMENTS) or re.search(
        rb"operator\s*!(?!=)", code.source
    ):
        return []
    if code.slice(node.children[1]) == b"constexpr" or has(node, "case_statement"):
        return []
    yes, no = field(node, "consequence"), node.child_by_field_name("alternative")
    if no is not None and no.type == "else_clause":
        no = [child for child in no.named_children if child.type not in COMMENTS][-1]
    other = b"{ }" if no is None else _braced(code, no)
    new = b"if (%s) %s else %s" % (_negated(code, inner[0]), other, _braced(code, yes))
    return [Edit(node.start_byte, node.end_byte, new)]


def _braced(code: Code, statement: Node) -> bytes:
    """In braces, an else can belong to no other if."""
    body = code.slice(statement)
    return body if statement.type in ("compound_statement", "block") else b"{ " + body + b" }"


def _negated(code: Code, condition: Node) -> bytes:
    if condition.type == "unary_expression" and condition.children[0].type == "!":
        return code.slice(field(condition, "argument" if code.is_c_like else "operand"))
    return b"!(" + code.slice(condition) + b")"


def _python(code: Code, node: Node) -> Site:
    clauses = node.children_by_field_name("alternative")
    last = node
    if clauses and clauses[-1].type != "else_clause":
        return []
    if len(clauses) > 1:
        last = clauses[-2]
    condition, yes = field(last, "condition"), field(last, "consequence")
    colon = _colon(last, yes)
    head = Edit(condition.start_byte, condition.end_byte, _python_negated(code, condition))
    if not clauses:
        return _python_new_else(code, node, head, colon, yes)
    otherwise = clauses[-1]
    no = field(otherwise, "body")
    # Whole lines trade places: from the colon to the end of the block's last line.
    yes_end = code.line_start(otherwise.start_byte) - 1
    no_end = code.line_end(no.end_byte)
    if not code.is_first_on_line(otherwise.start_byte) or yes_end < yes.end_byte:
        return []
    if not re.fullmatch(rb"[ \t;\r]*(#[^\n]*)?", code.source[no.end_byte : no_end]):
        return []
    no_start = _colon(otherwise, no)
    return [
        head,
        Edit(colon, yes_end, code.source[no_start:no_end]),
        Edit(no_start, no_end, code.source[colon:yes_end]),
    ]


def _colon(clause: Node, body: Node) -> int:
    colons = [c for c in clause.children if c.type == ":" and c.end_byte <= body.start_byte]
    return colons[-1].end_byte


def _python_new_else(code: Code, node: Node, head: Edit, colon: int, body: Node) -> Site:
    if not code.is_first_on_line(node.start_byte):
        return []
    indent, inner = code.indent(node.start_byte), body_indent(code, body)
    if inner is None or not inner.startswith(indent):
        return []
    return [head, Edit(colon, colon, b"\n%spass\n%selse:" % (inner, indent))]


def _python_negated(code: Code, condition: Node) -> bytes:
    if condition.type == "not_operator":
        return code.slice(field(condition, "argument"))
    return b"not (" + code.slice(condition) + b")"
