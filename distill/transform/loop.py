"""`for` becomes `while`, and `while` becomes `for`."""

from __future__ import annotations

from random import Random

from tree_sitter import Node

from distill.transform.names import fresh_name
from distill.transform.scopes import text
from distill.transform.scopes_python import REFLECTION, bindings
from distill.transform.source import SCOPES_OF_CONTROL, Code, Edit, Site, field, has, some, walk
from distill.transform.statements import body_indent, is_in_class
from distill.transform.words import NAMES

_LOOPS = frozenset(
    ("for_statement", "while_statement", "do_statement", "for_range_loop", "enhanced_for_statement")
)
_PLAIN_CALLS = frozenset(("range", "len", "sorted", "list", "tuple", "set", "dict", "str", "int"))
_PLAIN_METHODS = frozenset(("items", "keys", "values", "split", "splitlines"))


def loop(code: Code, rng: Random) -> str:
    """Some `for` loops become `while` loops, and the other way round.

    C, C++, Java: `for (a; b; c) s` is `{ a; while (b) { s c; } }` if no `continue` of this loop
    would skip `c`; `while (b) s` is `for (; b; ) s`. Python: a `for` asks an iterator of its own,
    a `while` counts endlessly and breaks; loops with an `else` stay.
    """
    sites: list[Site] = []
    names: list[str] = []
    for node in code.nodes:
        if node.type not in ("for_statement", "while_statement"):
            continue
        if has_directive(code, node) or has(node, "labeled_statement", *_jump_targets(node)):
            continue
        if code.language == "python":
            # Nested loops must not share an iterator.
            names.append(fresh_name(code, rng, [name for name in NAMES if name not in names]))
            site = _python(code, node, names[-1]) if names[-1] not in names[:-1] else []
        elif node.type == "while_statement":
            site = _for(code, node)
        else:
            site = _while(code, node)
        if site:
            sites.append(site)
    return code.edited(some(sites, rng))


def has_directive(code: Code, node: Node) -> bool:
    return code.is_directive(node.start_byte, node.end_byte)


def _jump_targets(node: Node) -> tuple[str, ...]:
    """A `case` below that belongs to a switch around the loop (Duff's device)."""
    own = any(inner.type == "switch_statement" for inner in walk(node))
    return () if own else ("case_statement",)


def _for(code: Code, node: Node) -> Site:
    """`while (b)` → `for (; b; )`."""
    condition = field(node, "condition")
    inside = code.source[condition.start_byte + 1 : condition.end_byte - 1]
    return [Edit(node.start_byte, condition.end_byte, b"for (; " + inside.strip(b" \t") + b"; )")]


def _while(code: Code, node: Node) -> Site:
    body = field(node, "body")
    parent = node.parent
    assert parent is not None
    if parent.type == "labeled_statement" or skips(body) or not _falls_through(code, body):
        return []
    start, condition, update = _clauses(code, node)
    open_ = b"{ " + start + b" while (" + (condition or _true(code)) + b") { "
    close = b" " + b"".join(clause + b"; " for clause in update) + b"} }"
    return [
        Edit(node.start_byte, body.start_byte, open_),
        Edit(body.end_byte, body.end_byte, close),
    ]


def _true(code: Code) -> bytes:
    return b"true" if code.language == "java" else b"1"


def _clauses(code: Code, node: Node) -> tuple[bytes, bytes, list[bytes]]:
    """Initialisation with its semicolon, condition, updates."""
    name = "init" if code.language == "java" else "initializer"
    starts = [code.slice(child) for child in node.children_by_field_name(name)]
    start = b", ".join(starts) if len(starts) < 2 else b"; ".join(starts)
    if start and not start.endswith(b";"):
        start += b";"
    condition = node.child_by_field_name("condition")
    updates = [code.slice(child) for child in node.children_by_field_name("update")]
    return start, b"" if condition is None else code.slice(condition), updates


def skips(body: Node) -> bool:
    """Whether a `continue` in the body is this loop's own, or names a label."""
    into = lambda node: node.type not in _LOOPS | SCOPES_OF_CONTROL  # noqa: E731
    if body.type in _LOOPS:
        return has(body, "continue_statement")
    own = any(node.type == "continue_statement" for node in walk(body, into=into))
    return own or any(
        node.type == "continue_statement" and node.named_child_count > 0 for node in walk(body)
    )


def _falls_through(code: Code, body: Node) -> bool:
    """Java refuses an update that cannot be reached: the body must be able to end normally."""
    if code.language != "java":
        return True
    inside = [body] if body.type != "block" else body.named_children
    last = inside[-1].type if inside else "expression_statement"
    if last == "if_statement":
        return inside[-1].child_by_field_name("alternative") is None
    return last in ("expression_statement", "local_variable_declaration", "enhanced_for_statement")


def _python(code: Code, node: Node, name: str) -> Site:
    """The header alone changes; the body stays where it is."""
    body = field(node, "body")
    start = node.start_byte
    colon = next(c for c in node.children if c.type == ":" and c.end_byte <= body.start_byte)
    inner = body_indent(code, body)
    indent = code.indent(start)
    if (
        inner is None
        or not inner.startswith(indent)
        or node.child_by_field_name("alternative") is not None
        or not code.is_first_on_line(start)
        or is_in_class(node)
        or code.words & (REFLECTION | {"__del__", "weakref"})
        or _rebinds(code)
    ):
        return []
    step = inner[len(indent) :]
    if node.type == "while_statement":
        condition = code.slice(field(node, "condition"))
        new = b"for %s in iter(int, 1):\n%sif not (%s):\n%s%sbreak" % (
            name.encode(),
            inner,
            condition,
            inner,
            step,
        )
        return [Edit(start, colon.end_byte, new)]
    target, iterable = field(node, "left"), field(node, "right")
    is_async = code.source[start : start + 5] == b"async"
    if is_async or has(target, "attribute", "subscript") or not _is_plain(iterable):
        return []
    new = (
        b"%(name)s = iter((%(iterable)s))\n%(indent)swhile True:\n%(inner)stry:\n"
        b"%(inner)s%(step)s%(target)s = next(%(name)s)\n"
        b"%(inner)sexcept StopIteration:\n%(inner)s%(step)sbreak"
    ) % {
        b"name": name.encode(),
        b"iterable": code.slice(iterable),
        b"indent": indent,
        b"inner": inner,
        b"step": step,
        b"target": code.slice(target),
    }
    return [Edit(start, colon.end_byte, new)]


def _rebinds(code: Code) -> bool:
    """Whether the snippet gives another meaning to what the new loops call."""
    names = {binding.name for binding in bindings(code)}
    return bool(names & {"iter", "next", "int", "StopIteration"})


def _is_plain(iterable: Node) -> bool:
    """No generator that only the loop holds: it would be closed later than before."""
    for node in walk(iterable):
        if node.type in ("generator_expression", "yield", "await"):
            return False
        if node.type == "call":
            function = field(node, "function")
            if function.type == "attribute":
                if text(field(function, "attribute")) not in _PLAIN_METHODS:
                    return False
            elif text(function) not in _PLAIN_CALLS | {"enumerate", "zip", "reversed"}:
                return False
    return True
