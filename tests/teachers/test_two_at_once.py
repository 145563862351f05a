"""Two requests at one replica at once: which teachers can, in which order, with equal answers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from distill.config import parse
from distill.driver.serve import _requests_at_once
from distill.teachers.queue import Queue
from distill.teachers.requests import TeacherRequest
from distill.wires import HiddenWire
from tests.toys_language import NUM_TOKENS, language_experiment, llama
from tests.toys_teachers import backend_of


def engine_of(**changes) -> Any:
    return backend_of(
        llama(3, **changes),
        num_labels=NUM_TOKENS,
        is_language_model=True,
        wire=HiddenWire(dtype="float32"),
    )


def request_of(number: int, length: int) -> TeacherRequest:
    rng = np.random.default_rng(number)
    ids_BT = rng.integers(2, NUM_TOKENS, (4, length))
    positions_BT = np.broadcast_to(np.arange(length), ids_BT.shape).copy()
    return TeacherRequest(
        f"r{number}",
        np.arange(4) + 10 * number,
        input_ids_BT=ids_BT,
        position_ids_BT=positions_BT,
        targets_BT=positions_BT < length - 1,
    )


def test_answers_of_two_threads_are_those_of_one():
    """Payloads, and the statistics of each request's own positions."""
    engine = engine_of()
    requests = [request_of(n, 4 + n) for n in range(8)]
    alone = [engine.answer(request) for request in requests]
    queue, barrier = Queue(at_once=2), threading.Barrier(2)

    def answer(request: TeacherRequest):
        barrier.wait()
        return engine.answer(request, queue.turn())

    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(answer, requests))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.payload, other.payload)
        assert one.stats == other.stats


def test_two_requests_have_their_turn_at_once_and_the_others_wait_in_order():
    queue, started = Queue(at_once=2), []
    ends = [threading.Event() for _ in range(4)]
    begun = [threading.Event() for _ in range(4)]

    def work(name: int) -> None:
        with queue.turn():
            started.append(name)
            begun[name].set()
            ends[name].wait()

    with ThreadPoolExecutor(4) as threads:
        for name in range(4):
            threads.submit(work, name)
            while queue.status(0).num_held <= name:  # it has arrived
                pass
        begun[0].wait()
        begun[1].wait()
        assert sorted(started) == [0, 1]
        ends[1].set()  # the later of the two ends first
        begun[2].wait()
        assert started[2:] == [2] and not begun[3].is_set()
        ends[0].set()
        begun[3].wait()
        ends[2].set()
        ends[3].set()
    assert queue.status(0)[1:3] == (0, 4)


def test_models_whose_forward_keeps_something_take_one_request_at_a_time():
    assert engine_of().is_reentrant
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert not engine_of(rope_parameters=scaled).is_reentrant
    assert not backend_of(torch.nn.Identity(), num_labels=2).is_reentrant


@pytest.mark.parametrize("rope_type", ["default", "dynamic"])
def test_a_model_with_rotary_embeddings_of_each_type_of_layer(rope_type: str):
    """As of Gemma 3, whose ``rope_type`` is a dictionary."""
    local = {"rope_type": "default", "rope_theta": 10000.0}
    config = Gemma3TextConfig(
        vocab_size=NUM_TOKENS,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "sliding_attention": local,
            "full_attention": local | {"rope_type": rope_type, "factor": 2.0},
        },
    )
    engine = backend_of(Gemma3ForCausalLM(config), num_labels=NUM_TOKENS, is_language_model=True)
    assert engine.is_reentrant is (rope_type == "default")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 2),
        ({"cluster": {"address": "head:6379"}}, 1),  # others use the CPUs that are not reserved
        ({"sampling": {"type": "on_policy"}}, 1),
    ],
)
def test_two_on_this_machine_alone_and_never_where_replicas_also_generate(
    tmp_path, changes, expected
):
    assert _requests_at_once(parse(language_experiment(tmp_path, **changes))) == expected
