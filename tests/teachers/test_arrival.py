"""From a teacher's numbers to the student's: how often they are copied, tested and waited for.

Shape suffixes: B rows, V classes, P positions, X a payload.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.teachers.backends.contract import NO_TURN
from distill.teachers.cache import NoCache, TeacherCache, TeacherKey
from distill.teachers.requests import TeacherRequest
from distill.teachers.segments import Shelf
from distill.wires import DenseWire, HiddenWire, SampledWire, TopKWire, WireFormat
from distill.wires.base import are_finite, as_array, as_tensor
from tests.toys_language import NUM_TOKENS, llama
from tests.toys_teachers import backend_of

KEY = TeacherKey("w" * 64, "d" * 64, "t" * 64, "dense/float32", 8)
WIRES: list[WireFormat] = [
    DenseWire(dtype="float32"),
    DenseWire(dtype="bfloat16"),
    HiddenWire(dtype="float32"),
    TopKWire(k=5),
    SampledWire(),
]


def read_only(payload: np.ndarray) -> np.ndarray:
    payload.flags.writeable = False
    return payload


# Numbers


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint8])
@pytest.mark.parametrize("is_writeable", [True, False])
def test_a_payload_is_not_copied_to_be_read(dtype, is_writeable):
    payload_PX = np.arange(12, dtype=dtype).reshape(4, 3)
    payload_PX.flags.writeable = is_writeable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_PX = as_tensor(payload_PX)
    assert read_PX.data_ptr() == payload_PX.ctypes.data
    assert np.array_equal(as_array(read_PX), payload_PX)


def test_a_payload_read_keeps_its_memory():
    read_PX = as_tensor(read_only(np.arange(1 << 20, dtype=np.float32).reshape(-1, 1)))
    others = [np.zeros((1 << 20, 1), np.float32) for _ in range(3)]  # would take its place
    assert read_PX[-1, 0] == (1 << 20) - 1 and len(others) == 3


def test_a_payload_without_rows_is_read():
    assert as_tensor(read_only(np.empty((0, 8), np.uint8))).view(torch.int32).shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_found(dtype, broken):
    numbers = torch.randn(50, 40).to(dtype)
    assert are_finite(numbers)
    numbers[37, 11] = broken
    assert not are_finite(numbers)
    numbers[2, 3] = -broken  # infinities of both signs: their sum is no number
    assert not are_finite(numbers)


def test_finite_numbers_whose_sum_overflows_are_finite():
    assert are_finite(torch.full((3, 3), 3e38))
    assert are_finite(torch.full((3, 3), 3e38, dtype=torch.bfloat16))
    assert are_finite(torch.empty(0, 5))


# The cache


def test_the_cache_returns_the_copy_that_it_keeps(tmp_path):
    answer_PX = read_only(np.ones((3, 2), np.float32))
    kept_PX = TeacherCache(tmp_path, {"a": KEY}, "rank0").put("a", np.arange(3), answer_PX)
    assert np.array_equal(kept_PX, answer_PX) and not np.shares_memory(kept_PX, answer_PX)


def test_without_a_cache_only_a_payload_of_the_object_store_is_copied():
    own_PX = np.ones((3, 2), np.float32)
    assert NoCache().put("a", np.arange(3), own_PX) is own_PX
    stored_PX = read_only(own_PX.copy())
    copied_PX = NoCache().put("a", np.arange(3), stored_PX)
    assert np.array_equal(copied_PX, stored_PX) and not np.shares_memory(copied_PX, stored_PX)


class Later(Executor):
    """Runs what is submitted when :meth:`run` is called."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.waiting.append((Future(), fn, args))
        return self.waiting[-1][0]

    def run(self) -> None:
        for future, fn, args in self.waiting:
            try:
                future.set_result(fn(*args))
            except OSError as error:
                future.set_exception(error)
        self.waiting = []


def rows_of(shelf: Shelf, rows: list[int]) -> list[float]:
    """The first number of each row's payload, -1 of those that are not there."""
    found = shelf.get(np.array(rows))
    numbers = np.full(len(rows), -1.0)
    numbers[found.hit_B] = found.payload_PX[:, 0] if found.hit_B.any() else []
    return numbers.tolist()


def hold(shelf: Shelf, row: int, number: float) -> None:
    shelf.hold(np.array([row]), np.full((1, 2), number, np.float32), np.array([1]))


def test_rows_are_served_while_their_segment_is_written(tmp_path):
    shelf, writer = Shelf(tmp_path, "rank0"), Later()
    hold(shelf, 1, 10)
    shelf.write_in_background(writer)
    hold(shelf, 2, 20)
    hold(shelf, 1, 11)  # answered once more: what was served first stays
    assert not list(tmp_path.glob("segment-*"))
    assert rows_of(shelf, [2, 3, 1]) == [20, -1, 10] and shelf.num_rows == 2
    writer.run()
    assert len(list(tmp_path.glob("segment-*"))) == 1
    assert rows_of(shelf, [2, 3, 1]) == [20, -1, 10] and shelf.num_rows == 2
    shelf.flush()
    assert rows_of(shelf, [2, 3, 1]) == [20, -1, 10] and shelf.num_rows == 2
    again = Shelf(tmp_path, "rank1")
    again.refresh()
    assert rows_of(again, [2, 3]) == [20, -1]


