"""Requests of several ranks that wait at one teacher, computed together (``batch_requests``).

Shape suffixes: B rows, T tokens, P positions, X a position's payload.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from distill.config.moe import OwnRouting
from distill.data.block_file import positions
from distill.records import INPUTS, Answer, RequestFor, TeacherOutput
from distill.teachers.backends.forwards import ForwardBackend
from distill.teachers.requests import TeacherRequest

_Waiting = tuple[TeacherRequest, "Future[TeacherOutput]"]


class Batching:
    """One teacher's requests: whichever has its turn takes with it those that wait. Thread-safe."""

    def __init__(self, backend: ForwardBackend) -> None:
        self._backend = backend
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()

    def call(self, request: RequestFor[Answer], turn: AbstractContextManager[Any]) -> Answer:
        """As of a backend; other requests than for outputs are computed alone."""
        if isinstance(request, TeacherRequest):
            answer: Any = self._answer(request, turn)
            return answer
        return self._backend.call(request, turn)

    def _answer(self, request: TeacherRequest, turn: AbstractContextManager[Any]) -> TeacherOutput:
        """Raises what the backend does, of all requests that were computed together."""
        own: _Waiting = (request, Future())
        with self._lock:
            self._waiting.append(own)
        try:
            with ExitStack() as held:
                held.enter_context(turn)
                if taken := self._taken(own):
                    self._compute(taken, held)
        except BaseException:  # it has been cancelled while it waited for its turn
            self._drop([own])
            raise
        return own[1].result()  # perhaps another caller's, which encodes it outside its turn

    def _taken(self, own: _Waiting) -> list[_Waiting]:
        """This request, and those waiting that fit into a forward with it, oldest first; nothing
        where another caller has taken this one."""
        first, taken = own[0], [own]
        width, num_rows = first.num_tokens, first.num_rows
        with self._lock:
            if not any(one is own for one in self._waiting):
                return []
            for one in self._waiting:
                other = one[0]
                wider = max(width, other.num_tokens)
                fits = wider * (num_rows + other.num_rows) <= self._backend.max_batch_tokens
                if one is not own and fits and can_join(first, other):
                    taken.append(one)
                    width, num_rows = wider, num_rows + other.num_rows
        self._drop(taken)
        return taken

    def _drop(self, gone: list[_Waiting]) -> None:
        with self._lock:
            self._waiting = [one for one in self._waiting if not any(one is g for g in gone)]

    def _compute(self, taken: list[_Waiting], held: ExitStack) -> None:
        requests = [request for request, _ in taken]
        try:
            outputs = split(self._backend.answer(joined(requests), held), requests)
        except BaseException as error:
            for _, future in taken:
                future.set_exception(error)
            return
        for (_, future), output in zip(taken, outputs, strict=True):
            future.set_result(output)


def can_join(one: TeacherRequest, other: TeacherRequest) -> bool:
    """Whether both may be computed in one forward.

    Not of a mixture of experts whose draws or gates are a request's own.
    """
    is_plain = all(
        request.gate is None and isinstance(request.moe or OwnRouting(), OwnRouting)
        for request in (one, other)
    )
    has_same_inputs = one.inputs().keys() == other.inputs().keys()
    have_targets = (one.targets_BT is None) == (other.targets_BT is None)
    return is_plain and has_same_inputs and have_targets and one.wire == other.wire


def joined(requests: Sequence[TeacherRequest]) -> TeacherRequest:
    """One request for all rows, padded to the longest; a single one as it is."""
    first = requests[0]
    if len(requests) == 1:
        return first
    width = max(request.num_tokens for request in requests)
    together: dict[str, np.ndarray] = {}
    for name in (*INPUTS, "targets_BT"):
        if getattr(first, name) is not None:
            parts = [_padded(name, getattr(request, name), width) for request in requests]
            together[name] = np.concatenate(parts)
    rows_B = np.concatenate([request.rows_B for request in requests])
    return replace(first, rows_B=rows_B, **together)


def _padded(name: str, values: np.ndarray, width: int) -> np.ndarray:
    """Behind the tokens: ids 0 without attention and targets, and positions of one more sequence,
    as in padding of blocks (distill/data/block_file.py)."""
    num_more = width - values.shape[1] if name.endswith("_BT") else 0
    if num_more == 0:
        return values
    more = np.zeros((len(values), num_more), values.dtype)
    if name == "position_ids_BT":
        more += positions([num_more])
    return np.concatenate([values, more], axis=1)


def split(output: TeacherOutput, requests: Sequence[TeacherRequest]) -> list[TeacherOutput]:
    """The output of each request. Counts of the whole forward are those of the first, seconds are
    shared by rows."""
    found, first = [], 0
    for i, request in enumerate(requests):
        stop = first + int(request.counts_B.sum())
        share = request.num_rows / max(1, len(output.rows_B))
        own = replace(
            output,
            request_id=request.request_id,
            rows_B=request.rows_B,
            payload=output.payload[first:stop],
            compute_s=output.compute_s * share,
        )
        found.append(own if i == 0 else replace(own, num_clamped=0, usage=None, stats=None))
        first = stop
    return found
