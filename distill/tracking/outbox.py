"""Records for a store that may fail: none is lost, and none stops the training."""

import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.tracking.store import is_refusal, reason_of

Record = dict[str, Any]
logger = logging.getLogger(__name__)


class Outbox:
    """Sends records in order; while the store fails they wait in memory and in a JSONL file.

    A record that the store *refuses* (it would refuse it again) stays in the file and does not
    delay the others. What an earlier process left in the file is sent first.
    """

    def __init__(self, path: Path, send: Callable[[Record], Any], retry_s: float) -> None:
        self.path = path
        self.retry_s = retry_s
        self._send = send
        self._waiting = _read(path)
        self._refused: list[Record] = []
        self._next_try = 0.0
        self._has_warned: set[str] = set()

    @property
    def num_kept(self) -> int:
        return len(self._waiting) + len(self._refused)

    def post(self, record: Record) -> Any:
        """The result of sending, or None for a record that had to be kept."""
        if self._waiting and time.monotonic() >= self._next_try:
            self.flush()
        if self._waiting or time.monotonic() < self._next_try:
            return self._keep(self._waiting, record)
        try:
            return self._send(record)
        except Exception as error:
            self._warn(error)
            return self._keep(self._refused if is_refusal(error) else self._fail(), record)

    def hold(self) -> None:
        """The store does not respond: keep the records of the next ``retry_s``."""
        self._fail()

    def flush(self) -> None:
        """Send what waits, oldest first, until the store fails again."""
        if not self._waiting:
            return
        num_sent = 0
        while self._waiting:
            try:
                self._send(self._waiting[0])
                num_sent += 1
            except Exception as error:
                self._warn(error)
                if not is_refusal(error):
                    self._fail()
                    break
                self._refused.append(self._waiting[0])
            self._waiting.pop(0)
        else:
            self._next_try = 0.0
        self._rewrite()
        if num_sent:
            logger.info("MLflow is reachable again: %d kept records were sent", num_sent)

    def _fail(self) -> list[Record]:
        self._next_try = time.monotonic() + self.retry_s
        return self._waiting

    def _keep(self, kept: list[Record], record: Record) -> None:
        kept.append(record)
        # A full disk must not end the training either: the record is still in memory.
        with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _rewrite(self) -> None:
        with contextlib.suppress(OSError):
            if not self.num_kept:
                self.path.unlink(missing_ok=True)
                return
            lines = [json.dumps(record) + "\n" for record in self._refused + self._waiting]
            self.path.write_text("".join(lines), encoding="utf-8")

    def _warn(self, error: Exception) -> None:
        what = "refused a record" if is_refusal(error) else "could not be written to"
        if what not in self._has_warned:
            self._has_warned.add(what)
            logger.warning(
                "MLflow %s (%s). Training continues; unsent records are kept in %s",
                what,
                reason_of(error),
                self.path,
            )


def _read(path: Path) -> list[Record]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed process
            records.append(json.loads(line))
    return [r for r in records if r["kind"] != "end"]  # a run that is resumed has not ended
