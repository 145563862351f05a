"""What one client knows of the replicas of a teacher: which are up, which to choose, and when a
request must be sent again. No Ray here: the client hands in what it hears, and the time.

A healthy replica with a long queue is left alone: a replica is suspected only when it does not
respond to a status request for ``deadline_s``, or when its counter of finished forwards has not
moved for as long although a request waits at it. All times are of one clock, in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from distill.teachers.queue import Status
from distill.wording import counted

POLLS = 4
"""Status requests a deadline; the first after a request has waited so long."""
RETURN_S = 1.0
"""Seconds between status requests to a replica that is not up."""
PATIENCE_S = 0.5
"""Seconds that a choice among replicas waits for their status."""
NO_LIMIT = 1 << 30


@dataclass
class ReplicaHealth:
    """One replica. ``fault`` is why it is not up, ``death`` why it will not come back."""

    deadline_s: float
    in_flight: int = 0  # of this client alone
    status: Status | None = None
    heard_at: float = -math.inf  # when the status came
    moved_at: float = -math.inf  # when it last made progress, as far as is known
    polled_at: float | None = None  # since when a status request is outstanding
    last_poll_at: float = -math.inf
    fault: str | None = None
    fault_at: float = math.inf  # since when it is not up
    is_lost: bool = False  # Ray reported the fault; otherwise it is a suspicion
    is_stuck: bool = False  # it responds, but its counter does not move
    death: str | None = None

    @property
    def is_up(self) -> bool:
        return self.fault is None and self.death is None

    def should_poll(self, now: float, sent_at: float) -> bool:
        """Whether a status request is due, for a request that was sent at ``sent_at``."""
        if self.polled_at is not None or self.death is not None:
            return False
        interval_s = self.deadline_s / POLLS
        if self.fault is not None:
            return now - self.last_poll_at >= min(RETURN_S, interval_s)
        ends_at = self._counts_from(sent_at) + self.deadline_s
        is_ending = self.heard_at < ends_at <= now
        return now - sent_at >= interval_s and (now - self.heard_at >= interval_s or is_ending)

    def polled(self, now: float) -> None:
        self.polled_at = self.last_poll_at = now

    def poll_ended(self) -> None:
        """With a status or an error, which :meth:`heard`, :meth:`lost` or :meth:`died` is given."""
        self.polled_at = None

    def heard(self, status: Status, now: float) -> None:
        """A status has come. The replica is up again, unless it still computes the forward that
        it was suspected for."""
        if self.status is None or status.progress != self.status.progress:
            self.moved_at, self.is_stuck = now, False
        if not self.is_stuck or status.num_held == 0:
            self._recovered()
        self.status, self.heard_at = status, now

    def answered(self, now: float) -> None:
        """A response to a request has come: a suspicion was wrong, or is past."""
        self.moved_at = now
        if not self.is_lost:
            self._recovered()

    def lost(self, fault: str, now: float) -> None:
        """Ray reports so. A status request from before does not count: its process may be gone."""
        self.fault, self.fault_at = fault, min(now, self.fault_at)
        self.is_lost, self.is_stuck = True, False
        self.polled_at, self.last_poll_at = None, -math.inf

    def died(self, why: str, now: float) -> None:
        self.death, self.fault_at, self.polled_at = why, min(now, self.fault_at), None

    def overdue(self, now: float, sent_at: float) -> str | None:
        """Why a request that was sent at ``sent_at``, and has no response yet, should be sent
        again. After this the replica is up only if its request, or response, was lost on the
        way."""
        if self.fault is not None:
            return self.fault
        if self.polled_at is not None and now - self.polled_at >= self.deadline_s:
            return self._suspected(
                f"no response to a status request for {self.deadline_s:g} s", self.polled_at
            )
        since = self._counts_from(sent_at)
        if self.status is None or self.heard_at - since < self.deadline_s:
            return None
        if self.status.num_held == 0:
            return f"it holds no request, and no response came within {self.deadline_s:g} s"
        self.is_stuck = True
        held = counted(self.status.num_held, "request")
        return self._suspected(
            f"it holds {held}, and finished no forward for {self.deadline_s:g} s", since
        )

    def _counts_from(self, sent_at: float) -> float:
        return max(self.moved_at, sent_at)

    def _suspected(self, fault: str, since: float) -> str:
        self.fault, self.fault_at = fault, since
        return fault

    def _recovered(self) -> None:
        self.fault, self.fault_at, self.is_lost, self.is_stuck = None, math.inf, False, False


class ReplicaGroup:
    """The replicas of one teacher, or of teachers that share them. Not thread-safe."""

    def __init__(self, num_replicas: int, deadline_s: float, recovery_s: float, rank: int) -> None:
        self.watches = [ReplicaHealth(deadline_s) for _ in range(num_replicas)]
        self._deadline_s = deadline_s
        self._recovery_s = recovery_s
        self._rank = rank

    @property
    def up(self) -> list[int]:
        return [i for i, watch in enumerate(self.watches) if watch.is_up]

    @property
    def death(self) -> str | None:
        """Why no replica will ever be up again."""
        deaths = [watch.death for watch in self.watches]
        return deaths[0] if all(deaths) else None

    @property
    def fault(self) -> str:
        """Of the replica that was up last."""
        last = max(self.watches, key=lambda watch: watch.fault_at)
        return last.fault or last.death or ""

    def away(self, now: float) -> str | None:
        """The fault, if no replica was up for ``deadline_s``."""
        return self.fault if now - self._down_since >= self._deadline_s else None

    def is_given_up(self, now: float, waits_since: float) -> bool:
        """Whether no replica was up for ``recovery_s``, of which the request waited all."""
        return now - max(self._down_since, waits_since) >= self._recovery_s

    def is_prompt(self, i: int, now: float) -> bool:
        """Whether it owes no status for long enough to be chosen last."""
        polled_at = self.watches[i].polled_at
        return polled_at is None or now - polled_at < PATIENCE_S

    def order(self, now: float) -> list[int]:
        """Replicas that are up, the one that should finish one more request first in front.

        Seconds of the requests that all ranks have there; equal ones start at the rank, so that
        ranks do not all begin with replica 0. One that does not respond promptly comes last.
        """

        def key(i: int) -> tuple[float, int, int]:
            place = (i - self._rank) % len(self.watches)
            return self._cost_s(i, now), self.watches[i].in_flight, place

        return sorted(self.up, key=key)

    def most(self, now: float) -> int:
        """How many requests the first of :meth:`order` may hold and still be first."""
        first, *others = self.order(now)
        if not others:
            return NO_LIMIT
        limit = self._cost_s(others[0], now) / self._request_s(first) - 1
        return NO_LIMIT if limit == math.inf else max(0, math.floor(limit))

    def _cost_s(self, i: int, now: float) -> float:
        if not self.is_prompt(i, now):
            return math.inf
        watch = self.watches[i]
        num_held = watch.in_flight if watch.status is None else watch.status.num_held
        return (num_held + 1) * self._request_s(i)

    def _request_s(self, i: int) -> float:
        """Of a replica that has had no request: as of the fastest one."""
        known = [w.status.request_s for w in self.watches if w.status and w.status.request_s]
        status = self.watches[i].status
        own = status.request_s if status else None
        return own or min(known, default=1.0)

    @property
    def _down_since(self) -> float:
        """Since when no replica is up."""
        if self.up or self.death is not None:
            return math.inf
        return max(watch.fault_at for watch in self.watches)
