"""Source text with its syntax tree, and edits of it.

All positions are byte offsets into the UTF-8 text, as tree-sitter counts them, so that a letter of
several bytes in a string or a comment moves nothing.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random
from typing import NamedTuple

from tree_sitter import Language, Node, Parser, Tree

from distill.errors import ConfigError

LANGUAGES: tuple[str, ...] = ("c", "cpp", "java", "python")

STRINGS = frozenset(
    (
        "string_literal",
        "raw_string_literal",
        "char_literal",
        "character_literal",
        "system_lib_string",
        "user_defined_literal",
        "string",
    )
)
"""Nodes whose inside is text or belongs to one token."""
COMMENTS = frozenset(("comment", "line_comment", "block_comment"))
_NAMES = ("identifier", "string_content", "string_fragment")
SCOPES_OF_CONTROL = frozenset(
    (
        "function_definition",
        "lambda_expression",
        "lambda",
        "method_declaration",
        "constructor_declaration",
        "class_body",
        "class_definition",
        "field_declaration_list",
    )
)
"""Where `break`, `continue` and `return` of the outside end to reach."""


# A backslash or a comment of several lines continues a directive.
_DIRECTIVE = re.compile(
    rb"(?:^|\n)[ \t]*(?:/\*[^\n]*\*/)?[ \t]*(?:#|%:)(?:/\*[\s\S]*?\*/|\\\r?\n|[^\n])*(?:\n|$)"
)


class Edit(NamedTuple):
    """Replace the bytes from ``start`` to ``end`` by ``text``."""

    start: int
    end: int
    text: bytes


Site = Sequence[Edit]
"""Edits that belong together: all are made, or none."""


@cache
def _parser(language: str) -> Parser:
    if language not in LANGUAGES:
        raise ConfigError(
            f"language must be one of {', '.join(LANGUAGES)}, got {language!r}: "
            "only these have a grammar"
        )
    # Late: a run that transforms nothing loads no grammar.
    grammar = importlib.import_module(f"tree_sitter_{language}")
    return Parser(Language(grammar.language()))


@dataclass(frozen=True, eq=False)
class Code:
    """A snippet and its syntax tree; made by :meth:`parse`."""

    text: str
    language: str
    source: bytes
    tree: Tree

    @classmethod
    def parse(cls, text: str, language: str) -> Code:
        """Any text has a tree; ``is_valid`` tells whether it is a program's.

        Raises ConfigError for a language without a grammar.
        """
        # surrogatepass: half a surrogate pair is no valid source, but no crash either.
        source = text.encode("utf-8", "surrogatepass")
        return cls(text, language, source, _parser(language).parse(source))

    @property
    def is_valid(self) -> bool:
        """Whether all of the text fits the grammar: no ERROR and no missing node."""
        return not self.tree.root_node.has_error

    @property
    def is_c_like(self) -> bool:
        return self.language in ("c", "cpp")

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, parents before children, in the order of the text."""
        return tuple(walk(self.tree.root_node))

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word of the text, wherever it stands."""
        return frozenset(re.findall(r"\w+", self.text))

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name: of a member, a label or a macro, too, and what a whole string spells."""
        tokens = {self.slice(node) for node in self.nodes if node.type.endswith(_NAMES)}
        for start, end in self.directives:
            tokens.update(re.findall(rb"\w+", self.source[start:end]))
        return frozenset(token.decode("utf-8", "replace") for token in tokens)

    @cached_property
    def directives(self) -> tuple[tuple[int, int], ...]:
        """Lines of the preprocessor with the newline before and after them: byte ranges.

        A line in a comment or a raw string that looks like a directive counts as one: that only
        leaves more alone.
        """
        if not self.is_c_like:
            return ()
        spans, position = [], 0
        while found := _DIRECTIVE.search(self.source, position):
            spans.append(found.span())
            # The newline between two directives belongs to both.
            position = max(found.end() - 1, found.start() + 1)
        return tuple(spans)

    def slice(self, node: Node) -> bytes:
        return self.source[node.start_byte : node.end_byte]

    def is_directive(self, start: int, end: int) -> bool:
        """Whether the bytes from ``start`` to ``end`` touch a line of the preprocessor."""
        return any(first < max(end, start + 1) and start < last for first, last in self.directives)

    def line_start(self, position: int) -> int:
        return self.source.rfind(b"\n", 0, position) + 1

    def line_end(self, position: int) -> int:
        """Where the line's newline stands, or the end of the text."""
        found = self.source.find(b"\n", position)
        return len(self.source) if found < 0 else found

    def indent(self, position: int) -> bytes:
        """The white space at the start of the line."""
        start = self.line_start(position)
        return self.source[start : start + _leading(self.source[start:])]

    def is_first_on_line(self, position: int) -> bool:
        """Nothing but white space before it, and the line is not a continued one."""
        start = self.line_start(position)
        is_continued = self.source[:start].rstrip(b"\r\n").endswith(b"\\") and start > 0
        return not self.source[start:position].strip() and not is_continued

    def edited(self, edits: Sequence[Edit]) -> str:
        """The text after edits that do not overlap."""
        parts, position = [], 0
        for edit in sorted(edits):
            assert edit.start >= position, f"edits overlap at byte {edit.start}"
            parts += [self.source[position : edit.start], edit.text]
            position = edit.end
        return b"".join([*parts, self.source[position:]]).decode("utf-8", "surrogatepass")


def _leading(line: bytes) -> int:
    return len(line) - len(line.lstrip(b" \t"))


def walk(node: Node, *, into: Callable[[Node], bool] = lambda node: True) -> Iterator[Node]:
    """``node`` and all below it in the order of the text; ``into`` may refuse a node's children."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        # The root always: a function is asked about what is inside it.
        if top is node or into(top):
            stack.extend(reversed(top.children))


def ancestors(node: Node) -> Iterator[Node]:
    """From the parent outwards."""
    while (parent := node.parent) is not None:
        yield parent
        node = parent


def has(node: Node, *types: str) -> bool:
    """Whether a node of one of the types is below."""
    return any(inner.type in types for inner in walk(node))


def field(node: Node, name: str) -> Node:
    child = node.child_by_field_name(name)
    assert child is not None, f"a {node.type} without a {name}"
    return child


def some(sites: Sequence[Site], rng: Random, share: float = 0.5) -> list[Edit]:
    """The edits of a random choice of sites, about ``share`` of them and at least one if any.

    Of sites that overlap, the first drawn is kept.
    """
    drawn = rng.sample(sites, len(sites))
    num = max(1, sum(rng.random() < share for _ in drawn))
    kept: list[Edit] = []
    spans: list[tuple[int, int]] = []
    for site in drawn:
        span = (min(edit.start for edit in site), max(edit.end for edit in site))
        # Touching counts: two insertions at one place have no order.
        if any(first <= span[1] and span[0] <= last for first, last in spans):
            continue
        kept += site
        spans.append(span)
        if len(spans) == num:
            break
    return kept
