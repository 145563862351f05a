"""The changes of one text that keep its meaning or behaviour."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from distill.transform import (
    TRANSFORMATIONS,
    Code,
    fresh_name,
    identifiers,
    rename,
    transformed,
)
from distill.transform.text import TEXT_TRANSFORMATIONS

STYLES = tuple(name for name in TRANSFORMATIONS if name != "rename")
"""What a transfer of style is made of; renaming is an attack of its own."""
WORD_STYLES = ("synonyms", "typos")
"""Of natural text, what replaces single words."""
MAX_REPLACED = 0.15
"""Share of a text's words that may be replaced; one may always be, wherever it stands."""
TRIES = 3
"""Variants of each style of natural text in a round."""
WORD = re.compile(r"[A-Za-z]{3,}")


class Space(Protocol):
    """One text and its neighbours."""

    @property
    def text(self) -> str: ...
    @property
    def parts(self) -> tuple[str, ...]:
        """What can be replaced, in order of appearance."""
        ...

    def substitutes(self, part: str, num: int, rng: random.Random) -> list[str]:
        """Up to ``num`` different ones for a part, none of which is the part."""
        ...

    def replaced(self, new: Mapping[str, str]) -> str | None:
        """The text with these parts replaced everywhere; None where that is not valid."""
        ...

    def styled(self, rng: random.Random) -> list[str]:
        """The text in other styles, one for each way there is."""
        ...

    def moved(self, text: str) -> Space:
        """The space around another text, found in this one."""
        ...


class CodeSpace:
    """Identifiers under consistent renaming; styles are the other transformations of code.

    ``names`` are taken as new ones, as MHM does: those of other snippets of the data.
    """

    def __init__(self, text: str, language: str, names: Sequence[str] = ()) -> None:
        self.text = text
        self._language, self._names = language, names
        self._code = Code.parse(text, language)

    @property
    def parts(self) -> tuple[str, ...]:
        return identifiers(self._code) if self._code.is_valid else ()

    def substitutes(self, part: str, num: int, rng: random.Random) -> list[str]:
        found = [fresh_name(self._code, rng, self._names) for _ in range(2 * num)]
        return list(dict.fromkeys(found))[:num]

    def replaced(self, new: Mapping[str, str]) -> str | None:
        if len(set(new.values())) < len(new):
            return None
        return rename(self._code, new)

    def styled(self, rng: random.Random) -> list[str]:
        seed = rng.randrange(2**31)
        found = [transformed(self.text, self._language, name, seed) for name in STYLES]
        return [text for text in found if text is not None]

    def moved(self, text: str) -> CodeSpace:
        return CodeSpace(text, self._language, self._names)


class TextSpace:
    """Words of at least three letters, under synonyms and typing errors; styles are the rest.

    A reader must still agree [ours]: at most a share of the words is replaced, none of them twice,
    and a style is taken once.
    """

    def __init__(self, text: str, used: frozenset[str] = frozenset()) -> None:
        """``used``: names of the transformations that the text has gone through."""
        self.text = text
        self._used = used
        self._ways: dict[str, str] = {}  # the style that made each text

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(WORD.findall(self.text)))

    def substitutes(self, part: str, num: int, rng: random.Random) -> list[str]:
        ways = [TEXT_TRANSFORMATIONS[name] for name in WORD_STYLES]
        found = [ways[i % 2](part, rng) for i in range(2 * num)]
        return [word for word in dict.fromkeys(found) if word != part][:num]

    def replaced(self, new: Mapping[str, str]) -> str | None:
        words = WORD.findall(self.text)
        if len(new) > 1 and sum(word in new for word in words) > MAX_REPLACED * len(words):
            return None
        return WORD.sub(lambda match: new.get(match.group(), match.group()), self.text)

    def styled(self, rng: random.Random) -> list[str]:
        left = [name for name in TEXT_TRANSFORMATIONS if name not in self._used]
        found = {TEXT_TRANSFORMATIONS[n](self.text, rng): n for n in left for _ in range(TRIES)}
        self._ways = {text: name for text, name in found.items() if text != self.text}
        return list(self._ways)

    def moved(self, text: str) -> TextSpace:
        name = self._ways.get(text)
        return TextSpace(text, self._used | (frozenset(WORD_STYLES) if name is None else {name}))
