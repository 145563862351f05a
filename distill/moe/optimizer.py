"""What trains a student-aware router: AdamW on the student's side; teachers keep nothing."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.config.moe import StudentAwareRouter
from distill.records import GateState


class GateOptimizer:
    """The gates' newest state, in float32, and AdamW's moments of it.

    Every rank has one. Given the same sums (reduced over ranks), all take the same,
    bit-identical step: nothing but the gradients is sent.
    """

    def __init__(self, start: GateState, settings: StudentAwareRouter) -> None:
        self._shapes = start.shapes
        self._version = start.version
        self._values = torch.nn.Parameter(torch.from_numpy(np.array(start.values)))
        # Not foreach or fused: one loop, whose bits do not depend on the device.
        self._adamw = torch.optim.AdamW(
            [self._values], settings.lr, weight_decay=settings.weight_decay, foreach=False
        )
        self._state = start

    @property
    def state(self) -> GateState:
        """What requests carry (``TeacherRequest.gate``)."""
        return self._state

    def step(self, gradient_sum_G: Tensor | np.ndarray, num_positions: int) -> GateState:
        """From the sums of a step's GateGradients over micro-batches and ranks to a new state; no
        step without positions."""
        if num_positions == 0:
            return self._state
        if isinstance(gradient_sum_G, np.ndarray):
            gradient_sum_G = torch.from_numpy(gradient_sum_G.copy())  # Ray's are read-only
        gradient_G = gradient_sum_G.float().cpu()
        self._values.grad = gradient_G / num_positions
        self._adamw.step()
        self._values.grad = None
        self._version += 1
        self._state = self._taken()
        return self._state

    def _taken(self) -> GateState:
        values = self._values.detach().numpy().copy()
        return GateState(self._version, values, self._shapes)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; a copy, which later steps do not change."""
        return {
            "version": self._version,
            "shapes": self._shapes,
            "values": self._values.detach().clone(),
            "adamw": copy.deepcopy(self._adamw.state_dict()),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Raises TeacherError for the gates of another model."""
        kept = GateState(saved["version"], saved["values"].numpy(), saved["shapes"])
        kept.check(self._shapes, self._values.numel())
        with torch.no_grad():
            self._values.copy_(saved["values"])
        self._adamw.load_state_dict(saved["adamw"])
        self._version = saved["version"]
        self._state = self._taken()
