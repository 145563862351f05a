"""The committed rule mutations: their head lines, and how one is applied."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

AREAS = (
    "aggregation",
    "attacks",
    "hpm_kd",
    "moe",
    "objectives",
    "partition",
    "relations",
    "schedule",
    "search",
    "skd",
)


class PatchError(Exception):
    """A patch without its head lines, or that no longer applies."""


@dataclass(frozen=True)
class Patch:
    """One mutation of a rule."""

    area: str
    name: str
    path: Path
    rule: str
    """Which rule of which method, in one line."""
    tests: tuple[str, ...]
    """Test files or node ids that fail under the patch."""

    @property
    def changed(self) -> list[str]:
        """Paths of the files that it changes."""
        lines = self.path.read_text().splitlines()
        return [line.removeprefix("+++ b/") for line in lines if line.startswith("+++ b/")]


def patches_of(folder: Path, wanted: tuple[str, ...] = ()) -> list[Patch]:
    """All below ``folder``, or those of the ``wanted`` areas and ``area/name``; PatchError."""
    found = [read(path) for path in sorted(folder.glob("*/*.patch"))]
    for one in wanted:
        if not any(one in (patch.area, f"{patch.area}/{patch.name}") for patch in found):
            raise PatchError(f"no area or patch is named {one}")
    return [
        patch
        for patch in found
        if not wanted or patch.area in wanted or f"{patch.area}/{patch.name}" in wanted
    ]


def read(path: Path) -> Patch:
    """PatchError where the head has not one line ``Rule: …`` and one line ``Tests: …``."""
    head = path.read_text().partition("--- a/")[0].splitlines()
    values = {}
    for key in ("Rule", "Tests"):
        lines = [line.partition(":")[2].strip() for line in head if line.startswith(f"{key}:")]
        if len(lines) != 1 or not lines[0]:
            raise PatchError(f"{path}: above the diff there must be one line '{key}: …'")
        values[key] = lines[0]
    return Patch(path.parent.name, path.stem, path, values["Rule"], tuple(values["Tests"].split()))


def apply(patch: Patch, root: Path, only_check: bool = False) -> None:
    """Change the files below ``root``; PatchError where the context lines differ."""
    # Without the ceiling git would look for a repository above and skip files outside of it.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(root.resolve().parent)}
    command = ["git", "apply", *(["--check"] if only_check else []), str(patch.path.resolve())]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise PatchError(f"{patch.path} does not apply: {done.stderr.strip()}")
    if not only_check:
        for changed in patch.changed:
            # Bytecode is taken for that of a source of the same size and second.
            for bytecode in (root / changed).parent.glob(f"__pycache__/{Path(changed).stem}.*"):
                bytecode.unlink()
