"""Names of teachers, baselines and domains: which are valid, and the folder of each.

A name stays as it is wherever it can. Elsewhere each character that is not allowed there becomes
``_``, and a hash of the whole name follows, so that two names never become one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

MAX_CHARS = 200
"""Of the name of a teacher or a baseline."""
MAX_FOLDER_BYTES = 200
"""UTF-8; file systems take 255, and caches append to the name."""
HASH_CHARS = 8

_FOLDER = re.compile(r"\w[\w.-]*")
_UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, line separators


def checked_name(name: str) -> str:
    """``name``, or ValueError with what is wrong with it and what is allowed."""
    fault = None
    if not name.strip():
        fault = "is blank"
    elif len(name) > MAX_CHARS:
        fault = f"has {len(name)} characters, {MAX_CHARS} at most are allowed"
    elif any(unicodedata.category(c) in _UNPRINTED for c in name):
        fault = "holds a line break or another control character"
    if fault is None:
        return name
    shown = repr(name if len(name) <= MAX_CHARS else f"{name[:40]}…")
    raise ValueError(f"the name {shown} {fault}: give one line of text")


def confusable(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are equal, or differ only in case, spaces, or in how Unicode
    composes their characters: people, and some file systems, take them for one."""
    seen: dict[str, str] = {}
    for name in names:
        folded = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        if folded in seen:
            return seen[folded], name
        seen[folded] = name
    return None


def folder_name(name: str) -> str:
    """``name`` as one part of a path; see the head of this file."""
    if _FOLDER.fullmatch(name) and len(name.encode()) <= MAX_FOLDER_BYTES:
        return name
    stem = re.sub(r"[^\w.-]", "_", name)
    stem = re.sub(r"^[.-]", "_", stem)  # neither hidden, nor an option, nor the folder above
    room = MAX_FOLDER_BYTES - HASH_CHARS - 1
    stem = stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return f"{stem}-{hash_of(name)}"


def hash_of(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_CHARS]
