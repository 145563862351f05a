"""The transformations by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from random import Random

from distill.errors import ConfigError
from distill.transform.branch import branch
from distill.transform.comments import comments
from distill.transform.constants import constants
from distill.transform.dead_code import dead_code
from distill.transform.layout import layout
from distill.transform.loop import loop
from distill.transform.names import renamed
from distill.transform.order import declaration_order
from distill.transform.source import Code

Transformation = Callable[[Code, Random], str]


def _checked(transformation: Transformation) -> Transformation:
    """Source that does not parse, and a result that would not, leave the text as it is."""

    @wraps(transformation)
    def checked(code: Code, rng: Random) -> str:
        if not code.is_valid:
            return code.text
        result = transformation(code, rng)
        return result if Code.parse(result, code.language).is_valid else code.text

    return checked


TRANSFORMATIONS: dict[str, Transformation] = {
    "rename": _checked(renamed),
    "dead_code": _checked(dead_code),
    "loop": _checked(loop),
    "branch": _checked(branch),
    "comments": _checked(comments),
    "layout": _checked(layout),
    "constants": _checked(constants),
    "declaration_order": _checked(declaration_order),
}
"""Each returns the text unchanged where it does not apply."""


def transformed(text: str, language: str, name: str, seed: int) -> str | None:
    """``text`` after the transformation ``name``: the same for the same seed.

    None where the source does not parse, nothing applies, or the result would not parse. Raises
    ConfigError for an unknown language or transformation.
    """
    if name not in TRANSFORMATIONS:
        raise ConfigError(
            f"transformation must be one of {', '.join(TRANSFORMATIONS)}, got {name!r}"
        )
    # A string seeds by its digest: seeds 1 and 2 are unrelated, and so are two transformations.
    result = TRANSFORMATIONS[name](Code.parse(text, language), Random(f"{name} {seed}"))
    return None if result == text else result
