"""DeepSpeed ZeRO 0–3 behind the same interface as the plain-torch engine.

DeepSpeed averages over ranks and divides by the accumulation; our losses are already shares of
the global mean, so each is scaled up by both before its backward.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distill.config import Optimizer, Trainer
from distill.errors import CheckpointError
from distill.records import Answers, Batch, LossOutput, ScheduleValues
from distill.training.engines import cpu_group, largest, parameter_groups

TAG = "deepspeed"


def is_compiled() -> bool:
    """Whether this machine has the operator that DeepSpeed compiles when a rank first trains on
    CPUs."""
    from torch.utils.cpp_extension import get_default_build_root

    root = os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()
    return any(Path(root).rglob("deepspeed_shm_comm.so"))


class DeepSpeedEngine:
    """One rank of a DeepSpeed engine. ``torch.distributed`` is set up by Ray Train or torchrun,
    or here for a process on its own.

    ``accumulation`` is the number of micro-batches of every step. A ZeRO checkpoint is sharded:
    it resumes on the same number of ranks (the plain engine's resumes on any).
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        trainer: Trainer,
        device: torch.device,
        accumulation: int,
        recovery_s: float = 0.0,
    ) -> None:
        if device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # DeepSpeed calls torch.distributed functions that 2.13 renames, at every step.
        warnings.filterwarnings("ignore", r".* is deprecated. Please use", FutureWarning)
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        backend = "gloo" if device.type == "cpu" else "nccl"
        if not dist.is_initialized() and "WORLD_SIZE" not in os.environ:
            # Alone in this process: a group of one, that listens on no port.
            alone: Any = dist
            dist.init_process_group(backend, store=alone.HashStore(), rank=0, world_size=1)
            os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False)
        self.device = device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._cpu_group = cpu_group(recovery_s)
        self._accumulation = accumulation
        self._micro_batch = 0
        self._stage = trainer.zero_stage
        self.is_sharded = trainer.zero_stage > 0
        groups = [g for g in parameter_groups(module, optimizer.weight_decay) if g["params"]]
        # torch's AdamW: DeepSpeed's own "Adam" JIT-builds a fused operator, and differs in bits.
        adamw = torch.optim.AdamW(groups, lr=optimizer.lr, betas=optimizer.betas)
        self._engine: Any = deepspeed.initialize(
            model=module.to(device),
            optimizer=adamw,  # type: ignore[arg-type]
            config=self._settings(optimizer, trainer),
        )[0]

    @property
    def module(self) -> nn.Module:
        return self._engine.module

    def _settings(self, optimizer: Optimizer, trainer: Trainer) -> dict[str, Any]:
        return {
            # DeepSpeed only multiplies this one; the true rows differ from batch to batch.
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": self._accumulation,
            "gradient_clipping": optimizer.clip_norm,
            "bf16": {"enabled": trainer.dtype == "bfloat16"},
            "zero_optimization": {"stage": trainer.zero_stage},
            "steps_per_print": 10**9,
            "wall_clock_breakdown": False,
        }

    def forward(
        self, batch: Batch, answers: Answers | None, schedule_values: ScheduleValues
    ) -> LossOutput:
        answers = None if answers is None else answers.to(self.device)
        return self._engine(batch.to(self.device), answers, schedule_values)

    def backward(self, loss: Tensor) -> None:
        if self._micro_batch > 0:
            self._engine.step()  # inside an accumulation: only counts the micro-batch
        self._engine.backward(loss * (self.world_size * self._accumulation))
        self._micro_batch += 1

    def step(self, lr: float) -> float:
        assert self._micro_batch == self._accumulation, "a step has a fixed number of micro-batches"
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        # Stage 0 in float32 clips by a norm that DeepSpeed does not keep.
        is_kept = hasattr(self._engine.optimizer, "_global_grad_norm")
        norm = None if is_kept else self._grad_norm()
        self._engine.step()
        self._micro_batch = 0
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

    def _grad_norm(self) -> Tensor:
        """Of gradients that no rank holds a part of: summed over ranks in their last backward."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def train(self) -> None:
        self._engine.train()

    def eval(self) -> None:
        self._engine.eval()

    def reduce(self, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    def agree(self, value: int) -> int:
        return largest(value, self._cpu_group)

    def barrier(self) -> None:
        dist.barrier()

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        loaded, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
        if loaded is None:
            raise CheckpointError(
                f"{folder} holds no DeepSpeed checkpoint of this ZeRO stage and number of ranks: "
                "resume with the trainer.zero_stage and trainer.num_workers that wrote it"
            )

    def module_state(self) -> dict[str, Tensor]:
        module: nn.Module = self._engine.module
        if self._stage < 3:
            named = list(module.state_dict().items()) if self.rank == 0 else []
            return {name: tensor.detach().float().cpu().clone() for name, tensor in named}
        import deepspeed

        state: dict[str, Tensor] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            # One at a time: never the whole model on one device. Buffers are not partitioned.
            sharded = [tensor] if isinstance(tensor, nn.Parameter) else []
            with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)):
                if self.rank == 0:
                    state[name] = tensor.detach().float().cpu().clone()
        return state
