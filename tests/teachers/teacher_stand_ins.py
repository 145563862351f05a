"""Small stand-ins: rows that are their own tokens, and teachers whose logits are a formula."""

import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from distill.errors import TeacherAway
from distill.records import UNLABELLED, Batch
from distill.teachers.local import LocalTeachers


class Padded(NamedTuple):
    input_ids_BT: np.ndarray
    attention_mask_BT: np.ndarray
    token_type_ids_BT: np.ndarray | None


class FakeTokens:
    """Row r is 1 + r % 5 tokens, all equal to r."""

    def lengths(self, rows) -> np.ndarray:
        return 1 + np.asarray(rows) % 5

    def padded(self, rows) -> Padded:
        lengths = self.lengths(rows)
        mask_BT = (np.arange(lengths.max())[None] < lengths[:, None]).astype(np.int64)
        return Padded(np.asarray(rows)[:, None] * mask_BT, mask_BT, None)


@dataclass
class FakeBatches:
    """Each epoch is its own permutation of the rows, dealt to ranks and micro-batches."""

    rows: np.ndarray
    batch_size: int
    rank: int = 0
    world_size: int = 1
    num_micro_batches: int = 1
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def at(self, step: int) -> list[Batch]:
        epoch, position = divmod(step, self.steps_per_epoch)
        rows = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        rows = rows[position * self.batch_size : (position + 1) * self.batch_size]
        mine = np.array_split(rows, self.world_size)[self.rank]
        return [batch(part) for part in np.array_split(mine, self.num_micro_batches)]


def batch(rows) -> Batch:
    """Without rows: one filler row."""
    rows_B = np.asarray(rows, np.int64)
    valid = len(rows_B) > 0
    rows_B = rows_B if valid else np.array([0])
    size = len(rows_B)
    return Batch(
        rows_B=rows_B,
        input_ids_BT=torch.from_numpy(rows_B)[:, None],
        attention_mask_BT=torch.ones(size, 1, dtype=torch.int64),
        labels_B=torch.full((size,), UNLABELLED),
        domains_B=torch.full((size,), -1),
        valid_B=torch.full((size,), valid),
        num_valid=size,
        num_labelled=0,
    )


@dataclass
class Formula:
    """A callable model: logits [c·r + bias] for row r; counts its rows; may sleep or fail."""

    num_labels: int = 3
    bias: float = 0.0
    delay: object = None  # a function of a random generator, in seconds
    fail_on: int | None = None  # a row
    rows: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, input_ids, attention_mask):
        rows = input_ids[:, 0]
        with self.lock:
            self.rows += rows.tolist()
        if self.delay is not None:
            time.sleep(self.delay())
        if self.fail_on is not None and self.fail_on in rows.tolist():
            raise RuntimeError(f"out of memory on row {self.fail_on}")
        return formula(rows, self.num_labels, self.bias)


def formula(rows, num_labels: int = 3, bias: float = 0.0) -> torch.Tensor:
    rows = torch.as_tensor(np.asarray(rows), dtype=torch.float32)
    return torch.sin(rows[:, None] * torch.arange(1, num_labels + 1)) + bias


@dataclass
class ParityRouter:
    """A router over two experts: even rows go to the first, odd rows to the second."""

    rows: list[int] = field(default_factory=list)

    def __call__(self, input_ids, attention_mask):
        rows = input_ids[:, 0]
        self.rows += rows.tolist()
        odd = (rows % 2).float()
        return torch.stack([1 - 2 * odd, 2 * odd - 1], dim=1)


class Leaving(LocalTeachers):
    """Teachers that are away at the ``at``-th call of ``method``, until :meth:`away` was called
    ``looks`` times (0: at once); then they answer, or (``returns`` False) are given up."""

    def __init__(self, engines, method: str, at: int, looks: int = 2, returns: bool = True) -> None:
        super().__init__(engines)
        self._method, self._at, self._returns = method, at, returns
        self.looks = looks
        self._is_away = threading.Event()
        self._has_decided = threading.Event()
        if looks == 0:
            self._has_decided.set()

    def away(self) -> str | None:
        if not self._is_away.is_set() or self._has_decided.is_set():
            return None
        self.looks -= 1
        if self.looks <= 0:
            self._has_decided.set()
        return f"a teacher is away: {self._method}"

    def _called(self, method: str, teacher: str) -> None:
        with self._count_lock:
            self._at -= method == self._method
            if method != self._method or self._at != 0:
                return
        self._is_away.set()
        self._has_decided.wait()
        if not self._returns:
            raise TeacherAway(f"teacher {teacher!r} was away for 1800 s")

    def call(self, teacher, request, *args):
        self._called(type(request).__name__, teacher)
        return super().call(teacher, request, *args)
