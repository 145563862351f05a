"""Names of C and C++."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from tree_sitter import Node

from distill.transform.scopes import Binding, extent, text
from distill.transform.source import Code, ancestors, field, walk

_NAMES = frozenset(("identifier", "type_identifier", "namespace_identifier"))
_SCOPES = frozenset(
    (
        "compound_statement",
        "for_statement",
        "for_range_loop",
        "if_statement",
        "while_statement",
        "switch_statement",
        "catch_clause",
        "lambda_expression",
        "declaration_list",
        "field_declaration_list",
        "translation_unit",
    )
)
_TYPES = frozenset(("struct_specifier", "union_specifier", "enum_specifier", "class_specifier"))
_PARAMETERS = frozenset(
    ("parameter_declaration", "optional_parameter_declaration", "variadic_parameter_declaration")
)
_OWNERS = frozenset(
    ("function_definition", "lambda_expression", "catch_clause", "template_declaration")
)
_FIELD_USES = frozenset(
    ("field_expression", "field_designator", "field_initializer", "offsetof_expression")
)
_OUTSIDE = frozenset(
    ("attribute_specifier", "attribute_declaration", "friend_declaration", "using_declaration")
)
_ENTRY_POINTS = frozenset(
    ("main", "wmain", "WinMain", "wWinMain", "DllMain", "LLVMFuzzerTestOneInput")
)
_REFLECTION = frozenset(
    ("__func__", "__FUNCTION__", "__PRETTY_FUNCTION__", "typeid", "asm", "__asm__")
)
"""Words by which a program sees how it is spelled."""


def occurrences(code: Code) -> dict[str, list[Node]]:
    """Every place of every name, members left out."""
    places: dict[str, list[Node]] = {}
    for node in code.nodes:
        if node.type in _NAMES:
            places.setdefault(text(node), []).append(node)
    return places


def declared(declarator: Node) -> tuple[list[Node], bool]:
    """The names that a declarator declares, and whether as a function. None for `A::b`."""
    within = None
    node: Node | None = declarator
    while node is not None and node.type not in _NAMES:
        if node.type == "structured_binding_declarator":
            return [child for child in node.named_children if child.type in _NAMES], False
        if not node.type.endswith("declarator"):
            return [], False
        within, inner = node, node.child_by_field_name("declarator")
        node = inner or next((c for c in node.named_children if _may_declare(c)), None)
    names = [] if node is None else [node]
    return names, within is not None and within.type == "function_declarator"


def _may_declare(node: Node) -> bool:
    return node.type in _NAMES or node.type.endswith("declarator")


def scope(node: Node) -> Node:
    """The block, statement, namespace or file that a declaration lives in."""
    outer = next((above for above in ancestors(node) if above.type in _SCOPES), None)
    assert outer is not None, "a declaration outside a file"
    return outer


def bindings(code: Code) -> list[Binding]:
    return [binding for node in code.nodes for binding in _bindings_of(node)]


def _bindings_of(node: Node) -> Iterator[Binding]:
    declarators = node.children_by_field_name("declarator")
    if node.type in _PARAMETERS:
        yield from _variables(declarators, extent(_parameter_scope(node)))
    elif node.type == "declaration":
        whole = scope(node)
        for declarator in declarators:
            names, is_function = declared(declarator)
            start = None if is_function else declarator.start_byte
            for name in names:
                yield Binding(text(name), extent(whole, start), not is_function)
    elif node.type == "function_definition" and declarators:
        names, is_function = declared(declarators[0])
        if is_function and scope(node).type != "field_declaration_list":
            for name in names:
                yield Binding(text(name), extent(scope(node)))
    elif node.type in _TYPES and node.child_by_field_name("body") is not None:
        name = node.child_by_field_name("name")
        if name is not None and name.type == "type_identifier":
            yield Binding(text(name), extent(scope(node)))
    elif node.type == "type_definition":
        for declarator in declarators:
            for name in declared(declarator)[0]:
                yield Binding(text(name), extent(scope(node), node.start_byte))
    elif node.type == "alias_declaration":
        yield Binding(text(field(node, "name")), extent(scope(node), node.start_byte))
    elif node.type in ("type_parameter_declaration", "optional_type_parameter_declaration"):
        template = next((up for up in ancestors(node) if up.type == "template_declaration"), None)
        for name in node.named_children[:1]:
            if template is not None and name.type == "type_identifier":
                yield Binding(text(name), extent(template))
    elif node.type == "for_range_loop":
        yield from _variables(declarators, extent(node))
    elif node.type == "lambda_capture_initializer":
        left = field(node, "left")
        if left.type == "identifier":
            yield Binding(text(left), extent(scope(node)))


def _variables(declarators: list[Node], where: tuple[int, int]) -> Iterator[Binding]:
    for declarator in declarators:
        for name in declared(declarator)[0]:
            yield Binding(text(name), where)


def _parameter_scope(parameter: Node) -> Node:
    """The function whose parameter this is; for a prototype the list of parameters."""
    parameters = parameter.parent
    assert parameters is not None
    for above in ancestors(parameters):
        if above.type in _OWNERS:
            return above
        # The parameters of a parameter end here: `int (*f)(int x)`.
        if not above.type.endswith("declarator") or above.type == "init_declarator":
            break
    return parameters


def refused(code: Code) -> set[str]:
    """Names that something outside the snippet's own scopes may mean, or that are seen as text."""
    directives = b"\n".join(code.source[start:end] for start, end in code.directives)
    # ## makes names of parts: none is safe.
    if code.words & _REFLECTION or b"##" in directives or b"%:%:" in directives:
        return set(occurrences(code))
    names = {*_ENTRY_POINTS} | set(re.findall(r"\w+", directives.decode("utf-8", "replace")))
    for node in code.nodes:
        if node.type == "call_expression" and is_macro_call(code, node):
            names.update(_names_in(field(node, "arguments")))
        elif node.type == "qualified_identifier":
            names.update(_names_in(field(node, "name")))
        elif node.type == "enumerator":
            names.add(text(field(node, "name")))
        elif node.type in _OUTSIDE:
            names.update(_names_in(node))
        elif node.type == "linkage_specification":
            names.update(_linked(node))
        elif node.type == "declaration" and any(
            child.type == "storage_class_specifier" and text(child) == "extern"
            for child in node.children
        ):
            names.update(_declared_names(node))
        elif node.type == "field_identifier" and code.language == "cpp":
            # A method names members without `this`: such a name may also be a local's.
            parent = node.parent
            if parent is not None and parent.type not in _FIELD_USES:
                names.add(text(node))
    return names


