"""Models of idle teachers in host memory. ``cpu:0`` is the device of the toys, ``cpu`` the host."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from distill.config import Serving, parse
from distill.errors import ConfigError, TeacherError
from distill.run_folder import OPERATIONAL_SERVING
from distill.tasks.classification.inputs import check_teachers
from distill.teachers.actor import TeacherActor
from distill.teachers.backends.contract import NO_TURN, TeacherBackend
from distill.teachers.offload import Offload
from distill.teachers.queue import Queue
from distill.teachers.requests import HeadRequest, TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.teachers.transports import ObjectStore
from distill.wires import HiddenWire
from tests.sampling.test_key_value_caches import round_of
from tests.toys_language import NUM_TOKENS, llama
from tests.toys_teachers import backend_of

HOST, DEVICE = torch.device("cpu"), torch.device("cpu:0")


class Moves:
    """Of a toy's model; its weights get new memory with each move, as between devices."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.on_move: Callable[[torch.device], None] = lambda device: None
        self.has_left = threading.Event()  # the second move: the first one is the load

    def move(self, model: nn.Module, device: torch.device) -> None:
        self.on_move(device)
        for weight in model.parameters():
            weight.data = weight.data.clone()
        self.events.append(device)
        if len(self.events) > 1:
            self.has_left.set()

    def check(self, *_: Any) -> None:
        self.events.append("forward")

    @property
    def is_away(self) -> bool:
        return [event for event in self.events if event != "forward"][-1] == HOST


class MovingLlama(LlamaForCausalLM):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.moves = Moves()
        self.model.register_forward_pre_hook(self.moves.check)

    def to(self, device: torch.device) -> MovingLlama:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.moves.move(self, device)
        return self


