"""Ctrl-C, once: stop at the next checkpoint. Twice: at once."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from distill.errors import Interrupted


class StopOnSignal:
    """A context in which the first SIGINT or SIGTERM runs ``on_stop`` and raises nothing.

    Long work reads ``is_set`` between steps; phases call :meth:`check`. The second signal raises
    KeyboardInterrupt. Outside the main thread signals cannot be caught: then it never fires.
    ``announce`` prints that the signal was received; it runs in a thread.
    """

    def __init__(
        self, on_stop: Callable[[], None], announce: Callable[[], None] = lambda: None
    ) -> None:
        self._on_stop = on_stop
        self._announce = announce
        self._is_set = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def is_set(self) -> bool:
        return self._is_set

    def check(self) -> None:
        """Between phases: raise Interrupted after a signal."""
        if self._is_set:
            raise Interrupted("stopped between two phases")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_set:
            raise KeyboardInterrupt
        self._is_set = True
        self._on_stop()
        # The signal may have come in the midst of printing: not from in here.
        _thread.start_new_thread(self._announce, ())
