"""Lines of other libraries that do not concern a user, silenced one by one where they come from.

Only messages that say nothing about the run are named here: what a library warns of otherwise is
printed as it is.
"""

from __future__ import annotations

import logging
import re
import warnings

LOGGED = {
    # On every machine without an accelerator; printed to stdout.
    "DeepSpeed": r"Setting accelerator to CPU",
}
"""By logger, the beginning of a message."""

WARNED: tuple[tuple[str, type[Warning]], ...] = (
    # How a future Ray will set CUDA_VISIBLE_DEVICES where an actor has no GPU.
    (r"Tip: In future versions of Ray, Ray will no longer override accelerator", FutureWarning),
    # torch.distributed functions that DeepSpeed calls, and that torch 2.13 renames.
    (r".* is deprecated. Please use", FutureWarning),
)
"""The beginning of a warning, and its class."""


def silence() -> None:
    """In this process; a second call changes nothing."""
    for name, message in LOGGED.items():
        logger = logging.getLogger(name)
        if not any(isinstance(kept, Without) for kept in logger.filters):
            logger.addFilter(Without(message))
    for message, category in WARNED:
        warnings.filterwarnings("ignore", message, category)


class Without(logging.Filter):
    """Lets everything through but one message."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self._beginning = re.compile(beginning)

    def filter(self, record: logging.LogRecord) -> bool:
        return self._beginning.match(record.getMessage()) is None
