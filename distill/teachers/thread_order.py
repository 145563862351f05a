"""Order among the threads of a stream."""

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, wait
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


class RequestOrder:
    """Steps send their requests in order: a teacher that answered step 5 before step 4 would
    keep the student waiting for time that it never makes up."""

    def __init__(self, first: int, cancelled: threading.Event) -> None:
        self._next = first
        self._changed = threading.Condition()
        self._cancelled = cancelled

    @contextmanager
    def of(self, step: int) -> Iterator[None]:
        with self._changed:
            while self._next != step:
                # Woken now and then: a step that failed before its turn never takes it.
                self._changed.wait(timeout=0.1)
                if self._cancelled.is_set():
                    raise CancelledError
        try:
            yield
        finally:
            with self._changed:
                self._next = step + 1
                self._changed.notify_all()


def all_results(futures: list[Future[Result]]) -> list[Result]:
    """Every result, or at once the exception of whichever failed."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in futures:
        if future in done:
            future.result()
    return [future.result() for future in futures]
