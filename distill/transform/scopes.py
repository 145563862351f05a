"""What all languages say about their names."""

from __future__ import annotations

from typing import NamedTuple

from tree_sitter import Node


class Binding(NamedTuple):
    """A declaration of a name, and the bytes in which the name means what is declared."""

    name: str
    extent: tuple[int, int]
    is_defined: bool = True
    """False where the snippet only announces what others define, as a prototype does."""


def text(node: Node) -> str:
    assert node.text is not None
    return node.text.decode("utf-8", "surrogatepass")


def extent(node: Node, start: int | None = None) -> tuple[int, int]:
    return (node.start_byte if start is None else start, node.end_byte)
