"""Which configuration keys a table shows: those that differ, and apply.

A key of another ``type`` does not apply: ``sampling.k`` of a run with ``sampling.type: skd`` is no
difference to a run that has another type, or no ``sampling`` at all. There ``sampling.type`` is the
difference.
"""

from __future__ import annotations

from collections.abc import Sequence

from distill.search.trials import Trial, Value

NAMING = ("type", "name", "path", "base")
"""Keys that name what a section is, in this order; the others of the section depend on it."""


def differing(trials: Sequence[Trial], keys: Sequence[str]) -> list[str]:
    """The ``keys`` whose values differ between ``trials``, in their order."""
    return [key for key in keys if _differs(key, trials, set(keys))]


def common(trials: Sequence[Trial], keys: Sequence[str]) -> dict[str, Value]:
    """The ``keys`` that have one value in all ``trials``, with this value."""
    if not trials:
        return {}
    first = trials[0].values
    return {
        key: first[key]
        for key in keys
        if key in first and all(t.values.get(key) == first[key] for t in trials)
    }


def _differs(key: str, trials: Sequence[Trial], keys: set[str]) -> bool:
    having = [t for t in trials if key in t.values]
    lacking = [t for t in trials if key not in t.values]
    values = {t.values[key] for t in having}
    if not lacking or not having:
        return len(values) > 1
    inside = f"{key}."
    if any(name.startswith(inside) for t in lacking for name in t.values):
        # ``sampling: null`` here, a section there: the key that names the section shows it.
        return not any(f"{key}.{name}" in keys for name in NAMING)
    parts = key.split(".")
    for length in range(1, len(parts)):
        section = ".".join(parts[:length])
        naming = next((n for n in NAMING if f"{section}.{n}" in keys), None)
        if naming is None:
            continue
        named = f"{section}.{naming}"
        there = {t.values.get(named) for t in having}
        if there.isdisjoint(t.values.get(named) for t in lacking):
            return key == named or len(values) > 1
    return True
