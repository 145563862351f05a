"""Counts in messages: ``1 teacher``, ``2 teachers``, ``1,024 rows``."""


def counted(num: float, one: str, many: str | None = None) -> str:
    """``num`` with its noun; ``many``: the plural where it is not ``one`` with an s."""
    noun = one if num == 1 else many or f"{one}s"
    return f"{num:,} {noun}"
