"""Which names of a snippet may be renamed, and renaming them.

A name is renamed wherever it is spelled: the same spelling in two scopes gets the same new
spelling. As the new spelling occurs nowhere before, shadowing and capture stay as they were. So it
is enough that *every* place with the old spelling means something that the snippet itself declares
[ours]; where one may not, the name is left alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random
from weakref import WeakKeyDictionary

from distill.transform import scopes_c, scopes_java, scopes_python
from distill.transform.source import Code, Edit
from distill.transform.words import NAMES, reserved

_SCOPES = {"c": scopes_c, "cpp": scopes_c, "java": scopes_java, "python": scopes_python}

_DRAWS = 8


def identifiers(code: Code) -> tuple[str, ...]:
    """Names that may be renamed all over the snippet, in the order in which they first appear.

    Local variables, parameters, and the functions and types that the snippet defines. Never:
    ``main``, what is only used, members, macros and what they are given as text, imported names,
    and names that a string or reflection may ask for. None for source that does not parse.

    C and C++: a macro that the snippet does not define is taken for one if it is in capitals.
    """
    if code not in _known:
        _known[code] = _identifiers(code)
    return _known[code]


# An attack renames the same hundreds of snippets again and again, in turn.
_known: WeakKeyDictionary[Code, tuple[str, ...]] = WeakKeyDictionary()


def _identifiers(code: Code) -> tuple[str, ...]:
    if not code.is_valid:
        return ()
    scopes = _SCOPES[code.language]
    bindings, refused = scopes.bindings(code), scopes.refused(code)
    extents: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for binding in bindings:
        extents[binding.name].append(binding.extent)
    defined = {binding.name for binding in bindings if binding.is_defined}
    places = scopes.occurrences(code)
    return tuple(
        name
        for name, nodes in places.items()
        if name in defined
        and name not in refused
        and name not in reserved(code.language)
        and not name.startswith("__")
        and all(any(a <= n.start_byte and n.end_byte <= b for a, b in extents[name]) for n in nodes)
    )


def rename(code: Code, names: Mapping[str, str]) -> str:
    """Every occurrence of the keys of ``names`` gets its new name.

    Raises ValueError if a name is not one of :func:`identifiers`, or a new name is no identifier,
    is reserved, occurs as a name of whatever kind, or is given twice.
    """
    allowed = identifiers(code)
    for old, new in names.items():
        if old not in allowed:
            raise ValueError(f"{old!r} cannot be renamed here: take one of identifiers(code)")
        if not re.fullmatch(r"[A-Za-z_]\w*", new) or new in reserved(code.language):
            raise ValueError(f"{old!r} cannot become {new!r}: not a free name in {code.language}")
        if new in code.names or list(names.values()).count(new) > 1:
            raise ValueError(f"{old!r} cannot become {new!r}: that name is taken; see fresh_name")
    places = _SCOPES[code.language].occurrences(code)
    return code.edited(
        [
            Edit(node.start_byte, node.end_byte, new.encode())
            for old, new in names.items()
            for node in places[old]
        ]
    )


def fresh_name(code: Code, rng: Random, like: Sequence[str] = ()) -> str:
    """A plausible name that no word of the text is.

    Drawn from ``like`` if one of it is usable, else from :data:`distill.transform.words.NAMES`,
    with a number after it once all of those are taken. No keyword, builtin or library name, and
    none in capitals or with a leading underscore, which headers may define as macros.
    """
    for pool in (like, NAMES):
        # Most names are usable: a few draws spare looking at all of a long pool.
        for _ in range(_DRAWS if pool else 0):
            if is_free(code, name := rng.choice(pool)):
                return name
        usable = [name for name in pool if is_free(code, name)]
        if usable:
            return rng.choice(usable)
    number = 2
    while not is_free(code, name := f"{rng.choice(NAMES)}{number}"):
        number += 1
    return name


def is_free(code: Code, name: str) -> bool:
    """Whether a new name may be called so: an identifier that neither occurs nor is reserved."""
    return (
        re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None
        and not (name.isupper() and len(name) > 1)
        and name not in code.words
        and name not in reserved(code.language)
        # A test runner would take it for a test.
        and not name.lower().startswith("test")
    )


def renamed(code: Code, rng: Random) -> str:
    """Some identifiers, at least one, get fresh names."""
    known = identifiers(code)
    if not known:
        return code.text
    names: dict[str, str] = {}
    for old in rng.sample(known, rng.randint(1, len(known))):
        usable = [name for name in NAMES if is_free(code, name) and name not in names.values()]
        if not usable:
            break
        names[old] = rng.choice(usable)
    return rename(code, names)
