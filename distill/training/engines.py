"""The plain-torch engine: the reference that every other engine must agree with."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distill.config import Optimizer, Trainer
from distill.records import Answers, Batch, LossOutput, ScheduleValues
from distill.training.loop import Engine

SAVED = "engine.pt"


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices; none for biases and norms (BERT's rule). Frozen ones left out."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


PATIENCE_S = 1800.0
"""Seconds that a rank waits in a collective for ranks that do not wait for a teacher."""


def group_timeout(recovery_s: float) -> timedelta:
    """Of process groups: a rank may wait ``recovery_s`` for a teacher, and the others for it."""
    return timedelta(seconds=recovery_s + PATIENCE_S)


def cpu_group(recovery_s: float) -> Any:
    """A process group of all ranks whose collectives run on the CPU; every rank calls it. None: the
    default group is one, or there is none."""
    if not dist.is_initialized() or dist.get_backend() == "gloo":
        return None
    return dist.new_group(backend="gloo", timeout=group_timeout(recovery_s))


def largest(value: int, group: Any) -> int:
    """Of all ranks, on every rank: a collective of 8 bytes on the CPU."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    found = torch.tensor([value])
    dist.all_reduce(found, dist.ReduceOp.MAX, group=group)
    return int(found)


class TorchEngine:
    """AdamW on one or several ranks; gradients are *summed*, since losses are global shares."""

    is_sharded = False

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        trainer: Trainer,
        device: torch.device,
        recovery_s: float = 0.0,
    ) -> None:
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world_size = dist.get_world_size() if dist.is_initialized() else 1
        self._cpu_group = cpu_group(recovery_s)
        self.device = device
        self.module = module.to(device)
        self._clip_norm = optimizer.clip_norm
        self._autocast = trainer.dtype == "bfloat16"
        groups = [g for g in parameter_groups(module, optimizer.weight_decay) if g["params"]]
        self._optimizer = torch.optim.AdamW(groups, lr=optimizer.lr, betas=optimizer.betas)

    def forward(
        self, batch: Batch, answers: Answers | None, schedule_values: ScheduleValues
    ) -> LossOutput:
        answers = None if answers is None else answers.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16) if self._autocast else nullcontext():
            return self.module(batch.to(self.device), answers, schedule_values)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float) -> float:
        params = [p for g in self._optimizer.param_groups for p in g["params"]]
        if self.world_size > 1:
            for param in params:
                if param.grad is None:
                    param.grad = torch.zeros_like(param)
                dist.all_reduce(param.grad)
        norm = torch.nn.utils.clip_grad_norm_(params, self._clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def train(self) -> None:
        self.module.train()

    def eval(self) -> None:
        self.module.eval()

    def reduce(self, values: Tensor) -> Tensor:
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, value: int) -> int:
        return largest(value, self._cpu_group)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def save(self, folder: Path) -> None:
        """Every rank calls it; ranks hold the same state, so one file serves any world size."""
        if self.rank == 0:
            state = {"module": self.module.state_dict(), "optimizer": self._optimizer.state_dict()}
            torch.save(state, folder / SAVED)

    def load(self, folder: Path) -> None:
        state = torch.load(folder / SAVED, map_location=self.device, weights_only=True)
        self.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])

    def module_state(self) -> dict[str, Tensor]:
        """The whole module in float32 on the CPU; empty on ranks other than 0."""
        if self.rank > 0:
            return {}
        return {n: t.detach().float().cpu().clone() for n, t in self.module.state_dict().items()}


def make_engine(
    module: nn.Module,
    optimizer: Optimizer,
    trainer: Trainer,
    accumulation: int,
    recovery_s: float = 0.0,
) -> Engine:
    """The engine that ``trainer.engine`` names, on this rank's device. ``recovery_s``: the longest
    time that a rank may wait for a teacher."""
    device = torch.device(pick_device(trainer))
    if trainer.engine == "torch":
        return TorchEngine(module, optimizer, trainer, device, recovery_s)
    from distill.training.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(module, optimizer, trainer, device, accumulation, recovery_s)


def pick_device(trainer: Trainer) -> str:
    if trainer.device != "auto":
        return trainer.device
    return "cuda" if trainer.num_gpus_per_worker > 0 else "cpu"
