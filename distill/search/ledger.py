"""The trials of a sweep on disk: started ones, and how they ended. Resuming reads nothing else.

    <output>/trials/trial-001/trial.json   values, status, metrics
    <output>/trials/trial-001/fit/         checkpoints, metrics.jsonl, best.safetensors
    <output>/trials/trial-001/student/     the exported student

A trial is identified by its values: the same values, proposed again, are the same trial.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.config.search_space import Value
from distill.errors import CheckpointError
from distill.search.trials import Trial


@dataclass(frozen=True)
class LedgerEntry:
    """One trial's folder."""

    folder: Path
    values: dict[str, Value]
    status: str
    """``running`` while it trains, and if it was interrupted; else as in :class:`Trial`."""
    metrics: dict[str, float]
    reason: str = ""
    dimensions: dict[str, int] | None = None
    starts: int = 1
    """Of a member of a population: how often it was started, each time in a new folder."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def fit(self) -> Path:
        return self.folder / ("fit" if MEMBER not in self.values else f"fit-{self.starts:03d}")

    @property
    def student(self) -> Path:
        return self.folder / "student"

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train."""
        return self.status in ("finished", "stopped")

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        try:
            text = (self.fit / "metrics.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def trial(self) -> Trial:
        assert self.status != "running"
        student = str(self.student) if self.student.exists() else ""
        return Trial(
            self.name,
            self.status,  # type: ignore[arg-type]
            self.values,
            self.metrics,
            self.reason,
            student,
            self.history(),
        )


class Ledger:
    """All entries of one sweep. The driver begins and fails trials, a trial itself ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> list[LedgerEntry]:
        """In the order in which they were started."""
        found = [_read(path) for path in self.folder.glob("trial-*/trial.json")]
        return sorted(found, key=lambda entry: _number(entry.folder))

    def find(self, values: Mapping[str, Value]) -> LedgerEntry | None:
        target = identity_of(values)
        return next((e for e in self.entries() if identity_of(e.values) == target), None)

    def begin(self, values: Mapping[str, Value]) -> LedgerEntry:
        """The entry of these values, there already or new; a failed one may try again."""
        entry = self.find(values)
        if entry is None:
            last = max((_number(e.folder) for e in self.entries()), default=0)
            entry = LedgerEntry(self.folder / f"trial-{last + 1:03d}", dict(values), "running", {})
        elif entry.is_over or (entry.status == "running" and MEMBER not in values):
            return entry  # proposed again
        if MEMBER in values and entry.folder.exists():
            # It changes its values, and its earlier fit may still be ending in its folder.
            entry = replace(entry, values=dict(values), starts=entry.starts + 1)
        return self.write(entry, "running", {})

    def write(
        self,
        entry: LedgerEntry,
        status: str,
        metrics: Mapping[str, float],
        reason: str = "",
        dimensions: Mapping[str, int] | None = None,
    ) -> LedgerEntry:
        """Atomic: a file of its own, then renamed."""
        dimensions = dict(dimensions) if dimensions is not None else entry.dimensions
        new = replace(
            entry, status=status, metrics=dict(metrics), reason=reason, dimensions=dimensions
        )
        record = {
            "values": new.values,
            "status": status,
            "metrics": new.metrics,
            "reason": reason,
            "dimensions": dimensions,
            "starts": new.starts,
        }
        entry.folder.mkdir(parents=True, exist_ok=True)
        partial = entry.folder / "trial.partial"
        partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
        os.replace(partial, entry.folder / "trial.json")
        return new


MEMBER = "member"
"""Not a key of the experiment: the number of a member of a population, whose values change."""


def identity_of(values: Mapping[str, Value]) -> str:
    identity = {MEMBER: values[MEMBER]} if MEMBER in values else dict(values)
    return json.dumps(identity, sort_keys=True)


def searched(values: Mapping[str, Value]) -> dict[str, Value]:
    """The keys of the experiment alone."""
    return {key: value for key, value in values.items() if key != MEMBER}


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _read(path: Path) -> LedgerEntry:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return LedgerEntry(
            path.parent,
            record["values"],
            record["status"],
            record["metrics"],
            record["reason"],
            record["dimensions"],
            record["starts"],
        )
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): delete {path.parent} to run this trial again"
        ) from None
