"""Natural text: changes that a reader would hardly notice.

Other than those of code, they keep a reader's label only by convention [ours]: a few typing
errors, near synonyms, capitals and punctuation. A word is a run of letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from random import Random

_SHARE = 0.15
"""Of the words or marks that could change, how many do; at least one."""
_NEIGHBOURS = {
    # On an English keyboard, in the same row.
    left: right
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for left, right in zip(row, row[1:] + row[-2], strict=True)
}


def typos(text: str, rng: Random) -> str:
    """Typing errors inside words of four letters or more: two letters swapped, one left out, one
    doubled, or one replaced by its neighbour on the keyboard. First and last letters stay.
    """

    def mistyped(word: str) -> str:
        at = rng.randrange(1, len(word) - 2)
        before, here, after = word[:at], word[at], word[at + 1 :]
        kinds = [before + after, before + here + here + after]
        if here != after[0]:
            kinds.append(before + after[0] + here + after[1:])
        if here in _NEIGHBOURS:
            kinds.append(before + _NEIGHBOURS[here] + after)
        return rng.choice(kinds)

    return _replaced(text, r"[^\W\d_]{4,}", mistyped, rng)


@cache
def synonyms_by_word() -> dict[str, tuple[str, ...]]:
    """The shipped list: lower-case word to near synonyms of the same part of speech and mood."""
    lines = resources.files("distill.transform").joinpath("synonyms.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in lines.splitlines()]
    return {word: tuple(others) for word, *others in rows}


def synonyms(text: str, rng: Random) -> str:
    """Some words of the shipped list become near synonyms; an initial capital stays one.

    After *a* and *an* only where the article stays right.
    """
    known = synonyms_by_word()

    def replaced(found: str) -> str:
        article, _, word = found.rpartition(" ")
        others = [
            other
            for other in known[word.lower()]
            if article.strip().lower() not in ("a", "an")
            or (other[0] in "aeiou") == (word[0].lower() in "aeiou")
        ]
        if not others:
            return found
        new = rng.choice(others)
        new = new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new
        return found[: len(found) - len(word)] + new

    words = "|".join(sorted(known, key=len, reverse=True))
    return _replaced(text, rf"(?i)\b(?:an? )?(?:{words})\b(?!['’-])", replaced, rng)


def case(text: str, rng: Random) -> str:
    """Some words change their case: to lower, to upper, or their first letter alone."""

    def recased(word: str) -> str:
        kinds = (word.lower(), word.upper(), word[0].swapcase() + word[1:])
        # ß becomes SS and does not come back: a change of case keeps the letters.
        changed = [kind for kind in kinds if kind != word and kind.casefold() == word.casefold()]
        return rng.choice(changed) if changed else word

    return _replaced(text, r"[^\W\d_]+", recased, rng)


def punctuation(text: str, rng: Random) -> str:
    """Some marks change: an exclamation mark is doubled or becomes a full stop, a full stop is left
    out or becomes three, a comma is left out. Marks inside a number, a word or a smiley stay.
    """
    kinds = {"!": ("!!", "."), ".": ("", "...", "!"), ",": ("",), ";": (",",), "?": ("??",)}
    return _replaced(
        text, r"(?<=[^\W\d_])[!.,;?](?=\s|$)", lambda mark: rng.choice(kinds[mark]), rng
    )


def _replaced(text: str, pattern: str, change: Callable[[str], str], rng: Random) -> str:
    """About ``_SHARE`` of the matches changed, at least one if any."""
    found = list(re.finditer(pattern, text))
    if not found:
        return text
    num = max(1, sum(rng.random() < _SHARE for _ in found))
    parts: list[str] = []
    position = 0
    for match in sorted(rng.sample(found, num), key=lambda match: match.start()):
        parts += [text[position : match.start()], change(match.group())]
        position = match.end()
    return "".join([*parts, text[position:]])


TEXT_TRANSFORMATIONS: dict[str, Callable[[str, Random], str]] = {
    "typos": typos,
    "synonyms": synonyms,
    "case": case,
    "punctuation": punctuation,
}
"""Each returns the text unchanged where it does not apply."""