class MovingLinear(nn.Linear):
    """A classifier of three features."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            super().__init__(3, 2)
        self.moves = Moves()

    def to(self, device: torch.device) -> MovingLinear:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.moves.move(self, device)
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.moves.check()
        return super().forward(features)


class ManualTimer:
    """Ends when the test calls ``end``."""

    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        self.seconds, self.end = seconds, function
        self.daemon = False
        self.is_running = False

    def start(self) -> None:
        assert self.daemon, "it would keep the process alive"
        self.is_running = True

    def cancel(self) -> None:
        self.is_running = False


class Timers:
    def __init__(self) -> None:
        self.all: list[ManualTimer] = []

    def __call__(self, seconds: float, function: Callable[[], None]) -> Any:
        self.all.append(ManualTimer(seconds, function))
        return self.all[-1]

    @property
    def running(self) -> list[ManualTimer]:
        return [timer for timer in self.all if timer.is_running]


def moving_llama() -> MovingLlama:
    model = MovingLlama(llama(3).config)
    model.load_state_dict(llama(3).state_dict())
    return model


def engine_of(model: nn.Module, device: str = "cpu:0") -> Any:
    is_language_model = isinstance(model, LlamaForCausalLM)
    return backend_of(
        model,
        num_labels=NUM_TOKENS if is_language_model else 2,
        device=device,
        is_language_model=is_language_model,
        wire=HiddenWire(dtype="float32") if is_language_model else None,
    )


def request_of(model: nn.Module) -> TeacherRequest:
    rows_B = np.arange(4)
    if isinstance(model, MovingLinear):
        return TeacherRequest("r", rows_B, features_BD=np.eye(4, 3, dtype=np.float32))
    ids_BT = np.random.default_rng(0).integers(2, NUM_TOKENS, (4, 6))
    places_BT = np.broadcast_to(np.arange(6), ids_BT.shape).copy()
    return TeacherRequest(
        "r", rows_B, input_ids_BT=ids_BT, position_ids_BT=places_BT, targets_BT=places_BT < 5
    )


@pytest.mark.parametrize("make", [moving_llama, MovingLinear])
def test_an_idle_model_leaves_its_device_and_returns_before_the_next_request(make):
    model, timers = make(), Timers()
    engine, request = engine_of(model), request_of(model)
    offload = Offload("teacher 'a'", [engine], 30, timers)
    with offload.in_use():
        before = engine.answer(request)
    timers.running[0].end()
    assert model.moves.is_away
    after = engine.answer(request, offload.in_use())
    assert np.array_equal(before.payload, after.payload)
    assert model.moves.events[-4:] == ["forward", HOST, DEVICE, "forward"]


def test_the_time_counts_from_the_end_of_the_last_request():
    model, timers = MovingLinear(), Timers()
    offload = Offload("teacher 'a'", [engine_of(model)], 30, timers)
    loaded = timers.running
    assert [timer.seconds for timer in loaded] == [30]  # a teacher that is never queried, too
    with offload.in_use():
        assert timers.running == []
        with offload.in_use():
            pass
        assert timers.running == []  # the other request is still computed
        loaded[0].end()  # it had ended before it could be cancelled
        assert not model.moves.is_away
    assert [timer.seconds for timer in timers.running] == [30]
    timers.running[0].end()
    assert model.moves.is_away


def test_without_the_setting_nothing_moves():
    timers = Timers()
    with Offload("teacher 'a'", [engine_of(MovingLinear())], None, timers).in_use():
        pass
    assert timers.all == []


def test_two_requests_that_arrive_while_the_model_moves_wait_and_are_answered():
    model, timers = moving_llama(), Timers()
    engine, request = engine_of(model), request_of(model)
    expected = engine.answer(request).payload
    offload = Offload("teacher 'a'", [engine], 30, timers)
    queue, is_moving, may_move = Queue(at_once=2), threading.Event(), threading.Event()

    def on_move(device: torch.device) -> None:
        if device == HOST:
            is_moving.set()
            assert may_move.wait(30)

    def answer(_: int) -> np.ndarray:
        with queue.turn():
            return engine.answer(request, offload.in_use()).payload

    model.moves.on_move = on_move
    model.moves.events.clear()
    with ThreadPoolExecutor(3) as threads:
        moved = threads.submit(timers.running[0].end)
        assert is_moving.wait(30)
        answers = [threads.submit(answer, number) for number in range(2)]
        while queue.status(0).num_held < 2:
            pass
        assert model.moves.events == []
        may_move.set()
        moved.result(30)
        for found in answers:
            assert np.array_equal(found.result(30), expected)
    assert model.moves.events == [HOST, DEVICE, "forward", "forward"]


def test_weights_that_returned_during_a_request_can_have_gradients():
    """A backend enters the turn in inference mode; gates need a gradient later."""
    model, timers = moving_llama(), Timers()
    offload = Offload("teacher 'a'", [engine_of(model)], 30, timers)
    timers.running[0].end()
    with torch.inference_mode(), offload.in_use():
        assert model.moves.events[-1] == DEVICE
    assert not any(weight.is_inference() for weight in model.parameters())


def test_key_value_caches_are_dropped_and_verdicts_stay_the_same():
    kept, moved = engine_of(moving_llama()), engine_of(moving_llama())
    for past in range(3):
        if past == 2:
            moved.offload()
            moved.restore()
        one, other = (engine.verify(round_of("w", past)) for engine in (kept, moved))
        assert np.array_equal(one.num_kept_b, other.num_kept_b)
        assert np.array_equal(one.replacement_b, other.replacement_b)
        assert (one.num_replayed, other.num_replayed) == (0, 2 if past == 2 else 0)


def test_a_model_that_no_longer_fits_names_the_setting_and_returns_when_it_fits_again():
    model, timers = MovingLinear(), Timers()
    engine = engine_of(model)
    offload = Offload("teacher 'a'", [engine], 30, timers)
    timers.running[0].end()
    is_full = True

    def on_move(device: torch.device) -> None:
        if is_full and device == DEVICE:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.moves.on_move = on_move
    with pytest.raises(TeacherError, match=r"teacher 'a'.*offload_idle_s: 30.*out of memory"):
        offload.in_use().__enter__()
    assert model.moves.is_away
    is_full = False
    engine.answer(request_of(model), offload.in_use())
    assert model.moves.events[-2:] == [DEVICE, "forward"]


def served(model: Any, serving: Serving) -> ServedTeacher:
    return ServedTeacher("a", "", serving, NUM_TOKENS, backend="language_model", model=model)


@pytest.mark.parametrize("is_batched", [True, False])
def test_a_replica_moves_its_model_by_itself_and_answers_as_before(is_batched):
    model = moving_llama()
    # As if the CPU were a GPU: the check of the configuration is left out.
    serving = Serving().model_copy(update={"offload_idle_s": 0.01, "batch_requests": is_batched})
    actor = TeacherActor([served(model, serving)], ObjectStore())
    actor._queue = Queue()  # outside of Ray no request is cancelled
    assert model.moves.has_left.wait(30)
    found = actor.call("a", request_of(model))
    expected = backend_of(llama(3), num_labels=NUM_TOKENS, is_language_model=True)
    assert np.array_equal(found.payload, expected.answer(request_of(model)).payload)
    loaded = model.moves.events.index(HOST, 1)  # after forwards that inspect the model
    assert model.moves.events[loaded : loaded + 3] == [HOST, HOST, "forward"]


class Noting(TeacherBackend):
    """Notes for each request whether the model is away."""

    def __init__(self, model: MovingLlama) -> None:
        self.model = model
        self.were_away: list[bool] = []

    def call(self, request: Any, turn: Any = NO_TURN) -> Any:
        with turn:
            self.were_away.append(self.model.moves.is_away)

    call_on_device = call


KINDS = [("call", True), ("call", False), ("call_on_device", True)]


@pytest.mark.parametrize(("method", "takes_turn"), KINDS)
def test_requests_of_every_kind_have_the_model_on_its_device(method, takes_turn):
    model, timers = moving_llama(), Timers()
    actor = TeacherActor([served(model, Serving())], ObjectStore())
    actor._queue = Queue()
    actor._offload = Offload("teacher 'a'", [engine_of(model)], 30, timers)
    backend = Noting(model)
    actor._backends = {"a": backend}
    timers.running[0].end()
    getattr(actor, method)("a", request_of(model) if takes_turn else HeadRequest())
    assert backend.were_away == [False]


def test_the_setting_needs_a_gpu_and_may_change_on_resume():
    assert Serving().offload_idle_s is None
    assert Serving(num_gpus=0.5, offload_idle_s=60).process["offload_idle_s"] == 60
    assert "offload_idle_s" in OPERATIONAL_SERVING
    with pytest.raises(ValidationError, match=r"offload_idle_s: 60 .* num_gpus is 0: set num_gpus"):
        Serving(offload_idle_s=60)
    with pytest.raises(ValidationError):
        Serving(num_gpus=1, offload_idle_s=0)


def test_an_object_with_predict_proba_has_nothing_to_move():
    teacher = {"name": "a", "path": "x.pkl", "allow_pickle": True}
    teacher |= {"num_gpus": 1, "offload_idle_s": 60}
    experiment = parse({"data": {"path": "x"}, "output": "out", "teachers": [teacher]})
    nothing: Any = None  # neither rows nor the pickle are read for it
    with pytest.raises(ConfigError, match=r"teachers\.a\.offload_idle_s: .*predict_proba"):
        check_teachers(experiment, nothing, {"a": nothing})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_memory_of_a_gpu_is_freed_and_answers_are_equal():
    model = llama(3, hidden_size=512, intermediate_size=1024)
    engine, timers = engine_of(model, "cuda"), Timers()
    request = request_of(model)
    offload = Offload("teacher 'a'", [engine], 30, timers)
    before = engine.answer(request, offload.in_use()).payload
    num_bytes = sum(weight.nbytes for weight in model.parameters())
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    timers.running[0].end()
    assert torch.cuda.memory_allocated() <= allocated - num_bytes
    assert torch.cuda.memory_reserved() < reserved
    assert np.array_equal(engine.answer(request, offload.in_use()).payload, before)
    assert torch.cuda.memory_allocated() >= num_bytes
