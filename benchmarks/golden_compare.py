"""What a run left in its folder and in MLflow, as names and values that two revisions must share.

Compared: every tensor, every metric, every record (JSON, YAML, CSV), every file name. Times, rates
of time, memory and dates are compared by name alone: see VOLATILE. Counts of teacher requests are
compared as sums, since requests run ahead of the student's records: see COUNTS.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml
from safetensors import safe_open

VOLATILE = re.compile(
    r"(_s|_ms|latency|time|date|memory_mb|idle_rate|generate_rate|queue_depth|of_time)$"
    r"|latency|^files of |memory \(MB\)",
)
"""Of a part of a name: a time, a rate of time, memory or a date."""
COUNTS = re.compile(r"^teacher\..*\.(rows|cached_rows|requests|bytes|clamped)$")
RANDOM_NAMES = (
    (re.compile(r"meeting-[0-9a-f]{32}"), "meeting"),
    (re.compile(r"segment-[^/]*\.arrow"), "segment.arrow"),
)
"""Parts of file names: of a random id, and of how outputs of teachers were grouped in time."""
DIGESTS = re.compile(r"checkpoints/[^/]*/manifest\.json#")
"""Records that are digests of other files of the run, which are compared themselves."""
EXCLUDED = "(not compared)"
SKIPPED_FOLDERS = {"ray"}


@dataclass
class Results:
    """Of one run; a name of ``tensors`` and ``records`` starts with its file."""

    files: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)
    """Digest of type, shape and bytes."""
    metrics: dict[str, str] = field(default_factory=dict)
    """All values of a series with their steps; the sum of a count."""
    num_values: int = 0
    records: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    kind: str
    name: str
    base: str
    head: str


def differences(base: Results, head: Results, ignored: str | None = None) -> list[Difference]:
    """Of every name of one or both; ``ignored``: a pattern of names that may differ."""
    found = []
    for kind in ("files", "tensors", "metrics", "records"):
        one, other = getattr(base, kind), getattr(head, kind)
        for name in sorted(one.keys() | other.keys()):
            values = one.get(name, "missing"), other.get(name, "missing")
            if values[0] != values[1] and not (ignored and re.search(ignored, name)):
                found.append(Difference(kind, name, *values))
    return found


def read_results(folders: list[Path], store: Path | None, places: Mapping[str, str]) -> Results:
    """``places``: text to replace in records, a path of one side by a word for both."""
    results = Results()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            inner = path.relative_to(folder)
            if not SKIPPED_FOLDERS & set(inner.parts):
                _read_file(path, f"{folder.name}/{inner}", results)
    if store is not None:
        _read_store(store, results)
    for name, value in results.records.items():
        for text, word in places.items():
            value = value.replace(text, word)
        results.records[name] = value
    return results


def _read_file(path: Path, name: str, results: Results) -> None:
    for pattern, word in RANDOM_NAMES:
        name = pattern.sub(word, name)
    results.files[name] = "present"
    match path.suffix:
        case ".safetensors":
            with safe_open(path, "np") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            results.tensors |= {f"{name}#{key}": _digest(t) for key, t in tensors.items()}
        case ".npy":
            results.tensors[name] = _digest(np.load(path))
        case ".npz":
            results.tensors |= {f"{name}#{k}": _digest(t) for k, t in np.load(path).items()}
        case ".pt":
            _read_checkpoint(path, name, results)
        case ".arrow":
            _add_rows(path, name, results)
        case ".jsonl":
            _read_lines(path, name, results)
        case ".json" | ".yaml" | ".csv":
            for key, value in _records(path):
                of = f"{name}#{key}"
                results.records[of] = EXCLUDED if DIGESTS.search(of) else value
        case _:
            pass


def _digest(array: np.ndarray) -> str:
    text = f"{array.dtype} {array.shape}".encode()
    return hashlib.sha256(text + np.ascontiguousarray(array).tobytes()).hexdigest()


def _read_checkpoint(path: Path, name: str, results: Results) -> None:
    """Each tensor and value; the digest of the file where it holds other objects."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        results.tensors[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return
    for key, value in _flat(content):
        if isinstance(value, torch.Tensor):
            results.tensors[f"{name}#{key}"] = _bits(value)
        elif not (name.endswith("rng-0.pt") and key.startswith("python")):  # is not seeded
            results.records[f"{name}#{key}"] = repr(value)


def _bits(tensor: torch.Tensor) -> str:
    tensor = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return _digest(tensor.numpy())


def _add_rows(path: Path, name: str, results: Results) -> None:
    """Rows of the cache, in any order: the sum over all segments of one folder."""
    with pa.memory_map(str(path)) as source:
        try:
            table = pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            table = pa.ipc.open_stream(source).read_all()
    total = int(results.tensors.get(name, "0"), 16)
    for row in table.to_pylist():
        total += int(hashlib.sha256(repr(row).encode()).hexdigest(), 16)
    results.tensors[name] = f"{total % 2**256:064x}"


def _records(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            content: Any = list(csv.DictReader(file))
    elif path.suffix == ".json":
        content = json.loads(path.read_text())
    else:
        content = yaml.safe_load(path.read_text())
    for key, value in _flat(content):
        yield key, EXCLUDED if _is_volatile(key) else repr(value)


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from _flat(value, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(content, list | tuple) and content:
        for index, value in enumerate(content):
            yield from _flat(value, f"{prefix}/{index}")
    else:
        yield prefix, content


def _is_volatile(key: str) -> bool:
    return any(VOLATILE.search(part) for part in key.split("/"))


# ---- metrics -----------------------------------------------------------------------------------


def _read_lines(path: Path, name: str, results: Results) -> None:
    series = defaultdict(list)
    for line in path.read_text().splitlines():
        record = json.loads(line)
        for key, value in record.get("metrics", {}).items():
            series[key].append((record.get("step"), value))
    _add_series(series, name, results)


def _read_store(store: Path, results: Results) -> None:
    """Metrics, parameters and tags of every run in an MLflow store."""
    with sqlite3.connect(store) as database:
        names = _run_names(database)
        series: dict[str, dict[str, list]] = {name: defaultdict(list) for name in names.values()}
        query = "select run_uuid, key, step, value from metrics order by step, timestamp"
        for run, key, step, value in database.execute(query):
            series[names[run]][key].append((step, value))
        for run, key, value in database.execute("select run_uuid, key, value from params"):
            results.records[f"mlflow {names[run]}#{key}"] = value
        for run, key, value in database.execute("select run_uuid, key, value from tags"):
            if not key.startswith("mlflow."):
                results.records[f"mlflow {names[run]}#{key}"] = value
    for name, of_run in series.items():
        _add_series(of_run, f"mlflow {name}", results)


def _run_names(database: sqlite3.Connection) -> dict[str, str]:
    """Run id → name; runs of one name are numbered by the time of their start."""
    seen: Counter[str] = Counter()
    names = {}
    query = "select run_uuid, name from runs where lifecycle_stage = 'active' order by start_time"
    for run, name in database.execute(query):
        seen[name] += 1
        names[run] = name if seen[name] == 1 else f"{name} {seen[name]}"
    return names


def _add_series(series: Mapping[str, list], name: str, results: Results) -> None:
    for key, points in series.items():
        if _is_volatile(key):
            text = EXCLUDED
        elif COUNTS.search(key):
            text = f"sum {sum(value for _, value in points)!r}"
        else:
            # A value that a resumed run logs again counts once.
            text = " ".join(f"{step}:{value!r}" for step, value in dict.fromkeys(points))
            results.num_values += len(points)
        results.metrics[f"{name}#{key}"] = text
