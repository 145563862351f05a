"""The gates' step of SAR, before the student's own: what it generated, what it would output, one
step of the gates. The same on every rank.

Shape suffixes: N rows of a micro-batch, P its positions, V vocabulary, G values of the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from distill.config.moe import StudentAwareRouter
from distill.moe.optimizer import GateOptimizer
from distill.records import Batch, GateState
from distill.teachers.client import TeacherClient
from distill.teachers.requests import GateRequest, GateStateRequest, TeacherRequest


class GateClient(Protocol):
    """The teachers' stream: what the gates' requests have in common with the answers'."""

    def request(
        self, name: str, request_id: str, part: Any, rows_N: np.ndarray, step: int = 0
    ) -> TeacherRequest: ...
    def take_gate(self, name: str, gate: GateState) -> None: ...
    def computed(self, name: str, seconds: float) -> None: ...


class GateTraining:
    """Of one teacher. ``reduce``: the sum over ranks, on every rank, as an engine has it."""

    def __init__(
        self,
        teacher: str,
        settings: StudentAwareRouter,
        client: TeacherClient,
        stream: GateClient,
        reduce: Callable[[Tensor], Tensor],
        device: torch.device | str = "cpu",
    ) -> None:
        self.teacher = teacher
        self._client = client
        self._stream = stream
        self._reduce = reduce
        self._device = device
        self._num_steps = 0
        self._sums = (0.0, 0.0)
        self._optimizer = GateOptimizer(client.call(teacher, GateStateRequest()), settings)
        stream.take_gate(teacher, self._optimizer.state)

    def step(
        self,
        parts: Sequence[Batch],
        logits_of: Callable[[Batch], Tensor],
        step: int,
        temperature: float,
        waited: Callable[[Callable[[], Any]], Any] = lambda call: call(),
    ) -> GateState:
        """One step of the gates on this step's micro-batches, which are then asked with them.

        ``logits_of``: the student's at a micro-batch's positions, float [P, V] of the tokens that
        it shares with the teacher; called for every micro-batch, also one without rows. ``step``:
        of the run; the noise is another at each. ``temperature``: of both softmaxes. ``waited`` is
        called for every micro-batch, on every rank, with the request (or with nothing to do).
        """
        size = self._optimizer.state.values.size
        totals_G = torch.zeros(size + 3, dtype=torch.float64)
        for i, part in enumerate(parts):
            student_PV = logits_of(part)
            rows_N = part.rows_B[part.valid_B.cpu().numpy()]
            if len(rows_N) == 0:
                waited(lambda: None)
                continue
            request_id = f"{self.teacher}/gate/{step}/{i}"
            asked = GateRequest(
                self._stream.request(self.teacher, request_id, part, rows_N, step),
                student_PV.detach().float().cpu().numpy(),
                temperature,
            )
            found = waited(partial(self._client.call, self.teacher, asked))
            asked.check(found, student_PV.shape[1])
            self._stream.computed(self.teacher, found.compute_s)
            totals_G[:size] += torch.from_numpy(found.values)
            totals_G[size:] += torch.tensor(
                [found.kl_sum, found.balance_sum, found.num_positions], dtype=torch.float64
            )
        totals_G = self._reduce(totals_G.to(self._device)).cpu()
        kl_sum, balance_sum, num_positions = totals_G[size:].tolist()
        self._num_steps += 1
        count = max(1.0, num_positions)
        self._sums = (self._sums[0] + kl_sum / count, self._sums[1] + balance_sum / count)
        state = self._optimizer.step(totals_G[:size].float(), int(num_positions))
        self._stream.take_gate(self.teacher, state)
        return state

    def timings(self) -> dict[str, float]:
        """Since the last call: means over steps of KL(p_T ‖ p_S) in nats and of the balancing part,
        and the gates' version. Equal on every rank."""
        (kl, balance), count = self._sums, max(1, self._num_steps)
        self._sums, self._num_steps = (0.0, 0.0), 0
        return {
            f"teacher.{self.teacher}.gate_kl_rate": kl / count,
            f"teacher.{self.teacher}.gate_balance_rate": balance / count,
            f"teacher.{self.teacher}.gate_version_rate": float(self._optimizer.state.version),
        }

    def state_dict(self) -> dict[str, Any]:
        """To be checkpointed with the student; equal on every rank."""
        return self._optimizer.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(saved)
        self._stream.take_gate(self.teacher, self._optimizer.state)
