"""What a sample was made from, and the sha256 of its files: so that it is not made twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAME = "manifest.json"


def valid_manifest(out: Path, identity: Mapping[str, Any], files: Iterable[Path]) -> dict | None:
    """The manifest, if it is of this ``identity`` and every file matches it."""
    try:
        manifest = json.loads((out / NAME).read_text(encoding="utf-8"))
        if any(manifest[key] != value for key, value in json.loads(json.dumps(identity)).items()):
            return None
        return manifest if manifest["files"] == _hashes(out, files) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_manifest(
    out: Path, identity: Mapping[str, Any], files: Iterable[Path], **content: Any
) -> dict:
    """Last of all, so that an interrupted build has no manifest and is done again."""
    manifest = {**identity, **content, "files": _hashes(out, files)}
    text = json.dumps(manifest, indent=1) + "\n"
    (out / NAME).write_text(text, encoding="utf-8")
    return json.loads(text)


def _hashes(out: Path, files: Iterable[Path]) -> dict[str, str]:
    return {str(path.relative_to(out)): sha256_of(path) for path in files}


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
