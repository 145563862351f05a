"""Which replica is up, which is chosen, and when a request is sent again: by exact values of a
simulated time."""

import math
from dataclasses import dataclass, field

import pytest

from distill.teachers.queue import Status
from distill.teachers.watch import NO_LIMIT, PATIENCE_S, POLLS, ReplicaGroup, ReplicaHealth

DEADLINE_S = 100.0


def status(num_finished=0, num_held=1, incarnation="first", request_s=None) -> Status:
    return Status(incarnation, num_held, num_finished, request_s)


def watched(
    sent_at: float, until: float, answer, watch: ReplicaHealth | None = None, step: float = 1.0
):
    """(time, reason) of the first re-send of a request, or None; and the times of the polls.
    ``answer(now)``: the status of a poll, or None while the replica does not answer."""
    watch, polls, now = watch or ReplicaHealth(DEADLINE_S), [], sent_at
    while now <= until:
        if watch.polled_at is not None and (found := answer(now)) is not None:
            watch.poll_ended()
            watch.heard(found, now)
        if watch.should_poll(now, sent_at):
            watch.polled(now)
            polls.append(now)
        if (why := watch.overdue(now, sent_at)) is not None:
            return (now, why), polls
        now += step
    return None, polls


def test_a_request_that_is_answered_soon_costs_no_message():
    assert watched(0, DEADLINE_S / POLLS - 1, lambda now: status()) == (None, [])