def _linked(node: Node) -> set[str]:
    """What `extern "C"` declares."""
    return {
        name
        for inner in walk(node)
        if inner.type in ("declaration", "function_definition")
        for name in _declared_names(inner)
    }


def _declared_names(node: Node) -> set[str]:
    return {
        text(name)
        for declarator in node.children_by_field_name("declarator")
        for name in declared(declarator)[0]
    }


def _names_in(node: Node) -> set[str]:
    return {text(inner) for inner in walk(node) if inner.type in _NAMES}


@lru_cache(maxsize=8)
def macros(code: Code) -> frozenset[str]:
    """Function-like macros that the snippet defines."""
    found = re.findall(rb"#[ \t]*define[ \t]+(\w+)\(", code.source)
    return frozenset(name.decode("utf-8", "replace") for name in found)


@lru_cache(maxsize=8)
def functions(code: Code) -> frozenset[str]:
    """Everything that a declaration or a function's definition names."""
    return frozenset(
        name
        for node in code.nodes
        if node.type in ("declaration", "function_definition")
        for name in _declared_names(node)
    )


def is_macro_call(code: Code, call: Node) -> bool:
    """Whether what looks like a call may be a macro's, which sees its arguments as text.

    Macros that the snippet defines, `assert`, and names in capitals that the snippet does not
    declare.
    """
    function = field(call, "function")
    if function.type != "identifier":
        return False
    name = text(function)
    if name in macros(code) or name in ("assert", "static_assert", "offsetof", "va_arg"):
        return True
    return name.isupper() and name not in functions(code)
