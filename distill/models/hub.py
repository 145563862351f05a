"""Paths that may be names of the Hugging Face Hub, which distill never contacts."""

from __future__ import annotations

import re
from pathlib import Path

_ID = re.compile(r"(?:hf:/{1,2}(?:datasets/|models/)?)?(?P<id>\w[\w.-]*(?:/\w[\w.-]*)?)")
_URL = re.compile(r"https?:/{1,2}huggingface\.co/(?:datasets/)?(?P<id>\w[\w.-]*(?:/\w[\w.-]*)?)")
"""One slash: that is what pathlib leaves of two."""
_FILE = re.compile(
    r"\.(parquet|arrow|feather|jsonl|ndjson|json|csv|tsv|gz|bz2|zst|pkl|pickle|joblib|gguf|txt"
    r"|ya?ml|safetensors|bin|pt|onnx)\Z",
    re.IGNORECASE,
)


def not_found(what: str, path: str | Path, is_data: bool = False) -> str:
    """A message: there is no ``what`` at ``path``, and how to download it if it is a Hub name."""
    command = download_command(path, is_data)
    if command is None:
        return f"there is no {what} {path}: check the path"
    return (
        f"there is no {what} {path}: check the path. distill does not contact the Hugging Face "
        f"Hub; if {hub_id(path)!r} is a Hub id, download it and use the folder: {command}"
    )


def download_command(path: str | Path, is_data: bool = False) -> str | None:
    """What to type to download ``path``; None where it cannot be a name of the Hub."""
    name = hub_id(path)
    if name is None:
        return None
    kind, folder = ("--repo-type dataset ", "data") if is_data else ("", "models")
    return f"hf download {name} {kind}--local-dir {folder}/{name.rpartition('/')[2]}"


def hub_id(path: str | Path) -> str | None:
    """``owner/name`` or ``name`` where ``path`` can be one of the Hub (or its address)."""
    text = str(path).strip().rstrip("/")
    if found := _URL.fullmatch(text):
        return found["id"]
    found = _ID.fullmatch(text)
    if found is None or _FILE.search(text):
        return None
    # data/reviews in a folder with data/ in it: a path with a mistake in its last part.
    owner, _, rest = found["id"].partition("/")
    if rest and Path(owner).is_dir():
        return None
    return found["id"]
