"""The requests at one replica."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from distill.teachers.queue import CLAIM_S, NEWEST, Queue


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_are_computed_one_at_a_time_in_order_of_arrival_and_counted():
    queue, order = Queue(), []
    released, inside = threading.Event(), []

    def work(name: int) -> None:
        with queue.turn():
            inside.append(name)
            released.wait()
            assert inside == [name]
            inside.remove(name)
            order.append(name)

    with ThreadPoolExecutor(8) as threads:
        for name in range(8):
            threads.submit(work, name)
            while queue.status(0).num_held <= name:  # it has arrived
                pass
        assert queue.status(100)[1:3] == (8, 100)
        released.set()
    assert order == list(range(8))
    assert queue.status(100)[1:3] == (0, 108)


def test_a_request_that_was_cancelled_while_it_waited_is_not_computed_and_the_next_one_is():
    this = threading.local()

    def check() -> None:
        if this.is_cancelled:
            raise CancelledError

    queue = Queue(check)

    def work(cancelled: bool) -> str:
        this.is_cancelled = cancelled
        with queue.turn():
            return "computed"

    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(CancelledError):
            threads.submit(work, True).result()
        assert threads.submit(work, False).result() == "computed"
    assert queue.status(0).num_held == 0


def test_a_request_that_fails_lets_the_next_one_in():
    queue = Queue()
    with pytest.raises(ZeroDivisionError), queue.turn():
        _ = 1 / 0
    with queue.turn():
        assert queue.status(0)[1:3] == (1, 1)


def test_a_claim_counts_until_its_request_arrives():
    queue = Queue()
    assert queue.claim("a", 0, 7)[1:3] == (0, 7)
    assert queue.status(0).num_held == 1
    with queue.turn("a"):
        assert queue.status(0).num_held == 1
    assert queue.status(0).num_held == 0


def test_a_claim_is_refused_where_more_are_held_than_its_client_knew():
    queue = Queue()
    assert [queue.claim(name, 1, 0).num_held for name in "abc"] == [0, 1, 2]
    assert queue.status(0).num_held == 2
    queue.drop("a")
    queue.drop("")  # of a request without a claim
    assert queue.status(0).num_held == 1


def test_the_claim_of_a_killed_client_expires():
    clock = Clock()
    queue = Queue(clock=clock)
    queue.claim("a", 0, 0)
    clock.now = CLAIM_S - 1
    assert queue.status(0).num_held == 1
    clock.now = CLAIM_S
    assert queue.status(0).num_held == 0


def test_the_seconds_of_requests_are_a_moving_mean_of_those_that_were_computed():
    clock = Clock()
    queue = Queue(clock=clock)
    assert queue.status(0).request_s is None
    for seconds in (4.0, 9.0):
        with queue.turn():
            clock.now += seconds
    with pytest.raises(ZeroDivisionError), queue.turn():
        clock.now += 1000
        _ = 1 / 0
    assert queue.status(0).request_s == pytest.approx(4 + NEWEST * 5)


def test_another_process_is_another_incarnation():
    assert Queue().status(5).progress != Queue().status(5).progress
    queue = Queue()
    assert queue.status(5).progress == queue.status(5).progress != queue.status(6).progress
