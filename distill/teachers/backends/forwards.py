"""Outputs of a model in this process: a request in forwards of whole rows, each encoded by a wire.

Shape suffixes: B rows, T tokens, V classes or vocabulary, H hidden, P positions, M passes (1 but
for a mixture of experts that runs several times), X what a wire encodes of a position.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.config.moe import MoE
from distill.data.splits import mix64
from distill.errors import TeacherAnswerError
from distill.records import AnswerStats, DeviceOutput, ExpertUsage, RequestFor, TeacherOutput
from distill.teachers.backends.contract import NO_TURN, TeacherBackend, Turn
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.wires import WireFormat
from distill.wires.base import are_finite, on_host


class ForwardRows(NamedTuple):
    """The rows of one forward, on the model's device."""

    inputs: dict[str, Any]
    targets_BT: Tensor | None
    rows_B: np.ndarray


class ForwardCounts(threading.local):
    """What is counted in a thread's forwards, since it was last set to nothing."""

    num_clamped = 0
    stats: AnswerStats | None = None


class ForwardBackend(TeacherBackend):
    """A frozen model in this process; a subclass runs its forwards."""

    def __init__(self, teacher: ServedTeacher) -> None:
        super().__init__(teacher)
        serving = teacher.serving
        self.device = torch.device("cuda" if serving.num_gpus > 0 else "cpu")
        self.wire: WireFormat = serving.wire
        self.max_batch_tokens = serving.max_batch_tokens
        self.found = ForwardCounts()
        self._encoder = ThreadPoolExecutor(1, "teacher-encoder")  # its thread starts when needed

    @property
    def serves(self) -> Mapping[type[RequestFor[Any]], Callable[[Any, Turn], Any]]:
        return {TeacherRequest: self.answer}

    def outputs(
        self, block: ForwardRows, request: TeacherRequest, wire: WireFormat, moe: MoE
    ) -> Iterator[tuple[Tensor, ExpertUsage | None]]:
        """Logits [M, P, V], or what the wire takes, of a forward, in blocks of its positions; with
        the first of them which experts were used."""
        raise NotImplementedError

    def move(self, device: torch.device) -> None:
        raise NotImplementedError

    def active(self) -> AbstractContextManager[None]:
        """The model is this teacher's within."""
        return nullcontext()

    def answer(self, request: TeacherRequest, turn: Turn = NO_TURN) -> TeacherOutput:
        """All rows of the request, in its order; raises TeacherAnswerError, never a wrong shape.

        ``turn``: held while the model computes. What is left of encoding and of copying to the host
        is done after it, while the next request is computed.
        """
        payload = _Payload(int(request.counts_B.sum()), torch.device("cpu"), may_share=True)
        return on_host(self._answer(request, payload, turn))

    def call_on_device(self, request: TeacherRequest, turn: Turn = NO_TURN) -> DeviceOutput:
        """The same, all of it on the model's device."""
        # Not shared: of a view the model's whole output would be registered for the transfer.
        payload = _Payload(int(request.counts_B.sum()), self.device, may_share=False)
        return self._answer(request, payload, turn)

    @torch.inference_mode(False)  # else moved weights could have no gradients, which gates need
    def offload(self) -> None:
        """Move the model to host memory, and drop its key-value caches. Not during a request."""
        self.move(torch.device("cpu"))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode(False)
    def restore(self) -> None:
        """Move the model back, bit-identical; raises torch.OutOfMemoryError."""
        self.move(self.device)

    @torch.inference_mode()
    def _answer(self, request: TeacherRequest, payload: _Payload, turn: Turn) -> DeviceOutput:
        wire = request.wire or self.wire
        overlaps = turn is not NO_TURN and self.device.type == "cpu"
        encoded: Future[None] | None = None
        last: _Payloads | None = None
        compute_s, usage, num_found = 0.0, None, 0
        with turn, self.active():
            found = self.found
            found.num_clamped, found.stats = 0, None
            started = time.perf_counter()
            for payloads in self._payloads(request, wire):
                is_finite = are_finite(payloads.payload_MPX)  # waits for a GPU
                compute_s += time.perf_counter() - started
                if not is_finite:
                    raise TeacherAnswerError(
                        f"request {request.request_id}: the teacher's logits hold NaN or infinity: "
                        "check its weights, or serve it in float32"
                    )
                if encoded is not None:
                    encoded.result()  # one block at a time: [P, V] is never whole
                if last is not None:  # forwards without positions follow
                    self._encode(last, wire, payload)
                    last = None
                num_found += payloads.payload_MPX.shape[1]
                if not overlaps:
                    self._encode(payloads, wire, payload)
                elif num_found == payload.num_positions:
                    last = payloads
                else:
                    encoded = self._encoder.submit(self._encode, payloads, wire, payload)
                if payloads.usage is not None:
                    usage = payloads.usage if usage is None else usage + payloads.usage
                started = time.perf_counter()
            num_clamped, stats = found.num_clamped, found.stats
            payload.mark()
        assert num_found == payload.num_positions
        if encoded is not None:
            encoded.result()
        if last is not None:
            self._encode(last, wire, payload)
        about = TeacherOutput(
            request.request_id,
            request.rows_B,
            np.empty((0, 0), np.uint8),
            wire.name,
            compute_s,
            num_clamped,
            usage,
            stats,
        )
        return DeviceOutput(about, payload.whole(), payload.num_positions)

    @torch.inference_mode()  # it may run in another thread
    def _encode(self, payloads: _Payloads, wire: WireFormat, payload: _Payload) -> None:
        """Of M forwards, concatenated."""
        passes = [
            wire.encode(payload_PX, _of_pass(payloads.seeds_P, m))
            for m, payload_PX in enumerate(payloads.payload_MPX)
        ]
        payload.add(passes[0] if len(passes) == 1 else torch.cat(passes, 1))

    def _payloads(self, request: TeacherRequest, wire: WireFormat) -> Iterator[_Payloads]:
        """Blocks of positions in order, by forwards of whole rows."""
        seeds_P = position_seeds(request.rows_B, request.counts_B)
        moe = request.moe or self.teacher.moe
        first = 0
        for block in self.blocks(request, moe):
            for payload_MPX, usage in self.outputs(block, request, wire, moe):
                stop = first + payload_MPX.shape[1]
                yield _Payloads(payload_MPX, seeds_P[first:stop], usage)
                first = stop

    def blocks(self, request: TeacherRequest, moe: MoE) -> Iterator[ForwardRows]:
        # The split depends on the request alone, so that its answer does.
        tokens_a_row = max(1, request.num_tokens * moe.num_passes)
        rows_a_forward = max(1, self.max_batch_tokens // tokens_a_row)
        inputs, targets_BT = request.inputs(), request.targets_BT
        for first in range(0, request.num_rows, rows_a_forward):
            rows = slice(first, first + rows_a_forward)
            yield ForwardRows(
                {k: self._placed(v[rows]) for k, v in inputs.items()},
                None if targets_BT is None else self._placed(targets_BT[rows]),
                request.rows_B[rows],
            )

    def _placed(self, values: np.ndarray) -> Any:
        """On the model's device; texts stay as they are."""
        if values.dtype == object:
            return values
        # .copy(): arrays out of Ray's object store are read-only, which torch warns about.
        return torch.from_numpy(values.copy()).to(self.device)


class _Payloads(NamedTuple):
    payload_MPX: Tensor
    seeds_P: np.ndarray
    usage: ExpertUsage | None


class _Payload:
    """Encoded blocks of positions, put together on a device."""

    def __init__(self, num_positions: int, where: torch.device, may_share: bool) -> None:
        """``may_share``: an answer of a single block may be a view of what the model computed."""
        self.num_positions = num_positions
        self._where = where
        self._may_share = may_share
        self._filled = 0
        self._payload_PX: Tensor | None = None
        self._comes_from_gpu = False
        self._copied: torch.cuda.Event | None = None

    def add(self, encoded_NX: Tensor) -> None:
        is_whole = 0 < self.num_positions == len(encoded_NX)
        is_here = encoded_NX.device == self._where and encoded_NX.is_contiguous()
        if is_whole and is_here and self._may_share:
            self._payload_PX = encoded_NX
        else:
            self._copy(encoded_NX)
        self._filled += len(encoded_NX)

    def _copy(self, encoded_NX: Tensor) -> None:
        self._comes_from_gpu = encoded_NX.is_cuda and self._where.type == "cpu"
        if self._payload_PX is None:
            self._payload_PX = torch.empty(
                (max(1, self.num_positions), encoded_NX.shape[1]),
                dtype=encoded_NX.dtype,
                device=self._where,
                pin_memory=self._comes_from_gpu,
            )
        here_NX = self._payload_PX[self._filled : self._filled + len(encoded_NX)]
        here_NX.copy_(encoded_NX, non_blocking=self._comes_from_gpu)

    def mark(self) -> None:
        """Nothing more is computed on a GPU: what is queued there later is not waited for."""
        if self._comes_from_gpu:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def whole(self) -> Tensor:
        assert self._payload_PX is not None and self._filled == self.num_positions
        if self._copied is not None:
            self._copied.synchronize()
        return self._payload_PX


def position_seeds(rows_B: np.ndarray, counts_B: np.ndarray) -> np.ndarray:
    """uint64: a number for each position that depends on its row and place alone."""
    first_P = np.repeat(np.cumsum(counts_B) - counts_B, counts_B)
    place_P = np.arange(int(counts_B.sum())) - first_P
    row_P = np.repeat(rows_B, counts_B).astype(np.uint64)
    return mix64(mix64(row_P) + place_P.astype(np.uint64))


def _of_pass(seeds_P: np.ndarray, number: int) -> np.ndarray:
    """Each pass draws its own samples, the first those of a teacher with one."""
    return seeds_P if number == 0 else mix64(seeds_P ^ np.uint64(number))
