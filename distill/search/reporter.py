"""Reports of a trial to the tuner."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distill.models.shape import FILE as SHAPE
from distill.records import Cursor
from distill.training.checkpoints import newest

Metrics = dict[str, float]


TunerReport = Callable[[Metrics, Path | None], None]
"""Takes metrics and, for an exchange of weights, a folder to go on from."""


@dataclass(frozen=True)
class Reporter:
    """Tells of each evaluation of a fit. Pickles, for ranks that tell from their own process."""

    report: TunerReport
    costs: Metrics
    exchange: Path | None = None
    """The fit's folder, where its weights may go to other members of a population."""

    def __call__(self, cursor: Cursor) -> None:
        folder = None if self.exchange is None else _snapshot(self.exchange)
        self.report(self.costs | _reported(cursor.history[-1]), folder)


def _snapshot(fit_folder: Path) -> Path:
    """The newest checkpoint, the best weights and their shape, for another member to go on from."""
    checkpoint = newest(fit_folder / "checkpoints")
    assert checkpoint is not None, "a population checkpoints at every evaluation"
    folder = fit_folder / "exchange"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint, folder / "checkpoints" / checkpoint.name)
    for name in ("best.safetensors", "metrics.jsonl"):
        shutil.copy2(fit_folder / name, folder / name)
    if (fit_folder / SHAPE).exists():  # of a student under a cap
        shutil.copy2(fit_folder / SHAPE, folder / SHAPE)
    return folder


def _reported(row: Mapping[str, float]) -> Metrics:
    named = sorted(name for name in row if name.startswith("eval."))
    return {name: row[name] for name in (*named, "step") if name in row}
