"""The contract of a backend: a new kind of request, and a new backend, are one class each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.config import Serving, Stream
from distill.errors import TeacherError
from distill.models.weights import weights_fingerprint
from distill.records import RequestFor, TeacherOutput
from distill.teachers import backends
from distill.teachers.actor import TeacherActor
from distill.teachers.backends import backend_class, open_backend, open_backends
from distill.teachers.backends.classifier_backend import ClassifierBackend, PredictProbaBackend
from distill.teachers.backends.contract import NO_TURN, TeacherBackend, Turn
from distill.teachers.batching import Batching
from distill.teachers.client import CacheOnlyClient
from distill.teachers.local import LocalTeachers
from distill.teachers.probability import file_fingerprint
from distill.teachers.queue import Queue
from distill.teachers.requests import HeadRequest, TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.teachers.transports import TRANSPORTS, Nixl, ObjectStore
from tests.toys_teachers import backend_of


@dataclass(frozen=True)
class SumRequest(RequestFor[float]):
    """A kind of request that distill does not have."""

    numbers: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"the sum of {len(self.numbers)} numbers"


class SumBackend(TeacherBackend):
    """A backend that distill does not have: it sums, and counts the turns that it took."""

    num_turns = 0

    @property
    def serves(self) -> dict[type[RequestFor[Any]], Any]:
        return {SumRequest: self.sum}

    def sum(self, request: SumRequest, turn: Turn = NO_TURN) -> float:
        with turn:
            self.num_turns += 1
            self.num_forwards += 1
            return sum(request.numbers)


@pytest.fixture
def summing(monkeypatch: pytest.MonkeyPatch) -> ServedTeacher:
    monkeypatch.setitem(backends.BACKENDS, "sum", f"{__name__}:SumBackend")
    return ServedTeacher("s", "", Serving(), backend="sum")


def test_a_new_backend_and_request_pass_through_client_and_replica(summing: ServedTeacher) -> None:
    request = SumRequest((1.0, 2.5))
    opened = open_backends([summing])
    local = LocalTeachers(opened)
    assert local.call("s", request) == 3.5
    assert local.stats() == {"teacher.s.requests": 1.0, "teacher.s.retries": 0.0}
    actor = TeacherActor([summing], ObjectStore())
    actor._queue = Queue()  # outside of Ray no request is cancelled
    assert actor.call("s", request) == 3.5
    assert actor.status().num_finished == 2  # the request, and its forward
    backend: Any = actor._backends["s"]
    assert backend.num_turns == 1
    assert backend_class("sum").positions == "rows"


def test_a_batched_replica_computes_other_requests_alone() -> None:
    class Summing(ClassifierBackend, SumBackend):
        @property
        def serves(self) -> dict[type[RequestFor[Any]], Any]:
            return {**super().serves, SumRequest: self.sum}

    teacher = ServedTeacher("s", "", Serving(), 2, model=lambda features: features)
    assert Batching(Summing(teacher)).call(SumRequest((1.0, 1.0)), NO_TURN) == 2.0


def test_a_request_that_is_not_served_is_named_with_what_is() -> None:
    backend = backend_of(lambda features: features, num_labels=2)
    with pytest.raises(TeacherError, match=r"teacher 't' cannot answer a request for its output l"):
        backend.call(HeadRequest())
    with pytest.raises(TeacherError, match="ClassifierBackend serves TeacherRequest, not HeadReq"):
        backend.call(HeadRequest())


def test_a_client_of_the_cache_alone_has_the_message_of_each_request() -> None:
    cache_only = CacheOnlyClient(("s",))
    with pytest.raises(TeacherError, match="queried for new text, but it is no longer served"):
        cache_only.call("s", SumRequest((1.0,)))
    with pytest.raises(TeacherError, match="the cache lacks the output layer of teacher 's'"):
        cache_only.call("s", HeadRequest())
    request = TeacherRequest("r", np.array([7, 8]))
    with pytest.raises(TeacherError, match=r"lacks 2 outputs of teacher 's' \(row 7 first\)"):
        cache_only.call("s", request)


class Forest:
    classes_ = (0, 1)

    def predict_proba(self, rows_BD: np.ndarray) -> np.ndarray:
        return np.full((len(rows_BD), 2), 0.5)


def test_what_a_classifier_is_decides_its_class() -> None:
    forest: Any = Forest()
    given = ServedTeacher("t", "", Serving(), 2, model=forest)
    assert type(open_backend(given)) is PredictProbaBackend
    callable_ = replace(given, model=lambda features: features)
    assert type(open_backend(callable_)) is ClassifierBackend


def test_fingerprints_are_those_of_the_files(tmp_path: Path) -> None:
    pickle = tmp_path / "forest.pkl"
    pickle.write_bytes(b"forest")
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text(name)
    classifiers = backend_class("classifier")
    found = classifiers.fingerprint(ServedTeacher("t", str(pickle), Serving()))
    assert found == file_fingerprint(pickle)
    folder = str(tmp_path / "model")
    for backend in ("classifier", "language_model"):
        teacher = ServedTeacher("t", folder, Serving(), backend=backend)
        assert backend_class(backend).fingerprint(teacher) == weights_fingerprint(folder)
        assert backend_class(backend).fingerprint(teacher, lambda path: "known") == "known"


def test_positions_are_rows_or_tokens() -> None:
    assert ServedTeacher("t", "", Serving()).positions == "rows"
    assert ServedTeacher("t", "", Serving(), backend="language_model").positions == "tokens"


class Actor:
    """Notes which of its methods is called, and with which tensor transport."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.call = self

    def remote(self, *arguments: Any) -> str:
        self.calls.append(arguments)
        return "reference"


def test_transports_are_the_values_of_the_key() -> None:
    assert {name: type(one) for name, one in TRANSPORTS.items()} == {
        "object_store": ObjectStore,
        "nixl": Nixl,
    }
    assert Stream(transport="nixl").transport in TRANSPORTS
    assert Nixl.actor_options["max_concurrency"] == 1 and not Nixl.joins_requests
    for transport in TRANSPORTS.values():
        actor = Actor()
        assert transport.send(actor, "t", HeadRequest(), "claim") == "reference"
        assert actor.calls == [("t", HeadRequest(), "claim")]


def test_an_answer_of_another_request_is_refused() -> None:
    request = TeacherRequest("r", np.array([0]))
    output = TeacherOutput("q", np.array([0]), np.zeros((1, 2), np.float32), "dense/float32")
    with pytest.raises(TeacherError, match="the output for request r belongs to request q"):
        request.check(output, 2)
