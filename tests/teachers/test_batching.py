"""Requests of several ranks that are computed in one forward, and who gets what of it.

Shape suffixes: B rows, D features, V classes, P positions.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from distill.config import Serving
from distill.config.moe import KnowledgeAugmentation
from distill.errors import TeacherAnswerError
from distill.records import AnswerStats, TeacherOutput
from distill.teachers.actor import TeacherActor
from distill.teachers.batching import Batching, can_join, joined, split
from distill.teachers.queue import Queue
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.teachers.transports import ObjectStore
from distill.wires import DenseWire, HiddenWire
from tests.toys_language import NUM_TOKENS, llama
from tests.toys_teachers import backend_of


def rows_of(first: int, num_rows: int, wire: Any = None) -> TeacherRequest:
    """Features that are the row's number."""
    rows_B = np.arange(first, first + num_rows)
    features_BD = rows_B[:, None].astype(np.float32)
    return TeacherRequest(f"from {first}", rows_B, features_BD=features_BD, wire=wire)


def tokens_of(first: int, num_rows: int, width: int) -> TeacherRequest:
    """One sequence a row, all of whose tokens but the last are positions."""
    rows_B = np.arange(first, first + num_rows)
    ids_BT = (rows_B[:, None] * 7 + np.arange(width)) % NUM_TOKENS
    places_BT = np.broadcast_to(np.arange(width), ids_BT.shape).copy()
    return TeacherRequest(
        f"from {first}",
        rows_B,
        input_ids_BT=ids_BT,
        position_ids_BT=places_BT,
        targets_BT=places_BT < width - 1,
    )


class Counting:
    """A model that counts its forwards' rows; logits are the features, and twice them."""

    def __init__(self) -> None:
        self.forwards: list[int] = []

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        self.forwards.append(len(features))
        return torch.cat([features, 2 * features], 1)


class InTurn:
    """A turn that the test gives, once so many callers wait for it."""

    def __init__(self, num_callers: int) -> None:
        self._all_wait = threading.Barrier(num_callers)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._all_wait.wait(timeout=30)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def answers(engine: Any, requests: list[TeacherRequest]) -> list[TeacherOutput]:
    """Of requests that all wait before the first of them is computed."""
    batching, turn = Batching(engine), InTurn(len(requests))
    with ThreadPoolExecutor(len(requests)) as pool:
        futures = [pool.submit(batching.call, request, turn) for request in requests]
        return [future.result(timeout=30) for future in futures]


def test_requests_that_wait_are_computed_in_one_forward():
    model = Counting()
    requests = [rows_of(0, 2), rows_of(10, 1), rows_of(20, 3)]
    found = answers(backend_of(model, num_labels=2), requests)
    assert model.forwards == [6]
    for request, output in zip(requests, found, strict=True):
        assert output.request_id == request.request_id
        assert np.array_equal(output.rows_B, request.rows_B)
        assert output.payload.tolist() == [[row, 2 * row] for row in request.rows_B]
    assert np.ptp([output.compute_s / len(output.rows_B) for output in found]) < 1e-9


def test_who_was_taken_along_waits_for_an_answer_that_is_still_encoded():
    """The turn is over by then, so that the other caller has it."""
    other_has_turn = threading.Event()

    class Encoded(DenseWire):
        def encode(
            self, payload_PX: torch.Tensor, seeds_P: np.ndarray | None = None
        ) -> torch.Tensor:
            assert other_has_turn.wait(timeout=30)
            return super().encode(payload_PX, seeds_P)

    class Turn(InTurn):
        num_given = 0

        def __enter__(self) -> None:
            super().__enter__()
            self.num_given += 1
            if self.num_given == 2:
                other_has_turn.set()

    model, wire, turn = Counting(), Encoded(), Turn(2)
    batching = Batching(backend_of(model, num_labels=2))
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(batching.call, rows_of(f, 1, wire), turn) for f in (0, 10)]
        found = [future.result(timeout=30) for future in futures]
    assert model.forwards == [2]
    assert [output.payload.tolist() for output in found] == [[[0, 0]], [[10, 20]]]


def test_what_does_not_fit_into_a_forward_waits_for_its_own():
    model = Counting()
    requests = [rows_of(first, 2) for first in (0, 10, 20)]
    found = answers(backend_of(model, num_labels=2, max_batch_tokens=4), requests)
    assert sorted(model.forwards) == [2, 4]
    assert [output.payload[0, 0] for output in found] == [0, 10, 20]


