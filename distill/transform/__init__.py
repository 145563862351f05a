"""Behaviour-preserving transformations of source code, text and features: pure functions.

Each takes what it changes and a random generator, so that a seed gives the same result again, and
is careful: where it cannot tell that behaviour stays, it changes nothing.
"""

from __future__ import annotations

from distill.transform.apply import TRANSFORMATIONS, transformed
from distill.transform.names import fresh_name, identifiers, rename
from distill.transform.source import LANGUAGES, Code

__all__ = [
    "LANGUAGES",
    "TRANSFORMATIONS",
    "Code",
    "fresh_name",
    "identifiers",
    "rename",
    "transformed",
]
