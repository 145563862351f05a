"""Integer literals become sums."""

from __future__ import annotations

import re
from random import Random

from tree_sitter import Node

from distill.transform.scopes_c import is_macro_call
from distill.transform.source import STRINGS, Code, Edit, ancestors, some

_LITERALS = {
    "c": "number_literal",
    "cpp": "number_literal",
    "java": "decimal_integer_literal",
    "python": "integer",
}
_INT_MAX = 2**31 - 1
_NOT_INSIDE = STRINGS | frozenset(
    (
        "enumerator",
        "bitfield_clause",
        "template_argument_list",
        "template_parameter_list",
        "attribute_specifier",
        "attribute_declaration",
        "alignas_qualifier",
        "gnu_asm_expression",
        "subscript_designator",
        "annotation",
        "case_pattern",
        "type",
    )
)


def constants(code: Code, rng: Random) -> str:
    """Some decimal integer literals are unfolded: 10 becomes `(7 + 3)` or `(12 - 2)`.

    Only `int`s without suffix, whose parts and sum are `int`s too. Not 0 in C and C++, where it may
    be a null pointer or make a function pure; not where no expression may stand or `>` would end
    one, in the preprocessor, in what a macro may see as text, or next to Python's `is`.
    """
    sites = [[_unfolded(node, code, rng)] for node in code.nodes if _may_unfold(code, node)]
    return code.edited(some(sites, rng))


def _may_unfold(code: Code, node: Node) -> bool:
    if node.type != _LITERALS[code.language] or not re.fullmatch(
        rb"0|[1-9][0-9]{0,9}", code.slice(node)
    ):
        return False
    value = int(code.slice(node))
    if value > _INT_MAX or (value == 0 and code.is_c_like):
        return False
    if code.is_directive(node.start_byte, node.end_byte):
        return False
    for above in ancestors(node):
        if above.type in _NOT_INSIDE:
            return False
        if above.type == "comparison_operator" and b"is" in re.findall(rb"\w+", code.slice(above)):
            return False
        if code.is_c_like and above.type == "call_expression" and is_macro_call(code, above):
            return False
    return True


def _unfolded(node: Node, code: Code, rng: Random) -> Edit:
    value = int(code.slice(node))
    part = rng.randint(1, 99)
    if part < value:
        new = f"({value - part} + {part})"
    elif value + part <= _INT_MAX:
        new = f"({value + part} - {part})"
    else:
        new = f"({value})"
    return Edit(node.start_byte, node.end_byte, new.encode())
