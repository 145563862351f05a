"""Comments come and go."""

from __future__ import annotations

import re
from random import Random

from tree_sitter import Node

from distill.transform.source import COMMENTS, Code, Edit, some
from distill.transform.statements import places
from distill.transform.words import NAMES

_VERBS = ("check", "compute", "copy", "count", "handle", "keep", "read", "reset", "update", "use")
COUNTS_LINES = frozenset(("__LINE__", "f_lineno", "lineno", "getLineNumber", "source_location"))
"""Words by which a program sees on which line it is."""


def comments(code: Code, rng: Random) -> str:
    """Removes some comments, or inserts some before statements; evenly, where both are possible.

    Never on lines of the preprocessor. Kept: a shebang, an encoding, and everything in a program
    that looks at its own line numbers, or in Java that writes `\\u`, which may end a comment.
    """
    if code.words & COUNTS_LINES or (code.language == "java" and "\\u" in code.text):
        return code.text
    old = [[_removal(node)] for node in code.nodes if _is_removable(code, node)]
    new = [
        [_insertion(code, place.statement.start_byte, rng)]
        for place in places(code)
        if code.is_first_on_line(place.statement.start_byte)
    ]
    both = [sites for sites in (old, new) if sites]
    return code.edited(some(rng.choice(both), rng)) if both else code.text


def _is_removable(code: Code, node: Node) -> bool:
    if node.type not in COMMENTS:
        return False
    if code.language == "python":
        return node.start_point.row > 1 or not re.search(rb"coding|^#!", code.slice(node))
    return not code.is_directive(node.start_byte, node.end_byte)


def _removal(node: Node) -> Edit:
    # A comment separates words.
    return Edit(node.start_byte, node.end_byte, b" ")


def _insertion(code: Code, start: int, rng: Random) -> Edit:
    words = f"{rng.choice(_VERBS)} the {rng.choice(NAMES)}"
    if code.language == "python":
        comment = f"# {words}"
    else:
        comment = rng.choice((f"// {words}", f"/* {words} */"))
    return Edit(start, start, comment.encode() + b"\n" + code.indent(start))
