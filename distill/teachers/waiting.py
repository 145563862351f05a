"""What ranks do while a teacher is away: agree, write one checkpoint, wait, and continue.

A source of targets waits for the teachers by a :class:`Wait`. All ranks call it at the same places,
between two updates, so the state that is saved is that before the step; the weights do not depend
on the wait.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol, TypeVar

from distill.errors import Interrupted, TeacherAway

Result = TypeVar("Result")
Away = Callable[[], str | None]
"""A teacher that is away, and why; None without one. See TeacherClient.away."""
POLL_S = 0.2
"""Seconds between two looks at who is away, while nothing arrives."""
FILE = "waiting.json"
"""In a fit's folder, while it waits for a teacher."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outage:
    """What the driver shows of a teacher that is away."""

    reason: str
    """It names the teacher."""
    noticed: float
    """When, in seconds since 1970."""


def note_away(folder: Path, reason: str | None) -> None:
    """Keep in a fit's folder that it waits for a teacher, and why; None: it does not wait."""
    path = folder / FILE
    if reason is None:
        path.unlink(missing_ok=True)
        return
    logger.warning("%s; the fit waits for it", reason)
    partial = folder / f"waiting-{os.getpid()}.partial"  # several ranks may write one
    partial.write_text(json.dumps({"reason": reason, "noticed": time.time()}), "utf-8")
    os.replace(partial, path)


def outage(folder: Path) -> Outage | None:
    """What :func:`note_away` kept."""
    try:
        return Outage(**json.loads((folder / FILE).read_text("utf-8")))
    except FileNotFoundError:
        return None


class Wait(Protocol):
    """Waits for what the teachers send."""

    def __call__(self, future: Future[Result], away: Away) -> Result: ...


def until_done(future: Future[Result], away: Away) -> Result:
    """The :class:`Wait` of one process outside of the training loop; logs who is away."""
    is_logged = False
    while not future.done():
        wait([future], POLL_S)
        if not future.done() and not is_logged and (reason := away()) is not None:
            logger.warning("%s; waiting for it", reason)
            is_logged = True
    return future.result()


def in_thread(call: Callable[[], Result]) -> Future[Result]:
    """``call`` in a thread of its own, which does not keep the process from ending."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="teacher-call", daemon=True).start()
    return future


class Rank(Protocol):
    """What an engine knows of the other ranks."""

    world_size: int

    def agree(self, value: int) -> int:
        """The largest value of all ranks, on every rank."""
        ...


class State(IntEnum):
    """Of one rank; the ranks do what the largest of their states requires."""

    READY = 0
    """It has what it waits for, or an error that is its own."""
    AWAY = 1
    STOPPED = 2
    """The user requested a stop while a teacher was away."""
    GIVEN_UP = 3
    """A teacher was away for ``stream.recovery_s``."""


class Recovery:
    """The :class:`Wait` of the training loop; the same calls on every rank.

    ``save`` writes a checkpoint on all ranks; it is called once for each outage. ``announce`` is
    called with the client's reason on each rank whose teacher is away, and with None on all ranks
    once everyone continues. Raises TeacherAway, or Interrupted on the ranks that were not waiting,
    where a client gave up, and Interrupted after a requested stop; the checkpoint is written then.
    """

    def __init__(
        self,
        rank: Rank,
        save: Callable[[], None],
        announce: Callable[[str | None], None] = lambda reason: None,
        should_stop: Callable[[], bool] = lambda: False,
        poll_s: float = POLL_S,
    ) -> None:
        self._rank = rank
        self._save = save
        self._announce = announce
        self._is_asked_to_stop = should_stop
        self._poll_s = poll_s
        self._is_saved = False  # in this outage

    def __call__(self, future: Future[Result], away: Away) -> Result:
        self._is_saved = False
        reason = None
        while state := self._agreed(self._state(future, away)):
            if not self._is_saved:
                self._save()
                self._is_saved = True
            if state == State.GIVEN_UP:
                raise _given_up(future)
            if state == State.STOPPED:
                raise Interrupted("stopped while a teacher was away")
            if reason is None and (reason := away()) is not None:
                self._announce(reason)
        if self._is_saved:
            self._announce(None)
        return future.result()

    def _state(self, future: Future[Result], away: Away) -> State:
        """Blocks until this rank has its answer, or a teacher is away."""
        while True:
            if self._is_saved and self._is_asked_to_stop():
                return State.STOPPED
            if not future.done():
                wait([future], self._poll_s)
            if future.done():
                gave_up = isinstance(future.exception(), TeacherAway)
                return State.GIVEN_UP if gave_up else State.READY
            if away() is not None:
                return State.AWAY

    def _agreed(self, state: State) -> State:
        return state if self._rank.world_size == 1 else State(self._rank.agree(state))


def _given_up(future: Future[Result]) -> Interrupted:
    error = future.exception() if future.done() else None
    if isinstance(error, TeacherAway):
        return error
    return Interrupted("stopped: a teacher of another rank stayed away")
