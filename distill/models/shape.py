"""The dimensions of a student that ``student.size_mb`` caps, fixed when its training begins.

    <folder of the fit>/shape.json

A run that resumes builds the shape that it was begun with, whatever the rule for caps is by then.
A folder with weights but without the file was begun by the first rule; see sizes.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from distill.config import Student
from distill.errors import CheckpointError
from distill.models.sizes import Dimensions, FeatureDimensions

FILE = "shape.json"
KEYS = ("layers", "hidden", "heads", "kv_heads", "ffn")
Solve = Callable[[bool], Dimensions | FeatureDimensions]
"""The dimensions, by the first rule or not."""


def fixed(student: Student, folder: Path, solve: Solve, is_kept: bool = True) -> Student:
    """``student`` with the dimensions of the fit in ``folder`` in place of ``size_mb``.

    ``is_kept``: write them down for whoever resumes. All ranks write the same bytes. Raises
    CheckpointError for a file that is no record of a shape.
    """
    if student.size_mb is None:
        return student
    file = folder / FILE
    if file.exists():
        return student.model_copy(update={"size_mb": None, **_read(file)})
    size = asdict(solve(is_begun(folder)))
    shape = {key: size[key] for key in KEYS if key in size}
    if is_kept:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{FILE}.{uuid4().hex}"
        partial.write_text(json.dumps(shape))
        os.replace(partial, file)
    return student.model_copy(update={"size_mb": None, **shape})


def as_begun(student: Student, folder: Path, solve: Solve) -> Student:
    """For messages: ``student`` with the dimensions of the fit in ``folder``, if one was begun."""
    if is_begun(folder) or (folder / FILE).exists():
        return fixed(student, folder, solve, is_kept=False)
    return student


def is_begun(folder: Path) -> bool:
    """Whether a fit has left weights in its folder."""
    checkpoints = folder / "checkpoints"
    has_checkpoint = checkpoints.is_dir() and any(checkpoints.glob("step-*"))
    return has_checkpoint or (folder / "best.safetensors").exists()


def _read(file: Path) -> dict[str, int]:
    try:
        shape = json.loads(file.read_text())
    except (OSError, ValueError):
        shape = None
    if not isinstance(shape, dict) or not shape.keys() <= set(KEYS):
        raise CheckpointError(
            f"{file} does not hold the dimensions of a student: copy the run folder again, or "
            "delete its folder to train again"
        )
    return shape
