"""One teacher in this process, of a model or its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from distill.config import Serving
from distill.models.vocabulary import SharedTokens
from distill.records import TeacherAnswers
from distill.teachers.backends import open_backend
from distill.teachers.served import ServedTeacher
from distill.teachers.stream import TeacherStream


def backend_of(
    model: Any,
    *,
    num_labels: int,
    is_language_model: bool = False,
    shared: SharedTokens | None = None,
    device: str = "cpu",
    **serving: Any,
) -> Any:
    """``num_labels``: columns of its outputs; ``serving``: settings of Serving."""
    is_folder = isinstance(model, str | Path)
    settings = {name: value for name, value in serving.items() if value is not None}
    if device == "cuda":
        settings["num_gpus"] = 1.0
    teacher = ServedTeacher(
        "t",
        str(model) if is_folder else "",
        Serving().model_copy(update=settings),
        num_labels,
        backend="language_model" if is_language_model else "classifier",
        shared=shared,
        model=None if is_folder else model,
    )
    backend: Any = open_backend(teacher)
    if device not in ("cpu", "cuda"):
        backend.device = torch.device(device)
        backend.move(backend.device)
    return backend


@dataclass(frozen=True)
class Blocks:
    """Rows in blocks, without inputs: the stream needs none."""

    blocks: Sequence[np.ndarray]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.blocks)

    def at(self, step: int) -> list[Any]:
        rows_B = self.blocks[step]
        valid_B = torch.ones(len(rows_B), dtype=torch.bool)
        return [SimpleNamespace(rows_B=rows_B, valid_B=valid_B)]


def answers_of_rows(stream: TeacherStream, rows: Any, batch_size: int = 64) -> TeacherAnswers:
    """Every teacher's output for each of these rows, in their order."""
    rows_N = np.asarray(rows, np.int64)
    starts = range(0, len(rows_N), batch_size)
    source: Any = Blocks([rows_N[start : start + batch_size] for start in starts])
    steps = stream.feed(source, 0, source.steps_per_epoch)
    answers = [a for step in steps for _, a in step.parts if isinstance(a, TeacherAnswers)]
    router = [a.router_logits_BK for a in answers if a.router_logits_BK is not None]
    return TeacherAnswers(
        torch.cat([a.logits_KBV for a in answers], dim=1),
        torch.cat([a.queried_KB for a in answers], dim=1),
        torch.cat(router) if router else None,
    )