def test_a_segment_written_behind_is_the_file_that_a_flush_writes(tmp_path):
    names = []
    for folder in ("behind", "flushed"):
        shelf, writer = Shelf(tmp_path / folder, "rank0"), Later()
        hold(shelf, 7, 70)
        hold(shelf, 5, 50)
        if folder == "behind":
            shelf.write_in_background(writer)
            writer.run()
        shelf.flush()
        names.append([path.name for path in (tmp_path / folder).glob("*")])
    assert names[0] == names[1] and len(names[0]) == 1


def test_what_writing_behind_raised_is_raised_by_the_next_answers(tmp_path):
    domain_teacher = tmp_path / "home"
    domain_teacher.write_text("a file in place of the folder")
    shelf, writer = Shelf(domain_teacher, "rank0"), Later()
    hold(shelf, 1, 10)
    shelf.write_in_background(writer)
    writer.run()
    with pytest.raises(OSError, match="home"):
        hold(shelf, 2, 20)
    with pytest.raises(OSError, match="home"):
        shelf.flush()


# The teacher


def asked(wire: WireFormat, num_rows: int = 6) -> TeacherRequest:
    ids_BT = np.arange(num_rows * 8).reshape(num_rows, 8) % NUM_TOKENS
    return TeacherRequest(
        "r",
        np.arange(num_rows),
        input_ids_BT=ids_BT,
        position_ids_BT=np.broadcast_to(np.arange(8), ids_BT.shape).copy(),
        targets_BT=np.broadcast_to(np.arange(8) < 7, ids_BT.shape).copy(),
        wire=wire,
    )


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
@pytest.mark.parametrize("max_batch_tokens", [16, 16384])
def test_what_is_encoded_after_the_turn_is_the_same(wire, max_batch_tokens):
    """In several forwards, and in one, whose answer is not put together of parts."""
    engine = backend_of(
        llama(1),
        num_labels=NUM_TOKENS,
        is_language_model=True,
        wire=wire,
        max_batch_tokens=max_batch_tokens,
    )
    request = asked(wire)
    alone = engine.answer(request)
    in_turn = engine.answer(request, threading.Lock())
    on_device = engine.call_on_device(request).payload_PX
    assert np.array_equal(alone.payload.view(np.uint8), in_turn.payload.view(np.uint8))
    assert np.array_equal(as_array(on_device).view(np.uint8), alone.payload.view(np.uint8))
    assert alone.stats == in_turn.stats is not None


def test_rows_without_positions_in_their_own_forwards_change_nothing():
    engine = backend_of(llama(1), num_labels=NUM_TOKENS, is_language_model=True, max_batch_tokens=8)
    request = asked(DenseWire())
    assert request.targets_BT is not None
    whole = engine.answer(request).payload
    for without in ([0], [5], [2, 4, 5], range(6)):
        targets_BT = request.targets_BT.copy()
        targets_BT[list(without)] = False
        fewer = replace(request, targets_BT=targets_BT)
        kept = np.repeat(~np.isin(np.arange(6), list(without)), 7)
        for turn in (NO_TURN, threading.Lock()):
            assert np.array_equal(engine.answer(fewer, turn).payload, whole[kept])


class EncodedLate(DenseWire):
    """Encodes the last block once the turn is over."""

    turn_is_over: ClassVar[threading.Event] = threading.Event()

    def encode(self, payload_PX: Tensor, seeds_P: np.ndarray | None = None) -> Tensor:
        assert self.turn_is_over.wait(timeout=30), "encoding held the turn"
        return super().encode(payload_PX, seeds_P)


class Turn:
    """Sets the event at its end."""

    def __enter__(self) -> None:
        EncodedLate.turn_is_over.clear()

    def __exit__(self, *_: object) -> None:
        EncodedLate.turn_is_over.set()


def test_a_turn_ends_before_its_answer_is_encoded():
    engine = backend_of(lambda features: features * 2, num_labels=3)
    features_BD = np.ones((4, 3), np.float32)
    request = TeacherRequest("r", np.arange(4), features_BD=features_BD, wire=EncodedLate())
    assert np.array_equal(engine.answer(request, Turn()).payload, features_BD * 2)


def test_what_encoding_raises_is_raised():
    class Broken(DenseWire):
        def encode(self, payload_PX: Tensor, seeds_P: np.ndarray | None = None) -> Tensor:
            raise RuntimeError("no memory")

    engine = backend_of(lambda features: features, num_labels=3)
    request = TeacherRequest(
        "r", np.arange(2), features_BD=np.ones((2, 3), np.float32), wire=Broken()
    )
    for turn in (NO_TURN, threading.Lock()):
        with pytest.raises(RuntimeError, match="no memory"):
            engine.answer(request, turn)
