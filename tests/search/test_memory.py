"""The configuration memory: who is near, what is proposed, what is poor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.search.memory import (
    AXES,
    KEYS,
    Experience,
    Memory,
    Proposal,
    judge,
    refinements,
)

DEFAULTS = {
    "kd.temperature": 2.0,
    "kd.alpha": 0.5,
    "optimizer.lr": 1e-3,
    "optimizer.weight_decay": 0.01,
}
RANGES = {axis.key: (axis.low, axis.high) for axis in AXES}


def values(temperature: float = 4.0, alpha: float = 0.5, lr: float = 1e-3, wd: float = 1e-4):
    return dict(zip(KEYS, (temperature, alpha, lr, wd), strict=True))


def past(task: str, a: float, b: float, quality: float = 0.5, **changes: float) -> Experience:
    """A run of a task with two meta-features."""
    return Experience(task, {"meta.a": a, "meta.b": b}, values(**changes), quality)


def test_the_ranges_are_the_papers() -> None:
    assert RANGES == {
        "kd.temperature": (2, 8),
        "kd.alpha": (0, 1),
        "optimizer.lr": (1e-5, 1e-2),
        "optimizer.weight_decay": (1e-6, 1e-3),
    }


def test_an_empty_memory_proposes_the_defaults_and_says_so() -> None:
    proposal = Memory([]).propose({"meta.a": 1.0}, DEFAULTS)
    assert proposal.values == DEFAULTS  # as they are: weight decay 0.01 is outside the range
    assert (proposal.model, proposal.neighbours) == ("defaults", ())
    assert "no past experiment" in proposal.why


def test_one_past_experiment_is_proposed() -> None:
    proposal = Memory([past("t", 1, 2, temperature=3)]).propose(
        {"meta.a": 9.0, "meta.b": 0.0}, DEFAULTS
    )
    assert proposal.values == pytest.approx(values(temperature=3))
    assert [n.experience.task for n in proposal.neighbours] == ["t"]


def test_the_five_nearest_by_cosine_are_averaged_each_on_its_scale() -> None:
    # Mean 0 and deviation 1 already, so the standardised features are these.
    angles = np.arange(8) * math.pi / 4
    points = math.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], 1)
    learned = [
        past(f"task {i}", *point, temperature=2 + 0.5 * i, alpha=i / 10, lr=10 ** (-5 + i / 3))
        for i, point in enumerate(points)
    ]
    asked = {"meta.a": 0.3 * math.cos(0.1), "meta.b": 0.3 * math.sin(0.1)}  # any length
    proposal = Memory(learned).propose(asked, DEFAULTS)
    assert proposal.model == "nearest"
    assert [n.experience.task for n in proposal.neighbours] == [
        f"task {i}" for i in (0, 1, 7, 2, 6)
    ]
    cosines = [math.cos(angle - 0.1) for angle in angles[[0, 1, 7, 2, 6]]]
    assert [n.similarity for n in proposal.neighbours] == pytest.approx(cosines)
    mean_i = (0 + 1 + 7 + 2 + 6) / 5
    expected = values(2 + 0.5 * mean_i, mean_i / 10, 10 ** (-5 + mean_i / 3))
    assert proposal.values == pytest.approx(expected)
    assert all(n.experience.task in proposal.why for n in proposal.neighbours)


def test_features_of_any_unit_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    learned = [past(f"task {i}", *rng.normal(size=2), alpha=i / 20) for i in range(20)]
    rescaled = [
        Experience(
            e.task, {"meta.a": 1000 * e.meta["meta.a"] + 7, "meta.b": e.meta["meta.b"]}, e.values, 1
        )
        for e in learned
    ]
    before = Memory(learned).propose({"meta.a": 0.4, "meta.b": -0.2}, DEFAULTS)
    after = Memory(rescaled).propose({"meta.a": 407.0, "meta.b": -0.2}, DEFAULTS)
    assert before.values == pytest.approx(after.values)


def test_a_feature_that_never_varied_decides_nothing() -> None:
    learned = [past(f"task {i}", i, 0.1, alpha=i / 10) for i in range(8)]
    near = Memory(learned).propose({"meta.a": 7.0, "meta.b": 0.1}, DEFAULTS)
    far = Memory(learned).propose({"meta.a": 7.0, "meta.b": 1e6}, DEFAULTS)
    assert near == far


def test_a_task_counts_once_by_the_mean_of_its_best_tenth() -> None:
    runs = [past("many", 0, 0, quality=q / 30, alpha=q / 30) for q in range(30)]
    memory = Memory([*runs, past("one", 1, 1, quality=0.01, alpha=0.1)])
    many, one = memory.experiments
    assert (many.task, one.task) == ("many", "one")
    assert many.values["kd.alpha"] == pytest.approx((29 + 28 + 27) / 90)
    assert many.quality == pytest.approx((29 + 28 + 27) / 90)
    assert one.values["kd.alpha"] == pytest.approx(0.1)


def test_runs_that_are_as_good_count_as_well() -> None:
    qualities = [0.9, 0.8, 0.8, 0.8, *[0.1] * 16]  # a tenth: the first two
    runs = [past("t", 0, 0, quality=q, alpha=i / 20) for i, q in enumerate(qualities)]
    (experiment,) = Memory(runs).experiments
    assert experiment.values["kd.alpha"] == pytest.approx((0 + 1 + 2 + 3) / 80)


def test_the_order_of_the_runs_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    runs = [
        past(f"task {i % 7}", *rng.normal(size=2), quality=float(rng.integers(3)), alpha=i / 100)
        for i in range(100)
    ]
    asked = {"meta.a": 0.1, "meta.b": 0.2}
    shuffled = [runs[i] for i in rng.permutation(100)]
    assert Memory(runs).propose(asked, DEFAULTS) == Memory(shuffled).propose(asked, DEFAULTS)


def test_a_value_out_of_range_counts_as_the_ranges_edge() -> None:
    proposal = Memory([past("t", 0, 0, temperature=20, wd=0.0, lr=1.0)]).propose(
        {"meta.a": 0.0, "meta.b": 0.0}, DEFAULTS
    )
    assert proposal.values == pytest.approx(values(temperature=8, wd=1e-6, lr=1e-2))


def test_past_experiments_without_a_key_or_feature_have_no_say() -> None:
    lacks_feature = Experience("old", {"meta.a": 0.0}, values(temperature=8), 1.0)
    lacks_key = Experience("other", {"meta.a": 0.0, "meta.b": 0.0}, {"kd.alpha": 1.0}, 1.0)
    memory = Memory([lacks_feature, lacks_key, past("t", 0, 0, temperature=3)])
    asked = {"meta.a": 0.0, "meta.b": 0.0}
    assert memory.propose(asked, DEFAULTS).values == pytest.approx(values(temperature=3))
    # Keys that are not searched are not proposed, and then the other one is heard.
    assert memory.propose(asked, {"kd.alpha": 0.0}).values == {"kd.alpha": pytest.approx(0.75)}


def test_beyond_fifty_past_experiments_regressors_learn_the_rule() -> None:
    rng = np.random.default_rng(2)

    def learned(num: int) -> list[Experience]:
        points = rng.uniform(-1, 1, (num, 2))
        return [
            past(f"task {i}", a, b, lr=10 ** (-3.5 + a), temperature=5 + 2 * b)
            for i, (a, b) in enumerate(points)
        ]

    assert Memory(learned(50)).propose({"meta.a": 0.0, "meta.b": 0.0}, DEFAULTS).model == "nearest"
    memory = Memory(learned(300))
    for a, b in ((0.5, -0.5), (-0.6, 0.7)):
        asked = {"meta.a": a, "meta.b": b}
        proposal = memory.propose(asked, DEFAULTS, seed=3)
        assert proposal.model == "boosting" and "300" in proposal.why
        assert math.log10(proposal.values["optimizer.lr"]) == pytest.approx(-3.5 + a, abs=0.15)
        assert proposal.values["kd.temperature"] == pytest.approx(5 + 2 * b, abs=0.3)
        assert memory.propose(asked, DEFAULTS, seed=3) == proposal


@given(
    st.lists(
        st.tuples(st.integers(0, 60), *[st.floats(-1e6, 1e6)] * 3, *[st.floats(0, 1e3)] * 4),
        max_size=70,
    )
)
def test_a_proposal_is_always_finite_and_in_range(runs: list[tuple[float, ...]]) -> None:
    memory = Memory(
        Experience(f"t{task}", {"meta.mean": a, "meta.b": b}, values(t, abs(alpha), lr, wd), q)
        for task, a, b, q, t, alpha, lr, wd in runs
    )
    proposal = memory.propose({"meta.mean": 1e5, "meta.b": 1.0}, values(lr=1e-4))
    for key, (low, high) in RANGES.items():
        assert low <= proposal.values[key] <= high


def test_refinements_stay_near_in_range_and_repeat() -> None:
    centre = Proposal(values(temperature=5, lr=1e-3, wd=3e-5), (), "nearest", "")
    found = refinements(centre, 400, seed=0)
    assert found[:10] == refinements(centre, 10, seed=0)
    assert found[:10] != refinements(centre, 10, seed=1)
    for axis in AXES:
        low, high = RANGES[axis.key]
        moves = [
            axis.coordinate(v[axis.key]) - axis.coordinate(centre.values[axis.key]) for v in found
        ]
        assert all(low <= v[axis.key] <= high for v in found)
        # Normal steps, none of the four cut by its range by much.
        assert np.mean(moves) == pytest.approx(0, abs=0.2 * axis.step)
        assert np.std(moves) == pytest.approx(axis.step, rel=0.15)


def test_a_refinement_of_the_defaults_comes_into_range() -> None:
    defaults = Memory([]).propose({}, DEFAULTS)
    for found in refinements(defaults, 20, seed=0):
        assert 1e-6 <= found["optimizer.weight_decay"] <= 1e-3


@pytest.mark.parametrize(
    ("proposed", "default", "is_poor"),
    [
        (0.8, 0.7, False),
        (0.7, 0.7, False),
        (0.69, 0.7, True),
        (math.nan, 0.7, True),
        (-math.inf, 0.7, True),
        (math.nan, math.nan, True),
        (0.1, math.nan, False),  # the defaults failed
    ],
)
def test_a_proposal_is_poor_if_worse_than_the_defaults(proposed, default, is_poor) -> None:
    assert judge(proposed, default).is_poor == is_poor
