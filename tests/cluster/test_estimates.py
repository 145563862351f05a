"""The order of a run's stages, the time of all of them and the critical path, by hand."""

from __future__ import annotations

from math import inf

import pytest

from distill.cluster.estimates import (
    STEP_S,
    Room,
    Scheduled,
    StageQueue,
    Training,
    critical_path,
    makespan,
    remaining,
    simulate,
)

# Three experts, a router of their losses, two baselines, a student that needs two CPUs.
RUN = [
    Scheduled("a", 10),
    Scheduled("b", 40),
    Scheduled("c", 20),
    Scheduled("router", 15, after=("a", "b", "c")),
    Scheduled("long", 60),
    Scheduled("short", 5),
    Scheduled("student", 100, after=("a", "b", "c", "router", "long", "short"), num_cpus=2),
]


def test_a_stage_is_as_urgent_as_the_longest_path_that_it_begins() -> None:
    left = remaining(RUN)
    assert left == {
        "a": 125,
        "b": 155,
        "c": 135,
        "router": 115,
        "long": 160,
        "short": 105,
        "student": 100,
    }


def test_the_critical_path_is_the_longest_chain() -> None:
    assert [s.name for s in critical_path(RUN)] == ["long", "student"]
    without = [s for s in RUN if s.name != "long"]
    assert [s.name for s in critical_path(without)] == ["b", "router", "student"]
    assert critical_path([]) == []


def test_one_worker_takes_the_sum_and_two_the_simulated_time() -> None:
    assert makespan(RUN, Room(num_cpus=1)) == 250
    spans = simulate(RUN, Room(num_cpus=2))
    # One worker has long, the other b and c; at 60 both are free for a and short.
    assert spans["long"] == (0, 60) and spans["b"] == (0, 40)
    assert spans["c"] == (40, 60)
    assert {spans["a"], spans["short"]} == {(60, 70), (60, 65)}
    assert spans["router"] == (70, 85) and spans["student"] == (85, 185)
    assert makespan(RUN, Room(num_cpus=inf)) == 160  # the critical path
    assert makespan(RUN, Room(num_cpus=inf, max_stages=1)) == 250


def test_independent_stages_go_to_the_worker_with_the_least_queue_and_estimate() -> None:
    seconds = {"p": 7.0, "q": 5.0, "r": 4.0, "s": 3.0, "t": 3.0}
    spans = simulate([Scheduled(n, s) for n, s in seconds.items()], Room(num_cpus=2))
    # The draft's rule, longest first: p | q; r to q's worker (5 < 7); s to p's (7 < 9); t to q's.
    assert spans == {"p": (0, 7), "q": (0, 5), "r": (5, 9), "s": (7, 10), "t": (9, 12)}


def test_ties_keep_their_order() -> None:
    queue = StageQueue([Scheduled("b", 1), Scheduled("a", 1), Scheduled("c", 1)], Room(num_cpus=2))
    assert [s.name for s in queue.start()] == ["b", "a"]


def test_an_expert_comes_before_a_longer_baseline_as_the_student_waits_for_it() -> None:
    queue = StageQueue(
        [Scheduled("baseline", 50), Scheduled("expert", 5, rest=60)], Room(num_cpus=1)
    )
    assert [s.name for s in queue.start()] == ["expert"]


def test_one_that_does_not_fit_is_passed_and_starts_at_last() -> None:
    queue = StageQueue([Scheduled("wide", 9, num_cpus=4), Scheduled("x", 3)], Room(num_cpus=2))
    queue.running["y"] = Scheduled("y", 2)
    assert [s.name for s in queue.start()] == ["x"]
    queue.end("x")
    assert queue.start() == []  # y runs
    queue.end("y")
    assert [s.name for s in queue.start()] == ["wide"]  # whatever it needs, if nothing runs


def test_the_student_does_not_wait_for_background_stages() -> None:
    baselines = [Scheduled(name, 50, is_background=True) for name in ("one", "two")]
    stages = [
        Scheduled("expert", 10),
        *baselines,
        Scheduled("student", 40, ("expert",), num_cpus=2),
    ]
    spans = simulate(stages, Room(num_cpus=3), background=Room(num_cpus=1))
    assert spans["student"] == (10, 50)
    assert spans["one"] == (0, 50) and spans["two"] == (50, 100)
    # Without the limit both would run, and the student would wait for them.
    assert simulate(stages, Room(num_cpus=3))["student"] == (50, 90)


def test_gpus_and_the_number_of_stages_are_limits_too() -> None:
    on_gpu = [Scheduled(str(n), 1, num_cpus=0.5, num_gpus=0.5) for n in range(5)]
    assert len(StageQueue(on_gpu, Room(num_cpus=8, num_gpus=1)).start()) == 2
    assert len(StageQueue(on_gpu, Room(max_stages=3)).start()) == 3
    assert len(StageQueue(on_gpu).start()) == 5


def test_a_stage_waits_for_those_before_it_and_not_for_unknown_ones() -> None:
    queue = StageQueue(
        [Scheduled("first", 1), Scheduled("second", 9, after=("first", "done before"))]
    )
    assert [s.name for s in queue.start()] == ["first"]
    assert queue.start() == []
    queue.end("first")
    assert [s.name for s in queue.start()] == ["second"]


def test_measured_times_correct_the_estimates_of_their_kind() -> None:
    stages = [
        Scheduled("e1", 10, kind="expert"),
        Scheduled("e2", 10, kind="expert"),
        Scheduled("b", 15, kind="baseline"),
        Scheduled("r", 1, kind="router"),
    ]
    queue = StageQueue(stages, Room(max_stages=1))
    assert queue.correction("expert") == 1
    assert [s.name for s in queue.start()] == ["b"]
    queue.end("b", seconds=15)
    assert [s.name for s in queue.start()] == ["e1"]
    queue.end("e1", seconds=40)
    assert queue.correction("expert") == 4 and queue.correction("baseline") == 1
    assert queue.correction("router") == pytest.approx(55 / 25)  # of all that ended
    queue.add([Scheduled("b2", 30, kind="baseline")])
    assert [s.name for s in queue.start()] == ["e2"]  # 40 s by now, b2 30 s


def test_operations_are_those_of_training_and_evaluations() -> None:
    training = Training(1000, 3.0, batch_size=8, num_steps=20, num_validation=5, eval_every=10)
    # 6 · 160 rows of training and 2 · 5 rows twice, 1000 parameters and 3 tokens each.
    assert training.operations == 3000 * (6 * 160 + 2 * 5 * 2)
    assert training.seconds(rate=1e6) == training.operations / 1e6 + 20 * STEP_S
    frozen = Training(1000, 3.0, batch_size=8, num_steps=20, per_parameter=4)
    assert frozen.operations == 3000 * 4 * 160
