"""What is logged to MLflow: configurations as flat parameters, accepted names, masked secrets."""

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from distill.names import HASH_CHARS, hash_of

MASK = "***"
MAX_PARAM_CHARS = 6000
"""MLflow's own limit; a longer value is truncated, with a mark."""
MAX_NAME_CHARS = 250
WRITTEN = "distill.name."

_CUT = " … (truncated)"
_USER_IN_URI = re.compile(r"(?<=://)(?:[^/\s]+|[^/\s:@]+:(?!\d+/)[^\s@]+)@")
"""user:secret@, whose secret may hold slashes; not the @ of a path."""
_KEY_IN_TEXT = re.compile(
    r"(?i)\b([\w-]*(?:password|passwd|token|secret|signature|credential|key|sig|pwd)=)[^&;\s'\"]+"
)
_KNOWN_TOKENS = re.compile(
    r"\b(?:hf_\w{16,}|sk-[\w-]{16,}|gh[oprsu]_\w{16,}|AKIA[0-9A-Z]{12,}|Bearer\s+\S+)"
)
_SECRET_PARTS = {
    *("token", "secret", "password", "passwd", "pwd", "credential", "credentials"),
    *("apikey", "key"),
}


def masked(text: str) -> str:
    """``text`` without user:password in a URI, ``password=…``, or a token of a known shape."""
    text = _USER_IN_URI.sub(f"{MASK}@", text)
    text = _KEY_IN_TEXT.sub(rf"\g<1>{MASK}", text)
    return _KNOWN_TOKENS.sub(MASK, text)


def without_user(uri: str) -> str:
    """``uri`` without ``user:password@``, masked: a link that can be opened."""
    return masked(_USER_IN_URI.sub("", uri))


def is_secret_name(key: str) -> bool:
    """Whether a dotted key names a secret: ``api_key``, ``s3.token``; not ``tokenizer``, nor a
    label in a map of labels (``teachers.0.labels.secret``)."""
    key = key.partition(".labels.")[0]
    return not _SECRET_PARTS.isdisjoint(re.split(r"[^a-z]+", key.lower()))


def flatten(section: BaseModel | Mapping[str, Any]) -> dict[str, str | float]:
    """Dotted keys to numbers and strings: lists of values joined, lists of sections indexed."""
    tree = section.model_dump() if isinstance(section, BaseModel) else section
    flat: dict[str, str | float] = {}
    for key, value in tree.items():
        _flatten_into(flat, str(key), value)
    return flat


def _flatten_into(flat: dict[str, str | float], key: str, value: Any) -> None:
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping) and value:
        for name, child in value.items():
            _flatten_into(flat, f"{key}.{name}", child)
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping | BaseModel) for v in value):
        for index, child in enumerate(value):
            _flatten_into(flat, f"{key}.{index}", child)
    else:
        flat[key] = _leaf(key, value)


def _leaf(key: str, value: Any) -> str | float:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return value
    if value is None:
        return "null"
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ", ".join(str(_leaf("", v)) for v in value) or "[]"
    text = str(value)
    return MASK if text and is_secret_name(key) else cut(masked(text), MAX_PARAM_CHARS)


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def safe_name(name: str) -> str:
    """``name`` as MLflow accepts it as a key of a metric, a parameter or a tag.

    Unchanged where MLflow 3.17 accepts it: letters and digits of any script and ``_-./ :``,
    no path that would resolve to another, at most MAX_NAME_CHARS. Elsewhere these characters are
    replaced and a hash of the whole name follows, so that two names never share a key;
    :func:`written_tag` names the tag that keeps the original name.
    """
    if re.fullmatch(r"[\w\-./ :]*", name) and is_own_path(name) and len(name) <= MAX_NAME_CHARS:
        return name
    stem = re.sub(r"[^\w\-./ :]", "_", name)
    if not is_own_path(stem):
        stem = stem.replace("/", "_").lstrip(".")
    return f"{stem[: MAX_NAME_CHARS - HASH_CHARS - 1]}-{hash_of(name)}"


def is_own_path(name: str) -> bool:
    """Whether MLflow may use ``name`` as a file: mlflow.utils.validation.path_not_unique."""
    path = posixpath.normpath(name)
    return path == name and path != "." and not path.startswith(("..", "/"))


def written_tag(safe: str) -> str:
    """The tag that keeps the original of a name that :func:`safe_name` had to change."""
    return f"{WRITTEN}{safe[-HASH_CHARS:]}"


def written_name(safe: str, tags: Mapping[str, str]) -> str:
    """The name of which ``safe`` was made, by the tags of its run."""
    written = tags.get(written_tag(safe), "")
    return written if written and safe_name(written) == safe else safe
