"""Names of Java: local variables and parameters, and methods that nothing can override."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from distill.transform.scopes import Binding, extent, text
from distill.transform.source import Code, ancestors, field, has

_SCOPES = frozenset(
    (
        "block",
        "constructor_body",
        "for_statement",
        "switch_block",
        "lambda_expression",
        "try_with_resources_statement",
        "program",
    )
)
_CALLABLES = frozenset(("method_declaration", "constructor_declaration", "lambda_expression"))
_NEVER = {
    # parent type: the field whose identifier is no variable's name
    "field_access": "field",
    "element_value_pair": "key",
    "enum_constant": "name",
    "class_declaration": "name",
    "interface_declaration": "name",
    "enum_declaration": "name",
    "record_declaration": "name",
    "annotation_type_declaration": "name",
    "constructor_declaration": "name",
    "annotation": "name",
    "marker_annotation": "name",
}
_WHOLE = frozenset(
    (
        "labeled_statement",
        "break_statement",
        "continue_statement",
        "scoped_identifier",
        "package_declaration",
        "import_declaration",
    )
)
_METHODS = frozenset(("method_declaration", "method_invocation"))


def occurrences(code: Code) -> dict[str, list[Node]]:
    """Every place of every variable, and of every method that :func:`methods` allows."""
    places: dict[str, list[Node]] = {}
    allowed = methods(code)
    for node in code.nodes:
        if node.type != "identifier":
            continue
        parent = node.parent
        assert parent is not None
        if parent.type in _METHODS and parent.child_by_field_name("name") == node:
            is_name = text(node) in allowed
        elif parent.type == "labeled_statement":
            is_name = parent.named_children[0] != node
        elif parent.type in _NEVER:
            is_name = parent.child_by_field_name(_NEVER[parent.type]) != node
        elif parent.type == "method_reference":
            is_name = parent.children[0] == node
        else:
            is_name = parent.type not in _WHOLE
        if is_name:
            places.setdefault(text(node), []).append(node)
    return places


def methods(code: Code) -> frozenset[str]:
    """Methods that are private or static wherever they are declared, and called without a prefix.

    None if a class inherits or is an enum or record: the name may then be another's, too.
    """
    allowed: set[str] = set()
    refused = {"main"}
    for node in code.nodes:
        if node.type in ("superclass", "super_interfaces", "extends_interfaces"):
            return frozenset()
        if node.type == "method_declaration":
            modifiers = next((c for c in node.children if c.type == "modifiers"), None)
            words = set() if modifiers is None else {c.type for c in modifiers.children}
            is_own = bool(words & {"private", "static"}) and "annotation" not in str(words)
            (allowed if is_own else refused).add(text(field(node, "name")))
        elif node.type == "method_invocation" and node.child_by_field_name("object") is not None:
            refused.add(text(field(node, "name")))
        elif node.type == "method_reference":
            refused.update(text(c) for c in node.named_children if c.type == "identifier")
        elif node.type == "object_creation_expression" and has(node, "class_body"):
            return frozenset()
    return frozenset(allowed - refused)


def bindings(code: Code) -> list[Binding]:
    allowed = methods(code)
    found = [binding for node in code.nodes for binding in _variables(node)]
    found += [Binding(name, extent(code.tree.root_node)) for name in allowed]
    return found


def _variables(node: Node) -> Iterator[Binding]:
    if node.type == "local_variable_declaration":
        for declarator in node.children_by_field_name("declarator"):
            yield _binding(field(declarator, "name"), _scope(node), declarator.start_byte)
    elif node.type in ("formal_parameter", "catch_formal_parameter"):
        where = next(
            (up for up in ancestors(node) if up.type in (*_CALLABLES, "catch_clause")), None
        )
        if where is not None:
            yield _binding(field(node, "name"), where)
    elif node.type == "spread_parameter":
        where = next((up for up in ancestors(node) if up.type in _CALLABLES), None)
        if where is not None:
            yield _binding(field(node.named_children[-1], "name"), where)
    elif node.type == "lambda_expression":
        parameters = field(node, "parameters")
        if parameters.type == "identifier":
            yield _binding(parameters, node)
        elif parameters.type == "inferred_parameters":
            yield from (_binding(name, node) for name in parameters.named_children)
    elif node.type == "enhanced_for_statement":
        yield _binding(field(node, "name"), node)
    elif node.type == "resource" and (name := node.child_by_field_name("name")) is not None:
        yield _binding(name, _scope(node))


def _binding(name: Node, where: Node, start: int | None = None) -> Binding:
    return Binding(text(name), extent(where, start))


def _scope(node: Node) -> Node:
    return next(above for above in ancestors(node) if above.type in _SCOPES)


def refused(code: Code) -> set[str]:
    """Fields, constants, patterns, case labels, and names that a string gives to reflection."""
    names: set[str] = set()
    for node in code.nodes:
        if node.type in ("field_declaration", "constant_declaration"):
            for declarator in node.children_by_field_name("declarator"):
                names.add(text(field(declarator, "name")))
        elif node.type == "record_declaration":
            names.update(text(n) for n in _identifiers(field(node, "parameters")))
        elif node.type in (
            "enum_constant",
            "switch_label",
            "instanceof_expression",
            "type_pattern",
        ):
            names.update(text(n) for n in _identifiers(node))
        elif node.type == "string_fragment":
            names.add(text(node))
    return names


def _identifiers(node: Node) -> list[Node]:
    return [c for c in node.named_children if c.type == "identifier"] + [
        inner for c in node.named_children for inner in _identifiers(c)
    ]
