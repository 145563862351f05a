"""Names of classes and domains, the same whatever format they were read from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

INTEGRAL = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?")
"""An integer, or a float of one as pandas writes it: no leading zeros, which identifiers have."""
NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?")


def stripped(
    values: Sequence[str | None], counts: Counter[str], given: Collection[str] = ()
) -> list[str | None]:
    """Each value without spaces around it; None where nothing is left, or 'nan'.

    Those among ``given`` stay as they are. Values with removed spaces are counted, as
    ``stripped_names``.
    """
    found: list[str | None] = []
    for value in values:
        if value in given:
            found.append(value)
            continue
        name = None if value is None else value.strip()
        if name and name != value:
            counts["stripped_names"] += 1
        is_missing = not name or (name.lower() == "nan" and name not in given)
        found.append(None if is_missing else name)
    return found


def final_names(names: Collection[str]) -> dict[str, str]:
    """What each name is called in the end: '1.0' is '1' where every name is an integer."""
    found = {name: INTEGRAL.fullmatch(name) for name in names}
    if not all(found.values()):
        return {name: name for name in names}
    return {name: str(int(match[1])) for name, match in found.items() if match}


def is_number(name: str) -> bool:
    return NUMBER.fullmatch(name) is not None
