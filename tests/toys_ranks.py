"""Ranks that are threads of one process."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill.config import Optimizer, Trainer
from distill.training.class_module import DistillModule
from distill.training.engines import TorchEngine


@dataclass
class Ranks:
    """Ranks that are threads of one process."""

    size: int
    slots: dict[int, Tensor] = field(default_factory=dict)
    barrier: threading.Barrier = field(init=False)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size)

    def largest(self, rank: int, value: int) -> int:
        return int(max(self._all(rank, torch.tensor(value))))

    def sum(self, rank: int, values: Tensor) -> Tensor:
        return torch.stack(self._all(rank, values)).sum(0)

    def _all(self, rank: int, values: Tensor) -> list[Tensor]:
        self.slots[rank] = values
        self.barrier.wait()
        found = [self.slots[r] for r in range(self.size)]
        self.barrier.wait()
        return found


class ThreadEngine(TorchEngine):
    """The plain engine as one of several ranks."""

    def __init__(
        self, module: DistillModule, ranks: Ranks, rank: int, optimizer: Optimizer
    ) -> None:
        super().__init__(module, optimizer, Trainer(engine="torch"), torch.device("cpu"))
        self._ranks, self.rank, self.world_size = ranks, rank, ranks.size

    def step(self, lr: float) -> float:
        for param in self.module.parameters():
            grad = torch.zeros_like(param) if param.grad is None else param.grad
            param.grad = self._ranks.sum(self.rank, grad)
        self.world_size = 1  # the gradients are summed
        try:
            return super().step(lr)
        finally:
            self.world_size = self._ranks.size

    def reduce(self, values: Tensor) -> Tensor:
        return self._ranks.sum(self.rank, values)

    def agree(self, value: int) -> int:
        return self._ranks.largest(self.rank, value)

    def barrier(self) -> None:
        self._ranks.barrier.wait()