def test_requests_of_another_wire_wait_for_their_own_forward():
    model = Counting()
    requests = [rows_of(0, 1), rows_of(10, 1), rows_of(20, 1, DenseWire(dtype="bfloat16"))]
    found = answers(backend_of(model, num_labels=2), requests)
    assert sorted(model.forwards) == [1, 2]
    assert [output.payload.dtype for output in found] == [np.float32, np.float32, np.uint16]


def test_a_request_that_is_cancelled_in_its_turn_is_not_computed():
    class Cancelled:
        def __enter__(self) -> None:
            raise CancelledError

        def __exit__(self, *_: object) -> None:
            pass

    model = Counting()
    batching = Batching(backend_of(model, num_labels=2))
    with pytest.raises(CancelledError):
        batching.call(rows_of(0, 2), Cancelled())
    assert batching.call(rows_of(10, 1), nullcontext()).payload.tolist() == [[10, 20]]
    assert model.forwards == [1]


def test_an_error_is_raised_by_all_that_were_computed_together():
    broken = rows_of(10, 1)
    broken = replace(broken, features_BD=np.array([[np.nan]], np.float32))
    with pytest.raises(TeacherAnswerError, match="NaN"):
        answers(backend_of(Counting(), num_labels=2), [rows_of(0, 1), broken])


def test_tokens_of_other_lengths_are_answered_as_alone():
    engine = backend_of(
        llama(1), num_labels=NUM_TOKENS, is_language_model=True, wire=HiddenWire(dtype="float32")
    )
    requests = [tokens_of(0, 2, 9), tokens_of(5, 1, 4), tokens_of(8, 3, 6)]
    together = joined(requests)
    assert together.num_tokens == 9 and together.num_rows == 6
    whole = engine.answer(together)
    for request, output in zip(requests, split(whole, requests), strict=True):
        alone = engine.answer(request)
        assert output.payload.shape == alone.payload.shape
        assert np.allclose(output.payload, alone.payload, atol=1e-5)
    assert joined(requests[:1]) is requests[0]


def test_counts_of_a_forward_are_received_once():
    requests = [rows_of(0, 1), rows_of(10, 3)]
    payload = np.zeros((4, 2), np.float32)
    rows_B = np.array([0, 10, 11, 12])
    stats = AnswerStats(4, 8.0, 0.0)
    whole = TeacherOutput("r", rows_B, payload, "dense/float32", 2.0, 5, None, stats)
    first, second = split(whole, requests)
    assert (first.num_clamped, second.num_clamped) == (5, 0)
    assert (first.stats, second.stats) == (stats, None)
    assert (first.compute_s, second.compute_s) == (0.5, 1.5)


def test_only_requests_without_draws_of_their_own_are_joined():
    plain = rows_of(0, 1)
    assert can_join(plain, rows_of(5, 2))
    assert not can_join(plain, replace(plain, moe=KnowledgeAugmentation()))
    assert not can_join(replace(plain, moe=KnowledgeAugmentation()), plain)
    assert not can_join(plain, tokens_of(5, 1, 4))
    assert not can_join(plain, replace(plain, targets_BT=np.ones((1, 1), bool)))


def test_batching_is_off_and_refused_where_requests_draw():
    assert not Serving().batch_requests
    assert Serving(batch_requests=True).moe.type == "own"
    with pytest.raises(ValidationError, match=r"needs moe.type: own, not ka"):
        Serving(batch_requests=True, moe=KnowledgeAugmentation())


@pytest.mark.parametrize("is_batched", [True, False])
def test_a_replica_computes_together_what_waits_only_if_that_is_set(is_batched):
    model = Counting()
    actor = TeacherActor(
        [ServedTeacher("a", "", Serving(batch_requests=is_batched), 2, model=model)], ObjectStore()
    )
    actor._queue = Queue()  # outside of Ray no request is cancelled
    with ThreadPoolExecutor(3) as pool:
        with actor._queue.turn():
            futures = [pool.submit(actor.call, "a", rows_of(first, 1)) for first in (0, 10, 20)]
            give_up = time.monotonic() + 30
            while is_batched and len(actor._batching["a"]._waiting) < 3:
                assert time.monotonic() < give_up
                time.sleep(0.001)
        found = [future.result(timeout=30) for future in futures]
    assert model.forwards == ([3] if is_batched else [1, 1, 1])
    assert [output.payload[0, 0] for output in found] == [0, 10, 20]
