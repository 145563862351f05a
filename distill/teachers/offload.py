"""Models of idle teachers leave the GPU (``offload_idle_s``) until their next request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

from distill.errors import TeacherError
from distill.teachers.backends.contract import TeacherBackend

logger = logging.getLogger(__name__)


class Offload:
    """Of the backends of one process. Thread-safe: a request that arrives while the models move
    waits, and they do not move while any request is computed."""

    def __init__(
        self,
        who: str,
        backends: Iterable[TeacherBackend] = (),
        idle_s: float | None = None,
        timer: Callable[[float, Callable[[], None]], threading.Timer] = threading.Timer,
    ) -> None:
        """``who``: for messages. ``idle_s``: seconds without a request; None: never."""
        self._who = who
        self._backends = tuple(backends)
        self._idle_s = idle_s
        self._new_timer = timer
        self._lock = threading.Lock()
        self._num_users = 0
        self._is_offloaded = False
        self._timer: threading.Timer | None = None
        self._start_timer()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The models are on their device within. Raises TeacherError if they no longer fit."""
        if self._idle_s is None:
            yield
            return
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._is_offloaded:
                self._restore()
            self._num_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_users -= 1
                if self._num_users == 0:
                    self._start_timer()

    def _start_timer(self) -> None:
        if self._idle_s is not None:
            self._timer = self._new_timer(self._idle_s, self._offload)
            self._timer.daemon = True
            self._timer.start()

    def _offload(self) -> None:
        with self._lock:
            if self._num_users or self._is_offloaded:  # a request came as the timer ended
                return
            self._move_to_host()
            # A warning: a process of Ray shows no other level.
            logger.warning("%s: idle for %g s, moved to host memory", self._who, self._idle_s)

    def _move_to_host(self) -> None:
        for backend in self._backends:
            backend.offload()
        self._is_offloaded = True

    def _restore(self) -> None:
        try:
            for backend in self._backends:
                backend.restore()
        except torch.OutOfMemoryError as error:
            self._move_to_host()  # what had returned would be missing to the student
            raise TeacherError(
                f"{self._who}: its model was moved to host memory (offload_idle_s: "
                f"{self._idle_s:g}) and no longer fits on its GPU: set offload_idle_s: null, or "
                f"lower the memory of the student on that GPU ({error})"
            ) from None
        self._is_offloaded = False
        logger.warning("%s: moved back to the GPU", self._who)
