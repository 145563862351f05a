"""Requests at one replica, those of all ranks: in order of arrival, counted, one at a time (or
two, see :class:`Queue`)."""

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

CLAIM_S = 60.0
"""Seconds that a claim counts if its request does not arrive: its client may have been killed."""
NEWEST = 0.2
"""Weight of the newest request in the mean of their seconds."""


class Status(NamedTuple):
    """What a replica reports of itself."""

    incarnation: str
    """Of the process; a restarted replica has another one, and counts from 0."""
    num_held: int
    """Requests of all ranks: running, waiting, and claimed (about to arrive)."""
    num_finished: int
    """Forwards and requests; increases while the replica makes progress."""
    request_s: float | None
    """Mean seconds of a request, of the newest; None: there was none."""

    @property
    def progress(self) -> tuple[str, int]:
        """Differs from an earlier one if the replica has finished something, or is another."""
        return self.incarnation, self.num_finished


class Queue:
    """Thread-safe. A request takes its turn in the order of arrival."""

    def __init__(
        self,
        check: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        at_once: int = 1,
    ) -> None:
        """``check``: raises if the request of the calling thread has been cancelled. ``at_once``:
        requests that have their turn at the same time."""
        self._check = check
        self._at_once = at_once
        self._clock = clock
        self._lock = threading.Lock()
        self._incarnation = uuid.uuid4().hex
        self._turns: deque[threading.Event] = deque()  # the first ``at_once`` are running
        self._claims: dict[str, float] = {}  # name to the time at which it expires
        self._num_finished = 0
        self._request_s: float | None = None

    @contextmanager
    def turn(self, claim: str = "") -> Iterator[None]:
        """Wait for the requests that arrived before; raises what ``check`` does."""
        turn = threading.Event()
        with self._lock:
            self._claims.pop(claim, None)
            self._turns.append(turn)
            if len(self._turns) <= self._at_once:
                turn.set()
        turn.wait()
        try:
            self._check()
            started = self._clock()
            yield
            self._took(self._clock() - started)
        finally:
            with self._lock:
                self._turns.remove(turn)
                self._num_finished += 1
                if len(self._turns) >= self._at_once:
                    self._turns[self._at_once - 1].set()

    def claim(self, name: str, most: int, num_forwards: int) -> Status:
        """Count a request that is about to arrive, unless more than ``most`` are held. Returns the
        status before."""
        with self._lock:
            before = self._status(num_forwards)
            if before.num_held <= most:
                self._claims[name] = self._clock() + CLAIM_S
            return before

    def drop(self, claim: str) -> None:
        """Of a request that takes no turn."""
        with self._lock:
            self._claims.pop(claim, None)

    def status(self, num_forwards: int) -> Status:
        with self._lock:
            return self._status(num_forwards)

    def _status(self, num_forwards: int) -> Status:
        now = self._clock()
        self._claims = {name: until for name, until in self._claims.items() if until > now}
        num_held = len(self._turns) + len(self._claims)
        num_finished = num_forwards + self._num_finished
        return Status(self._incarnation, num_held, num_finished, self._request_s)

    def _took(self, seconds: float) -> None:
        with self._lock:
            known_s = seconds if self._request_s is None else self._request_s
            self._request_s = known_s + NEWEST * (seconds - known_s)
