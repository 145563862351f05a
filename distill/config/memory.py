"""The section ``memory`` of a configuration. Imports no torch: see config/experiment.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from distill.errors import ConfigError
from distill.variant import Section


class SharedMemory(Section):
    """A folder that experiments share: teachers' outputs and finished fits are found in it again by
    content. Not to be confused with ``cache.type: memory``, which keeps the teachers' outputs of
    one run in RAM."""

    path: Annotated[str, AfterValidator(os.path.expanduser)] | None = None
    """Folder on storage that all nodes see; null: no shared memory. Teachers' outputs are kept here
    if ``cache.type`` is arrow and ``cache.path`` is null. A finished fit (expert, router, baseline,
    student) is found again if all that determines its result is equal: data, rows, model, teachers,
    settings, seed, and the versions of distill, torch and transformers."""
    limit_mb: float = Field(default=10_000, gt=0)
    """Maximum size in MB (10⁶ bytes) of teachers' outputs and fits together. The least recently
    used ones are removed before a run starts and after it ends, except those that other runs are
    using."""


def check_memory(memory: SharedMemory) -> None:
    """Raise ConfigError unless the folder can be written."""
    if memory.path is None:
        return
    path = Path(memory.path).absolute()
    existing = next(p for p in [path, *path.parents] if p.exists())
    if not existing.is_dir():
        problem = f"{existing} is not a folder"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f"no permission in {existing}"
    else:
        return
    raise ConfigError(
        f"memory.path {memory.path} cannot be written ({problem}): set a folder that you can write "
        "to, or memory.path=null for a run without the shared memory"
    )