def test_a_queue_of_many_deadlines_at_a_replica_that_makes_progress_is_waited_for():
    """One forward in 99 s, and one poll outstanding at a time, four a deadline."""
    again, polls = watched(7, 10_000, lambda now: status(int(now // 99), num_held=8))
    assert again is None
    assert polls[0] == 7 + DEADLINE_S / POLLS
    assert len(polls) <= (10_000 - 7) / (DEADLINE_S / POLLS)


@dataclass
class Simulation:
    """Ranks with one request each at a replica that takes ``service_s`` for each."""

    num_ranks: int
    service_s: float
    num_sent: list[int] = field(default_factory=list)

    def run(self) -> None:
        watches = [ReplicaHealth(DEADLINE_S) for _ in range(self.num_ranks)]
        self.num_sent = [1] * self.num_ranks
        for second in range(math.ceil(self.num_ranks * self.service_s)):
            num_done = int(second // self.service_s)
            now = float(second)
            for watch in watches[num_done:]:
                if watch.polled_at is not None:
                    watch.poll_ended()
                    watch.heard(status(num_done, self.num_ranks - num_done), now)
                if watch.should_poll(now, 0):
                    watch.polled(now)
            for rank in range(num_done, self.num_ranks):
                if watches[rank].overdue(now, 0) is not None:
                    self.num_sent[rank] += 1


@pytest.mark.parametrize(("num_ranks", "deadlines"), [(8, 1.7), (16, 5.0), (32, 20.0)])
def test_no_request_in_a_long_queue_is_sent_twice(num_ranks, deadlines):
    simulation = Simulation(num_ranks, deadlines * DEADLINE_S / num_ranks)
    simulation.run()
    assert simulation.num_sent == [1] * num_ranks


def test_a_replica_that_answers_no_status_is_suspected_a_deadline_after_the_poll():
    (now, why), polls = watched(0, 1000, lambda now: None)
    assert polls == [DEADLINE_S / POLLS]
    assert now == polls[0] + DEADLINE_S
    assert why == "no response to a status request for 100 s"


def test_a_forward_that_hangs_is_suspected_a_deadline_after_its_counter_was_first_seen():
    (now, why), polls = watched(0, 1000, lambda now: status(3, num_held=2))
    first_answer = DEADLINE_S / POLLS + 1
    assert now == first_answer + DEADLINE_S + 1  # a poll at the deadline, and its answer
    assert polls[-1] == first_answer + DEADLINE_S
    assert why == "it holds 2 requests, and finished no forward for 100 s"


def test_the_counter_of_a_replica_that_was_idle_counts_from_the_request():
    watch = ReplicaHealth(DEADLINE_S)
    watch.heard(status(3, num_held=0), 0.0)
    (now, _), _ = watched(5000, 9000, lambda now: status(3), watch)
    assert now == 5000 + DEADLINE_S + 1


def test_a_forward_of_nearly_a_deadline_that_began_before_the_request_is_waited_for():
    again, _ = watched(50, 148, lambda now: status(3))
    assert again is None


def test_a_request_or_response_that_was_lost_on_the_way_is_sent_again_and_the_replica_is_up():
    watch = ReplicaHealth(DEADLINE_S)
    (now, why), _ = watched(0, 1000, lambda now: status(3, num_held=0), watch)
    assert now == DEADLINE_S / POLLS + 1 + DEADLINE_S + 1
    assert why == "it holds no request, and no response came within 100 s"
    assert watch.is_up


def stuck() -> ReplicaHealth:
    watch = ReplicaHealth(DEADLINE_S)
    watch.heard(status(3), 0.0)
    watch.heard(status(3), DEADLINE_S)
    assert watch.overdue(DEADLINE_S, 0.0) is not None
    assert not watch.is_up
    return watch


@pytest.mark.parametrize(
    ("heard", "is_up"),
    [
        (status(3, num_held=1), False),  # the same forward
        (status(4, num_held=1), True),  # it has finished
        (status(3, num_held=0), True),  # nothing hangs there
        (status(3, num_held=1, incarnation="second"), True),  # restarted
        (status(0, num_held=1, incarnation="second"), True),
    ],
)
def test_a_replica_whose_forward_hung_is_up_again_once_it_has_gone_on(heard, is_up):
    watch = stuck()
    watch.heard(heard, 200.0)
    assert watch.is_up is is_up


def test_a_response_clears_a_suspicion_but_not_what_ray_reported():
    watch = stuck()
    watch.answered(200.0)
    assert watch.is_up
    assert watch.overdue(201.0, 0.0) is None  # another request that waits there
    watch.lost("ActorUnavailableError", 300.0)
    watch.answered(300.0)
    assert not watch.is_up


def test_a_restarted_replica_is_up_once_it_answers_a_poll_from_after_its_loss():
    watch = ReplicaHealth(DEADLINE_S)
    watch.polled(10.0)
    watch.lost("ActorUnavailableError: the actor is restarting", 11.0)
    assert watch.overdue(11.0, 0.0) == "ActorUnavailableError: the actor is restarting"
    assert watch.should_poll(11.0, 11.0)  # the old poll does not count
    watch.polled(11.0)
    assert not watch.should_poll(500.0, 11.0)  # one at a time
    watch.poll_ended()
    watch.heard(status(0, num_held=0, incarnation="second"), 12.0)
    assert watch.is_up
    assert watch.overdue(500.0, 0.0) is None
    watch.lost("a response could not be fetched", 600.0)
    watch.heard(status(0, num_held=1, incarnation="second"), 601.0)
    assert watch.is_up  # no forward of it was suspected


def test_a_replica_that_is_not_up_is_polled_once_a_second():
    watch = ReplicaHealth(DEADLINE_S)
    watch.lost("lost", 0.0)
    watch.polled(0.0)
    watch.poll_ended()
    assert [watch.should_poll(now, now) for now in (0.5, 0.99, 1.0)] == [False, False, True]
    watch.died("killed", 1.0)
    assert not watch.should_poll(100.0, 0.0)


def group(*statuses: Status | None, rank: int = 0) -> ReplicaGroup:
    found = ReplicaGroup(len(statuses), DEADLINE_S, 1800.0, rank)
    for watch, one in zip(found.watches, statuses, strict=True):
        if one is not None:
            watch.heard(one, 0.0)
    return found


def test_the_replica_with_the_fewest_requests_of_all_ranks_is_first_and_ties_start_at_the_rank():
    assert group(*(status(num_held=n) for n in (3, 1, 2))).order(0) == [1, 2, 0]
    for rank in range(3):
        assert group(*[status()] * 3, rank=rank).order(0)[0] == rank
        assert group(None, None, None, rank=rank).order(0)[0] == rank


def test_a_slow_replica_has_fewer_requests():
    """Two requests of 1 s end before one of 3 s; an unknown one counts as the fastest."""
    both = group(status(num_held=1, request_s=1.0), status(num_held=0, request_s=3.0), None)
    assert both.order(0) == [2, 0, 1]
    both.watches[0].heard(status(num_held=3, request_s=1.0), 0)
    assert both.order(0) == [2, 1, 0]


def test_a_claim_allows_as_many_requests_as_end_before_those_of_the_next_replica():
    """4 requests of 3 s end after 12 s: of the other replica, 6 of 2 s, of which 5 are held."""
    found = group(status(num_held=1, request_s=2.0), status(num_held=3, request_s=3.0))
    assert (found.order(0), found.most(0)) == ([0, 1], 5)
    assert group(status(num_held=0), status(num_held=0)).most(0) == 0


def test_a_replica_that_does_not_answer_promptly_is_last():
    found = group(status(num_held=0), status(num_held=9))
    found.watches[0].polled(10.0)
    assert found.order(10.0 + PATIENCE_S / 2) == [0, 1]
    assert found.order(10.0 + PATIENCE_S) == [1, 0]
    assert found.most(10.0 + PATIENCE_S) == NO_LIMIT
    found.watches[1].polled(10.0)
    found.watches[0].in_flight = 1  # neither responds: the client's own requests count
    assert found.order(20.0) == [1, 0]


def test_ranks_that_choose_at_once_spread_as_if_one_after_another():
    """All have seen (3, 5), and each claims where it found the least work."""
    held = [3, 5]
    for _ in range(6):
        rank = group(*(status(num_held=n) for n in (3, 5)))
        while True:
            chosen, most = rank.order(0)[0], rank.most(0)
            before = held[chosen]
            if before <= most:
                held[chosen] += 1
                break
            rank.watches[chosen].heard(status(num_held=before), 0)
    assert held == [7, 7]


def test_the_last_replica_that_is_up_has_no_limit():
    found = group(status(num_held=5), status(num_held=9))
    assert found.most(0) == 9
    found.watches[1].lost("lost", 0)
    assert found.order(0) == [0]
    assert found.most(0) == NO_LIMIT


def test_a_teacher_is_away_once_no_replica_was_up_for_a_deadline():
    found = group(status(), status())
    found.watches[0].lost("first", 1000.0)
    assert found.away(5000.0) is None
    found.watches[1].lost("second", 2000.0)
    assert found.away(2000.0 + DEADLINE_S - 1) is None
    assert found.away(2000.0 + DEADLINE_S) == "second"
    found.watches[1].lost("a poll failed", 2050.0)  # it is away since its first fault
    found.watches[1].died("killed", 2060.0)
    assert found.away(2000.0 + DEADLINE_S) == "a poll failed"
    found.watches[0].heard(status(), 2200.0)
    assert found.away(9000.0) is None


def test_a_teacher_whose_only_replica_is_silent_is_away_since_it_was_polled():
    found = ReplicaGroup(1, DEADLINE_S, 1800.0, 0)
    watched(0, 1000, lambda now: None, found.watches[0])
    assert found.away(DEADLINE_S / POLLS + DEADLINE_S) is not None
    assert not found.is_given_up(DEADLINE_S / POLLS + 1799, 0.0)
    assert found.is_given_up(DEADLINE_S / POLLS + 1800, 0.0)


def test_a_forward_that_hangs_makes_its_teacher_away_at_once():
    found = ReplicaGroup(1, DEADLINE_S, 1800.0, 0)
    found.watches = [stuck()]
    assert found.away(DEADLINE_S) == "it holds 1 request, and finished no forward for 100 s"


def test_a_request_is_given_up_when_no_replica_was_up_for_recovery_s_of_its_own_wait():
    found = group(status())
    assert not found.is_given_up(1e9, 0.0)
    found.watches[0].lost("lost", 1000.0)
    assert not found.is_given_up(1000.0 + 1799, 0.0)
    assert found.is_given_up(1000.0 + 1800, 0.0)
    assert not found.is_given_up(9000.0 + 1799, 9000.0)
    assert found.is_given_up(9000.0 + 1800, 9000.0)


def test_a_teacher_whose_replicas_are_dead_is_not_away():
    found = group(status(), status())
    found.watches[0].died("killed", 0.0)
    assert found.death is None
    assert found.order(0) == [1]
    found.watches[1].died("its model no longer loads", 0.0)
    assert found.death == "killed"
    assert found.away(1e9) is None
    assert not found.is_given_up(1e9, 0.0)
