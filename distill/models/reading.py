"""How a classifier was shown its texts: kept in its config.json, so that it is asked the same way.

transformers keeps keys that it does not know, and reads past them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from distill.config import Cut
from distill.errors import ModelError

KEY = "distill"


@dataclass(frozen=True)
class Reading:
    """``{"distill": {"max_length": 128, "cut": "head", "is_pair": false}}``."""

    max_length: int
    """Tokens of the longest row, special ones included."""
    cut: Cut = "head"
    """Which tokens of a longer one stay; see ``data.cut``."""
    is_pair: bool = False
    """Whether a row is two texts."""

    def __str__(self) -> str:
        what = "pairs of texts" if self.is_pair else "texts"
        return f"{what} of at most {self.max_length} tokens; of longer ones: {self.cut}"


def reading_of(config: Any, folder: str | Path) -> Reading | None:
    """What an exported model's configuration declares; None for one that distill did not write."""
    kept = getattr(config, KEY, None)
    if kept is None:
        return None
    try:
        reading = Reading(**kept)
    except TypeError:
        reading = None
    if (
        reading is None
        or not isinstance(reading.max_length, int)
        or reading.max_length < 1
        or reading.cut not in get_args(Cut)
        or not isinstance(reading.is_pair, bool)
    ):
        raise ModelError(
            f"{folder}/config.json: {KEY} must be max_length, cut ({', '.join(get_args(Cut))}) and "
            f"is_pair, got {kept!r}: export the model again, or remove the key"
        )
    return reading


def remember(config: Any, reading: Reading) -> None:
    setattr(config, KEY, asdict(reading))
