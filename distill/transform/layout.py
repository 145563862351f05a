"""White space between tokens."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from tree_sitter import Node

from distill.transform.comments import COUNTS_LINES
from distill.transform.scopes_c import is_macro_call
from distill.transform.source import COMMENTS, STRINGS, Code, Edit, ancestors, walk
from distill.transform.statements import places

_LINE_COMMENTS = (b"//", b"#")
_OPERATORS = frozenset(
    ("binary_expression", "assignment_expression", "init_declarator", "binary_operator")
)


class Gap(NamedTuple):
    """Between two tokens: white space or nothing."""

    start: int
    end: int
    before: Node
    after: Node


def layout(code: Code, rng: Random) -> str:
    """One of: braces on lines of their own or not, another indentation, blank lines, wider spaces.

    Never inside strings, comments, or lines of the preprocessor with the newlines around them;
    where something was, something stays. Python: blank lines before statements and spaces within
    lines only.
    """
    if code.words & COUNTS_LINES:
        return code.text
    styles = [_spaces, _blank_lines]
    if code.language != "python":
        styles += [_braces, _indentation]
    for style in rng.sample(styles, len(styles)):
        edits = style(code, rng)
        if edits:
            return code.edited(edits)
    return code.text


def gaps(code: Code) -> Iterator[Gap]:
    """Gaps that may be widened; those with a newline after a line comment keep one."""
    before = None
    for token in walk(code.tree.root_node, into=lambda n: n.type not in STRINGS | COMMENTS):
        is_token = token.child_count == 0 or token.type in STRINGS | COMMENTS
        if not is_token or token.start_byte == token.end_byte:
            continue
        if before is not None:
            gap = Gap(before.end_byte, token.start_byte, before, token)
            is_white = not code.source[gap.start : gap.end].strip(b" \t\r\n")
            if is_white and not code.is_directive(gap.start, gap.end):
                yield gap
        before = token


def _ends_line(code: Code, gap: Gap) -> bool:
    """Whether the gap's newline ends a comment."""
    return gap.before.type in COMMENTS and code.slice(gap.before).startswith(_LINE_COMMENTS)


def _spaces(code: Code, rng: Random) -> list[Edit]:
    """Spaces around operators and after commas, one wider than before."""
    wide = rng.choice((b" ", b"  "))
    edits = []
    for gap in gaps(code):
        old = code.source[gap.start : gap.end]
        is_operator = any(
            token.parent is not None and token.parent.type in _OPERATORS and not token.is_named
            for token in (gap.before, gap.after)
        )
        if b"\n" in old or not (is_operator or gap.before.type == ","):
            continue
        if not old and _is_seen(code, gap.before):
            continue
        if len(old) != len(wide):
            edits.append(Edit(gap.start, gap.end, wide))
    return edits


def _is_seen(code: Code, token: Node) -> bool:
    """Whether a macro may see as text that a space was added."""
    return code.is_c_like and any(
        above.type == "call_expression" and is_macro_call(code, above) for above in ancestors(token)
    )


def _blank_lines(code: Code, rng: Random) -> list[Edit]:
    """A blank line before some statements."""
    starts = sorted(
        {
            code.line_start(p.statement.start_byte)
            for p in places(code)
            if code.is_first_on_line(p.statement.start_byte)
        }
    )
    starts = [start for start in starts if not code.is_directive(start, start)]
    if not starts:
        return []
    chosen = rng.sample(starts, rng.randint(1, len(starts)))
    return [Edit(start, start, b"\n") for start in chosen]


def _braces(code: Code, rng: Random) -> list[Edit]:
    """Opening braces on their own line, or on the line before."""
    is_own_line = rng.random() < 0.5
    edits = []
    for gap in gaps(code):
        if gap.after.type != "{" or _ends_line(code, gap):
            continue
        old = code.source[gap.start : gap.end]
        new = b"\n" + code.indent(gap.before.start_byte) if is_own_line else b" "
        if (b"\n" in old) != is_own_line:
            edits.append(Edit(gap.start, gap.end, new))
    return edits


def _indentation(code: Code, rng: Random) -> list[Edit]:
    """Every line's indentation, so many times two spaces, four, eight, or tabs."""
    step = rng.choice((b"  ", b"    ", b"        ", b"\t"))
    edits = []
    for gap in gaps(code):
        old = code.source[gap.start : gap.end]
        if b"\n" not in old:
            continue
        kept, indent = old[: old.rfind(b"\n") + 1], old[old.rfind(b"\n") + 1 :]
        depth = len(indent.expandtabs(4)) // 4
        new = step * depth
        if new != indent:
            edits.append(Edit(gap.start, gap.end, kept + new))
    return edits
